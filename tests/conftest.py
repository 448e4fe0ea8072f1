"""Fixtures that every test may use; the models behind them are in `tiny_models.py`.

`tiny_components()` gives the keyword arguments of a `LandscapeVideoPipeline` (8 to 16 channels, frames of 64 x 64
pixels through an 8x VAE), `tiny_pipeline()` the pipeline itself. Importing diffusers takes seconds, so it waits until
a test asks for one of them.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest


# Before anything imports huggingface_hub: no test may wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def tiny_components() -> Callable[..., dict[str, Any]]:
    """Factory: `tiny_components(sparse_causal_mode="previous", seed=0, **components_to_replace)`."""
    from tiny_models import build_components

    return build_components


@pytest.fixture
def tiny_pipeline() -> Callable[..., Any]:
    """Factory of a `LandscapeVideoPipeline` with the arguments of `tiny_components`, without progress bars."""
    from pipeline_landscape_video import LandscapeVideoPipeline
    from tiny_models import build_components

    def build(**arguments: Any) -> LandscapeVideoPipeline:
        pipe = LandscapeVideoPipeline(**build_components(**arguments))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build
