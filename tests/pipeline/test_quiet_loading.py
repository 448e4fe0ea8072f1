"""Loading without chatter leaves the libraries as they were."""

import diffusers
import pytest
import transformers

from pipeline_landscape_video.quiet_loading import less_chatter


@pytest.mark.parametrize("enabled", [True, False])
def test_bars_and_warnings_are_as_before(enabled):
    libraries = (diffusers.logging, transformers.logging)
    before = [library.is_progress_bar_enabled() for library in libraries]
    verbosity = diffusers.logging.get_verbosity()
    try:
        for library in libraries:
            (library.enable_progress_bar if enabled else library.disable_progress_bar)()
        with pytest.raises(ValueError), less_chatter():
            assert not any(library.is_progress_bar_enabled() for library in libraries)
            raise ValueError
        assert all(library.is_progress_bar_enabled() is enabled for library in libraries)
        assert diffusers.logging.get_verbosity() == verbosity
    finally:
        for library, was in zip(libraries, before, strict=True):
            (library.enable_progress_bar if was else library.disable_progress_bar)()
