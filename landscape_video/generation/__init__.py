"""Load a model and turn prompts or images into clips: the one way that every command uses."""
