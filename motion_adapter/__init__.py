"""
Motion adapters for `LandscapeVideoPipeline`: made and saved in `build`, their training-only companion in
`noise_adapter`. Importing this package imports nothing.
"""
