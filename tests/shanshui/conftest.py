"""Fixtures of the tests of shanshui-tiny's tools."""

import pytest


@pytest.fixture
def model(tiny_pipeline, tmp_path):
    """A folder with a small random pipeline."""
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"
