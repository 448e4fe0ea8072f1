"""Everything that the scripts in `training/` share."""
