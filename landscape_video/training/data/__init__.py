"""Clips, captions and their caches, up to the batches of a training step."""
