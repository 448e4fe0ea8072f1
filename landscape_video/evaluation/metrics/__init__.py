"""Metrics of generated clips."""
