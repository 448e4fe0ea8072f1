"""
Build, convert, validate and publish motion adapters for `LandscapeVideoPipeline`. `noise_adapter` is used in training
only. Importing this package imports nothing else.
"""
