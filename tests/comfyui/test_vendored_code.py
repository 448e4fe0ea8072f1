"""The code that the node pack carries is that of the package, and computes the same without diffusers."""

import ast
import sys

import numpy as np
import pytest
import torch

from known_motion import pan
from landscape_video.scene_cuts import SceneDetector
from node_pack import PACK, import_from_pack
from pipeline_landscape_video import interpolate_stream
from pipeline_landscape_video.interpolation import doubled_times
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator
from pipeline_landscape_video.landscape_windows import WindowPlan


# What every ComfyUI has, OpenCV, and the standard library
ALLOWED = {"torch", "torchvision", "einops", "numpy", "cv2", *sys.stdlib_module_names}


def test_copies_are_those_that_the_script_makes():
    vendor = import_from_pack("vendor")
    for name, source in vendor.SOURCES.items():
        copy = (PACK / "vendored" / name).read_text(encoding="utf-8")
        assert copy == vendor.vendored_text(source), "run python comfyui_landscape_video/vendor.py"


def test_nothing_else_is_among_the_copies():
    vendor = import_from_pack("vendor")
    assert {file.name for file in (PACK / "vendored").glob("*.py")} == {"__init__.py"} | vendor.SOURCES.keys()


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


def test_copies_find_the_same_scenes_and_repeated_frames():
    frames = torch.cat([pan([0, 2, 4, 6]), 0.2 * pan([0, 2, 4, 6], seed=4)]).repeat_interleave(2, dim=0)
    pixels = np.uint8(frames.movedim(1, -1) * 255)
    detectors = SceneDetector(), import_from_pack("vendored.scene_cuts").SceneDetector()
    for detector in detectors:
        for frame in pixels:
            detector.add(frame)
    timestamps = [index / 8 for index in range(len(pixels))]
    expected, found = (each.find_pictures(timestamps, 8) for each in detectors)
    assert list(found) == list(expected) and len(found.numbers) < len(pixels)
    assert [each.find_scenes(8) for each in detectors] == [[0, 8], [0, 8]]
    times = import_from_pack("vendored.timeline").doubled_times(timestamps, 2)
    assert times == doubled_times(timestamps, 2)


def test_copies_plan_the_same_windows():
    copy = import_from_pack("vendored.windows")
    plan, other = WindowPlan(23, window=8, overlap=3), copy.WindowPlan(23, window=8, overlap=3)
    assert [plan.windows(step) for step in range(6)] == [other.windows(step) for step in range(6)]
