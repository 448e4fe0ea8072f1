"""Trainable parts and their losses."""
