"""Code of the package `landscape-video`, copied by `vendor.py`, so that the nodes need no installation of it."""
