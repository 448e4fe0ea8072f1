"""Exact flow, masks and depth of rendered clips: what they claim is seen in the frames."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from shanshui.render import main
from shanshui.renderer.composition import PAN
from shanshui.renderer.dataset import scene_of, write_video_folder
from shanshui.renderer.landscape import depths
from shanshui.renderer.rendering import SceneRenderer, render_clip, render_ground_truth
from shanshui.renderer.scene import CAMERAS, Scene


FULL = Scene(
    palette="autumn", layers=3, camera="left", water="river", boat="right", mist="right", birds="left",
    weather="rain", trees="pines", light="moon", waterfall=True, pavilion=True, seed=4,
)  # fmt: skip
TIMES = [0.5, 0.75, 1.0]


def warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`frame`, (h, w, ...), seen from where `flow`, (2, h, w), starts."""
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    return cv2.remap(frame.astype(np.float32), x + flow[0], y + flow[1], cv2.INTER_LINEAR)


@pytest.mark.parametrize("size", [(64, 96), (192, 192)])
def test_frames_are_those_of_render_clip(size):
    other = replace(FULL, camera="away", boat="left")
    truth = render_ground_truth(FULL, TIMES, *size, other)
    assert np.array_equal(truth.frames, render_clip(FULL, TIMES, *size, other))


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("water", ["none", "lake", "river"])
def test_flow_leads_from_frame_to_frame(camera, water):
    # Weather covers everything with what falls.
    scene = replace(FULL, camera=camera, water=water, boat="none" if water == "none" else "right", weather="none")
    truth = render_ground_truth(scene, TIMES)
    frames = truth.frames.astype(np.float32)
    for flows, valids, starts, ends in (
        (truth.forward_flow, truth.forward_valid, frames[:-1], frames[1:]),
        (truth.backward_flow, truth.backward_valid, frames[1:], frames[:-1]),
    ):
        for flow, valid, start, end in zip(flows, valids, starts, ends, strict=True):
            assert valid.mean() > 0.3
            error = np.abs(warped(end, flow) - start)[valid].mean()
            assert error < 1.0  # levels of 255, most of them the grain of the paper, which stays in the frame
            unwarped = np.abs(end - start)[valid].mean()
            assert error < 0.5 * unwarped or unwarped < 0.5  # little moves before a resting camera


def test_flow_leads_there_and_back():
    truth = render_ground_truth(replace(FULL, weather="none"), TIMES)
    forward, backward = truth.forward_flow[0], truth.backward_flow[0]
    returned = warped(np.moveaxis(backward, 0, -1), forward)
    both = truth.forward_valid[0] & (warped(truth.backward_valid[0], forward) == 1)
    gap = np.abs(np.moveaxis(returned, -1, 0) + forward).max(0)[both]
    assert both.mean() > 0.3 and np.quantile(gap, 0.99) < 0.02


def test_a_pan_moves_mountains_in_proportion_to_their_depth():
    scene = Scene(layers=4, camera="left", seed=2)
    truth = render_ground_truth(scene, TIMES)
    mountains = truth.forward_valid[0] & (truth.masks["mountains"][0] > 230)  # not the seal on them
    for depth in depths(4):
        layer = mountains & np.isclose(truth.depth[0], depth)
        assert layer.sum() > 100
        assert np.abs(truth.forward_flow[0, 0][layer] - PAN * 128 * depth * 0.25).max() < 1e-4
        assert np.abs(truth.forward_flow[0, 1][layer]).max() < 1e-4
    assert not truth.depth[0, :8].any()  # the sky


@pytest.mark.parametrize("name", ["light", "mist", "waterfall", "pavilion", "boat", "trees", "birds"])
def test_masks_are_where_something_is_seen(name):
    scene = replace(FULL, weather="none")
    masks = render_ground_truth(scene, TIMES).masks[name]
    renderer = SceneRenderer(scene, 128, 128)
    whole = [renderer.frame(time) for time in TIMES]
    renderer.elements = [element for element in renderer.elements if element.name != name]
    changed = np.abs(np.stack(whole).astype(int) - [renderer.frame(time) for time in TIMES]).max(-1)
    assert changed[masks == 0].max() <= 1  # what covers less than 1/510 of a pixel
    assert (masks > 200).sum() > 50 and np.mean(changed[masks > 200] > 5) > 0.85  # mist before mist is not seen


def test_shares_of_a_pixel_add_up():
    masks = render_ground_truth(FULL, TIMES).masks
    assert masks.keys() == {
        "sky", "light", "mountains", "mist", "waterfall", "land", "water", "pavilion", "boat", "trees", "birds",
        "weather", "paper",
    }  # fmt: skip
    total = sum(mask.astype(int) for mask in masks.values())
    assert np.abs(total - 255).max() <= len(masks)


def test_nearer_things_hide_farther_ones():
    truth = render_ground_truth(replace(FULL, weather="none"), TIMES)
    means = {name: truth.depth[truth.masks[name] > 200].mean() for name in ("light", "mountains", "boat", "trees")}
    assert 0 < means["light"] < means["mountains"] < means["boat"] < means["trees"] == 1


def test_ground_truth_is_written_beside_the_clips(tmp_path):
    arguments = ["--output", str(tmp_path), "--clips", "1", "--frames", "3", "--size", "64", "--workers", "0"]
    main([*arguments, "--flow", "--masks", "--depth"])
    truth = render_ground_truth(scene_of(0), [0.0, 0.25, 0.5], 64, 64)
    with np.load(tmp_path / "flow" / "clip_000000.npz") as arrays:
        assert set(arrays) == {"forward_flow", "forward_valid", "backward_flow", "backward_valid"}
        assert np.array_equal(arrays["backward_flow"], truth.backward_flow)
    with np.load(tmp_path / "masks" / "clip_000000.npz") as arrays:
        assert {name: array.tolist() for name, array in arrays.items()} == {
            name: mask.tolist() for name, mask in truth.masks.items()
        }
    with np.load(tmp_path / "depth" / "clip_000000.npz") as arrays:
        assert np.array_equal(arrays["depth"], truth.depth)
    row = json.loads((tmp_path / "metadata.jsonl").read_text("utf-8"))
    assert row["ground_truth"] == ["depth", "flow", "masks"]
    with pytest.raises(SystemExit, match="other settings"):  # the clips that are there lack nothing, or something
        main([*arguments, "--flow"])
    with pytest.raises(ValueError, match=r"`ground_truth` must hold .* got \['normals'\]"):
        write_video_folder(tmp_path, 1, ground_truth=["normals"])
