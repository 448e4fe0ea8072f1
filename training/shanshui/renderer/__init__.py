"""Procedural ink-landscape clips with captions."""
