"""Landscape-painting video: generation, command line, training and evaluation."""
