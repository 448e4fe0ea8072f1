"""Interpolation with flow that is wrong, missing, or ends at the edge of an object."""

import math

import numpy as np
import pytest
import torch

from known_motion import KnownFlow, pan, square_clip, square_flow
from media_files import moving_texture
from pipeline_landscape_video import (
    SOFP_MODES,
    film_grain,
    interpolate_frames,
    interpolate_stream,
    landscape_warping,
    load_flow_estimator,
)


DIS = load_flow_estimator("dis")


@pytest.mark.parametrize("seed", range(3))
def test_equal_neighbors_give_the_same_frame_whatever_the_flow_says(seed):
    frames = pan([0, 0, 0, 6])
    noise = torch.Generator().manual_seed(seed)
    interpolated = interpolate_frames(frames, lambda a, b: 5 * torch.randn(len(a), 2, *a.shape[-2:], generator=noise))
    for index in range(5):
        assert torch.equal(interpolated[index], frames[0])


def test_a_still_clip_needs_no_flow():
    def no_flow(frames_a, frames_b):
        raise AssertionError("nothing moves")

    frames = pan([3, 3, 3])
    assert torch.equal(interpolate_frames(frames, no_flow), frames[:1].expand(5, -1, -1, -1))


def test_flow_that_does_not_come_back_is_not_projected():
    """Forward and backward flow disagree: the acceleration that VT claims is not believed."""
    frames = pan([0, 4, 16])
    true_flow = KnownFlow(frames, [0, 4, 16])

    def half_wrong(frames_a, frames_b):
        flow = true_flow(frames_a, frames_b).clone()
        flow[flow[:, 0, 0, 0] < 0] *= 0.2
        return flow

    linear = interpolate_frames(frames, half_wrong, sofp_mode="linear")
    assert torch.equal(interpolate_frames(frames, half_wrong, sofp_mode="quadratic"), linear)
    assert torch.equal(interpolate_frames(frames, half_wrong, sofp_mode="projection"), linear)


def test_motion_below_half_a_pixel_is_not_projected():
    frames = pan([0, 1, 2], seed=1)
    slow = KnownFlow(frames, [0.0, 0.4, 4.0])
    linear = interpolate_frames(frames, slow, sofp_mode="linear")[1]
    assert torch.equal(interpolate_frames(frames, slow, sofp_mode="quadratic")[1], linear)
    assert torch.equal(interpolate_frames(frames, slow, sofp_mode="projection")[1], linear)


