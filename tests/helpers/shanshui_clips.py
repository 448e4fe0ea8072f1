"""Clips of a small random pipeline, for the tests of shanshui-tiny's measurements."""

from pathlib import Path
from typing import Any

from landscape_video.generation.settings import TextToVideoSettings
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant


REQUESTS = [Request(0, "misty mountains"), Request(1, "a boat over the river"), Request(2, "pine", "rain")]


def make_maker(model: Path, folder: Path, **changes: Any) -> ClipMaker:
    return ClipMaker(model, folder, **{"batch": 2, "seed": 3, "device": "cpu"} | changes)


def make_variant(**changes: Any) -> Variant:
    settings = {"steps": 2, "guidance_scale": 8.0, "eta": 0.0, "interpolate": False} | changes
    return Variant(TextToVideoSettings(**settings))
