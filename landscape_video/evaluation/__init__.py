"""How good clips are: metrics of generated video, tables of several systems, a page and a user study.

Start with `evaluate.py`, or on the command line with `landscape-video evaluate --help`.
"""
