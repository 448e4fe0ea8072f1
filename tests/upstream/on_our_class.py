"""Pytest plugin that replaces diffusers' `AnimateDiffPipeline` by our class, as `LANDSCAPE_VARIANT` says.

`stock` changes nothing. `full` runs `LandscapeVideoPipeline` with interpolation, on the tests' own adapters, which are
AnimateDiff's. `previous` also sets our sparse-causal mode in these adapters and in every motion UNet of a test.
"""

import functools
import os

import diffusers
import pytest

from pipeline_landscape_video import LandscapeVideoPipeline, install_sparse_causal_attention


VARIANT = os.environ["LANDSCAPE_VARIANT"]

if VARIANT in ("full", "previous"):
    diffusers.AnimateDiffPipeline = LandscapeVideoPipeline
    diffusers.pipelines.LandscapeVideoPipeline = LandscapeVideoPipeline  # one test looks up the class by name


def with_mode(get_dummy_components):
    @functools.wraps(get_dummy_components)
    def wrapped(self):
        components = get_dummy_components(self)
        components["motion_adapter"].register_to_config(sparse_causal_mode=VARIANT)
        return components

    return wrapped


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if VARIANT != "previous":
        return
    for test_class in {item.cls for item in items if hasattr(item.cls, "get_dummy_components")}:
        test_class.get_dummy_components = with_mode(test_class.get_dummy_components)

    make = diffusers.UNetMotionModel.__init__

    @functools.wraps(make)
    def make_sparse_causal(self, *arguments, **keywords):
        make(self, *arguments, **keywords)
        install_sparse_causal_attention(self, VARIANT)

    diffusers.UNetMotionModel.__init__ = make_sparse_causal
