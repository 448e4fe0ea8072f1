"""The page and tables of an evaluation."""
