"""Training stages of `train_tiny.py`."""