@pytest.mark.parametrize("sofp_mode", SOFP_MODES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_flow_that_is_no_number_spoils_nothing(sofp_mode, value):
    positions = [0, 2, 4]
    frames = pan(positions)
    true_flow = KnownFlow(frames, positions)

    def broken(frames_a, frames_b):
        flow = true_flow(frames_a, frames_b).clone()
        flow[:, :, 10:14, 20:24] = value
        return flow

    interpolated = interpolate_frames(frames, broken, sofp_mode=sofp_mode)
    assert interpolated.isfinite().all()
    torch.testing.assert_close(interpolated[1][:, 24:, 16:-16], pan([1])[0][:, 24:, 16:-16], rtol=0, atol=1e-3)


def test_what_an_object_uncovers_comes_from_the_frame_that_sees_it():
    frames, masks = square_clip([16, 28, 40, 52])
    interpolated = interpolate_frames(frames, square_flow(frames, masks, [16, 28, 40, 52]))
    expected, _ = square_clip([22, 34, 46])
    for middle, truth in zip(interpolated[1::2], expected, strict=True):
        error = (middle - truth).abs().amax(dim=0)
        assert error.mean() < 1e-3
        assert error[24:40].mean() < 2e-3  # the rows of the square, its edges included


def test_where_neither_frame_sees_the_place_both_are_averaged():
    """Both flows lead away from the middle column: at half time nothing has arrived there."""
    frames = pan([0, 5])
    apart = torch.zeros(1, 2, *frames.shape[-2:])
    apart[:, 0, :, :28], apart[:, 0, :, 28:] = -8, 8
    middle = interpolate_frames(frames, lambda a, b: apart.expand(len(a), -1, -1, -1))[1]
    torch.testing.assert_close(middle[..., 25:31], frames.mean(0)[..., 25:31], rtol=0, atol=1e-6)


def test_flow_that_explains_nothing_leans_to_the_average():
    """Two unrelated images. Consistent flow is used all the same; inconsistent flow is not."""
    frames = torch.cat([pan([0], seed=1), pan([0], seed=2)])
    average = frames.mean(0)
    distance = {}
    for way_back in (-6.0, 6.0):

        def flow(frames_a, frames_b, way_back=way_back):
            flows = torch.zeros(2, 2, *frames_a.shape[-2:])
            flows[0, 0], flows[1, 0] = 6.0, way_back
            return flows

        middle = interpolate_frames(frames, flow)[1]
        distance[way_back] = (middle - average)[..., 16:-16].abs().mean()
    assert distance[6.0] < 0.7 * distance[-6.0]


def test_flow_that_explains_the_frames_is_followed_even_if_it_does_not_lead_back():
    """The way back misses by more than is trusted, but both ways bring the frames close to each other."""
    frames = pan([0, 6])

    def missing(frames_a, frames_b):
        flow = torch.zeros(2, 2, *frames_a.shape[-2:])
        flow[0, 0], flow[1, 0] = 5.25, -6.75
        return flow

    middle, truth = interpolate_frames(frames, missing)[1], pan([3])[0]
    error, of_the_average = ((image - truth)[..., 16:-16].abs().mean() for image in (middle, frames.mean(0)))
    assert error < 0.25 * of_the_average


def test_a_line_that_stands_in_moving_water_stays_where_it_is():
    """Flow is smooth, and says of the line what it says of the water: no motion explains the line better."""
    positions = [0, 2, 4]
    frames, truth = (pan(places, height=96, width=96) * 0.6 + 0.4 for places in (positions, [1]))
    smeared = KnownFlow(frames.clone(), positions)
    frames[..., 40:43] = 0
    smeared.frames = frames
    middle = interpolate_frames(frames, smeared)[1]
    assert middle[..., 40:43].mean() < 0.1  # carried along, a third of it would be as light as the water, 0.4 or more
    torch.testing.assert_close(middle[..., 52:90], truth[0, ..., 52:90], rtol=0, atol=1e-3)


def test_a_region_that_flow_leaves_unexplained_is_averaged_by_half():
    """The left half has nothing to do with the frame before; the right half moves, and is followed as ever."""
    unrelated = torch.cat([pan([0], seed=seed, height=96, width=96) for seed in (1, 2, 4)])
    frames = torch.cat([unrelated, pan([0, 6, 12], height=96, width=96)], dim=-1)

    def flow(frames_a, frames_b):
        flows = torch.zeros(4, 2, *frames_a.shape[-2:])
        flows[:2, 0], flows[2:, 0] = 6.0, -6.0
        flows[2:, 0, :, :96] = -10.0  # does not lead back
        return flows

    middle, average = interpolate_frames(frames, flow)[1], frames[:2].mean(0)
    read = (frames[0].roll(4, dims=-1) + frames[1].roll(-4, dims=-1)) / 2  # half of 8, of what the two ways say
    lost = (slice(None), slice(None), slice(16, 64))
    followed = ((middle - average)[lost] * (read - average)[lost]).sum() / (read - average)[lost].square().sum()
    assert followed < 0.35
    truth = pan([3], height=96, width=96)[0]
    torch.testing.assert_close(middle[..., 96:][..., 32:80], truth[..., 32:80], rtol=0, atol=1e-3)


def test_what_comes_back_by_chance_is_not_taken_for_still():
    """Stripes of 8 pixels move by 8: no motion explains them, too, and better than a flow that is a little short."""
    stripes = (torch.arange(96) // 4 % 2).float() * 0.5 + 0.2
    frames = stripes.expand(3, 3, 96, 96).contiguous()
    frames[0, :, :2] = frames[2, :, :2] = 0.0  # equal neighbors would be taken as they are

    def flow(frames_a, frames_b):
        flows = torch.zeros(4, 2, *frames_a.shape[-2:])
        flows[:2, 0], flows[2:, 0] = 7.0, -7.0
        return flows

    middle = interpolate_frames(frames, flow)[1, :, 16:-16, 16:-16]
    moved, stood = ((middle - frames[1].roll(shift, dims=-1)[:, 16:-16, 16:-16]).abs().mean() for shift in (4, 0))
    assert moved < 0.5 * stood


def test_what_leaves_the_frame_in_a_fast_pan_is_not_averaged():
    """Flow that leaves the frame cannot be judged, and neither can its surroundings."""
    frames, truth = pan([0, 24, 48], height=96, width=96), pan([12], height=96, width=96)[0]
    known = KnownFlow(frames, [0, 24, 48])

    def flow(frames_a, frames_b):
        flows = known(frames_a, frames_b).clone()
        flows[:2, 0, :, -24:], flows[2:, 0, :, :24] = 60, -60
        return flows

    middle = interpolate_frames(frames, flow)[1]
    torch.testing.assert_close(middle[..., 70:82], truth[..., 70:82], rtol=0, atol=1e-2)


@pytest.mark.parametrize(("height", "width", "reduced"), [(96, 128, 4000), (95, 127, 4000), (150, 203, 5000)])
@pytest.mark.parametrize("keep_grain", [False, True])
def test_large_frames_follow_reduced_flow_in_bands(monkeypatch, height, width, reduced, keep_grain):
    frames = moving_texture(9, height, width, speed=2)
    stream = [
        (torch.from_numpy(frame).movedim(-1, 0) / 255, float(number)) for number, frame in enumerate(frames[::2])
    ]
    full = [frame for frame, _ in interpolate_stream(stream, DIS, keep_grain=keep_grain)]
    monkeypatch.setattr(landscape_warping, "_MAX_FLOW_PIXELS", reduced)
    for module in (landscape_warping, film_grain):
        monkeypatch.setattr(module, "BAND_ROWS", 20)
    half = [(frame.half(), time) for frame, time in stream]
    in_bands = [frame.float() for frame, _ in interpolate_stream(half, DIS, keep_grain=keep_grain)]
    for number, (one, other) in enumerate(zip(full, in_bands, strict=True)):
        errors = [(255 * made.movedim(0, -1).numpy() - frames[number])[8:-8, 8:-8] for made in (one, other)]
        assert np.abs(errors[1]).mean() < np.abs(errors[0]).mean() + 0.3
        rows = np.abs(errors[1]).mean(axis=(1, 2))
        assert rows.max() < 2.5 * max(rows.mean(), 0.4)  # no seam
        assert number % 2 or torch.equal(other, stream[number // 2][0].half().float())
