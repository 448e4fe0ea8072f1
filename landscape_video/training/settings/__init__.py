"""Settings of the training runs as dataclasses, from which the command lines are made."""
