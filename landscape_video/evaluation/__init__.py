"""Measure generated video: metrics, tables of several systems, a report page and a user study.

Start with `evaluate.py`, or on the command line with `landscape-video evaluate --help`.
"""
