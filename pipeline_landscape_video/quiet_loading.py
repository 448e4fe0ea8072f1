"""Load models without progress bars and warnings; for the packages above this one, not part of the Hub's code."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def less_chatter() -> Iterator[None]:
    """Hide the bars of files that load in a moment, and the warnings about our own entries in configs."""
    import diffusers
    import transformers

    libraries = [one for one in (diffusers.logging, transformers.logging) if one.is_progress_bar_enabled()]
    verbosity = diffusers.logging.get_verbosity()
    diffusers.logging.disable_progress_bar()
    diffusers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(verbosity)
        for library in libraries:
            library.enable_progress_bar()
