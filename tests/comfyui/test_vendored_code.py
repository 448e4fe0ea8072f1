"""The code that the node pack carries is that of the package, and computes the same without diffusers."""

import ast
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from known_motion import pan
from landscape_video.scene_cuts import mark_cuts
from node_pack import PACK, import_from_pack
from pipeline_landscape_video import interpolate_stream
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator
from pipeline_landscape_video.landscape_windows import WindowPlan, window_weights
from pipeline_landscape_video.video_io import VideoFrame


# What every ComfyUI has, OpenCV, and the standard library
ALLOWED = {"torch", "torchvision", "einops", "numpy", "cv2", *sys.stdlib_module_names}


def test_copies_are_those_that_the_script_makes():
    vendor = import_from_pack("vendor")
    for name, source in vendor.SOURCES.items():
        copy = (PACK / "vendored" / name).read_text(encoding="utf-8")
        assert copy == vendor.vendored_text(source), "run python comfyui_landscape_video/vendor.py"


def test_nothing_else_is_among_the_copies():
    vendor = import_from_pack("vendor")
    own = {"__init__.py", "video_frame.py"}
    assert {file.name for file in (PACK / "vendored").glob("*.py")} == own | vendor.SOURCES.keys()


def test_the_script_refuses_a_source_without_what_it_leaves_out():
    vendor = import_from_pack("vendor")
    path = "pipeline_landscape_video/landscape_sofp.py"
    with pytest.raises(ValueError, match="must define absent"):
        vendor.vendored_text(vendor.Source(path, dropped=("absent",)))
    with pytest.raises(ValueError, match="must contain 'absent text'"):
        vendor.vendored_text(vendor.Source(path, replaced={"absent text": ""}))


@pytest.mark.parametrize("file", sorted((PACK / "vendored").glob("*.py")), ids=lambda file: file.name)
def test_copies_need_neither_diffusers_nor_our_package(file):
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.split(".")[0])
    assert imported <= ALLOWED


def test_copies_interpolate_like_the_package():
    frames = torch.cat([pan([0, 2, 5, 9]), pan([0, 3], seed=4)])
    items, cut = list(zip(frames, range(len(frames)), strict=True)), frames[4]
    cuts = {"is_cut": lambda _, frame: torch.equal(frame, cut)}
    expected = interpolate_stream(items, DISFlowEstimator(), times=2, **cuts)

    copies = {name: import_from_pack(f"vendored.{name}") for name in ("frame_interpolation", "sofp", "warping")}
    interpolator = copies["frame_interpolation"].FrameInterpolator(
        import_from_pack("vendored.optical_flow").DISFlowEstimator(),
        copies["sofp"].SparseFlowProjection("quadratic"),
        copies["warping"].FlowWarper(),
        times=2,
    )
    found = interpolator.interpolate_stream(items, **cuts)
    for (frame, time), (other, other_time) in zip(expected, found, strict=True):
        assert torch.equal(frame, other) and time == other_time


def test_copies_find_the_same_cuts():
    frames = torch.cat([pan([0, 1, 2, 3]), 1 - pan([0, 1, 2, 3], seed=4)])
    pixels = list(np.uint8(frames.movedim(1, -1) * 255))
    expected = [
        cut for _, cut in mark_cuts(VideoFrame(each, Fraction(i), Fraction(1)) for i, each in enumerate(pixels))
    ]
    frame_class = import_from_pack("vendored.video_frame").VideoFrame
    found = [cut for _, cut in import_from_pack("vendored.scene_cuts").mark_cuts(map(frame_class, pixels))]
    assert found == expected == [False] * 4 + [True] + [False] * 3


def test_copies_plan_the_same_windows():
    copy = import_from_pack("vendored.windows")
    plan, other = WindowPlan(23, window=8, overlap=3), copy.WindowPlan(23, window=8, overlap=3)
    assert [plan.windows(step) for step in range(6)] == [other.windows(step) for step in range(6)]
    latents = torch.zeros(1, 4, 23, 2, 2)
    assert torch.equal(window_weights("pyramid", plan, latents), copy.window_weights("pyramid", other, latents))
