"""A user study of pairs of clips: build it, count its answers."""
