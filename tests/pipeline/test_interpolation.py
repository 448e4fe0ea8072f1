"""Interpolation in closed form: known motion in, known positions out."""

import pytest
import torch

from known_motion import KnownFlow, pan, picture, square_clip, square_flow
from pipeline_landscape_video import SOFP_MODES, interpolate_frames
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator
from pipeline_landscape_video.landscape_warping import splat


def interpolate_pan(positions, **arguments):
    frames = pan(positions)
    return interpolate_frames(frames, KnownFlow(frames, positions), **arguments)


def assert_shows(frame, position, margin=16, tolerance=1e-3):
    """Assert that the frame is the image at a position; `margin` columns at the sides are outside a neighbor."""
    expected = pan([position])[0]
    torch.testing.assert_close(frame[..., margin:-margin], expected[..., margin:-margin], rtol=0, atol=tolerance)


def assert_shows_another(frame, position, margin=16):
    assert (frame - pan([position])[0])[..., margin:-margin].abs().max() > 0.02


@pytest.mark.parametrize("sofp_mode", SOFP_MODES)
def test_a_shift_by_two_pixels_becomes_a_shift_by_one(sofp_mode):
    interpolated = interpolate_pan([0, 2, 4, 6], sofp_mode=sofp_mode)
    for index in range(7):
        assert_shows(interpolated[index], index)


def test_vertical_and_diagonal_motion_follow_x_then_y():
    scene = picture()
    frames = torch.stack([scene[:, 50 - 4 * t : 90 - 4 * t, 100 + 2 * t : 156 + 2 * t] for t in range(3)])
    flow = KnownFlow(frames, [(-2.0 * t, 4.0 * t) for t in range(3)])
    middle = interpolate_frames(frames, flow)[1]
    torch.testing.assert_close(middle[:, 8:-8, 8:-8], scene[:, 48:88, 101:157][:, 8:-8, 8:-8], rtol=0, atol=1e-3)


def test_quadratic_is_exact_for_acceleration_from_rest():
    """x = 4 s^2: a quarter of the first step is done at half time, 5 of the 12 pixels of the second, ..."""
    interpolated = interpolate_pan([0, 4, 16, 36], sofp_mode="quadratic")
    for index, position in ((1, 1), (3, 9), (5, 25)):
        assert_shows(interpolated[index], position, margin=22)


def test_quadratic_is_exact_for_slowing_down_to_rest():
    interpolated = interpolate_pan([0, 20, 32, 36], sofp_mode="quadratic")
    for index, position in ((1, 11), (3, 27), (5, 35)):
        assert_shows(interpolated[index], position, margin=22)


def test_linear_ignores_acceleration():
    interpolated = interpolate_pan([0, 4, 16, 36], sofp_mode="linear")
    assert_shows(interpolated[1], 2)
    assert_shows(interpolated[3], 10)


def test_projection_takes_the_literal_share():
    """D / n = 12 / (2 * 4) for positions 0, 4, 12: three quarters of the step at half time."""
    interpolated = interpolate_pan([0, 4, 12], sofp_mode="projection")
    assert_shows(interpolated[1], 3)


def test_projection_stops_at_the_next_frame():
    interpolated = interpolate_pan([0, 4, 24], sofp_mode="projection")
    assert_shows(interpolated[1], 4)


def test_quadratic_never_runs_backwards():
    """Positions 0, 4, 24 ask for an alpha below the quarter that a motion without reversal allows."""
    interpolated = interpolate_pan([0, 4, 24], sofp_mode="quadratic")
    assert_shows(interpolated[1], 1)


def test_quadratic_never_overshoots():
    """Positions 0, 8, -4 ask for 13 sixteenths of the first step, beyond the three quarters without reversal."""
    interpolated = interpolate_pan([0, 8, -4], sofp_mode="quadratic")
    assert_shows(interpolated[1], 6)


@pytest.mark.parametrize("window", [4, 6, 8])
def test_any_window_is_exact_for_constant_acceleration(window):
    interpolated = interpolate_pan([0, 4, 16, 36, 64], sofp_mode="quadratic", window=window)
    for index, position in ((1, 1), (3, 9), (5, 25), (7, 49)):
        assert_shows(interpolated[index], position, margin=22)


def test_what_is_before_and_after_a_pair_count_alike():
    """Positions 0, 16, 32, 64: the frame before says c = 0, the one after c = 1 / 2; least squares takes c = 1 / 4."""
    interpolated = interpolate_pan([0, 16, 32, 64], sofp_mode="quadratic")
    assert_shows(interpolated[3], 16 + 7, margin=22)


def test_doublings_sample_one_parabola():
    interpolated = interpolate_pan([0, 16, 64], sofp_mode="quadratic", times=2)
    assert len(interpolated) == 9
    for index, position in ((1, 1), (2, 4), (3, 9)):
        assert_shows(interpolated[index], position, margin=18)


def test_doublings_of_even_motion_are_even():
    interpolated = interpolate_pan([0, 8, 16], times=3)
    for index in range(17):
        assert_shows(interpolated[index], index)


def test_time_is_measured_by_timestamps():
    """Even motion with uneven sampling is recognized as even only with its timestamps."""
    positions, timestamps = [0, 4, 16, 28], [0.0, 0.04, 0.16, 0.28]
    assert_shows(interpolate_pan(positions, timestamps=timestamps)[1], 2)
    assert_shows_another(interpolate_pan(positions)[1], 2)


def test_window_bounds_how_far_is_looked():
    """Of 8 frames around a pair, 3 come after it."""
    near, far = [0, 4, 8, 12, 16, 20], [0, 4, 8, 12, 24, 40]
    assert torch.equal(interpolate_pan(near, window=6)[1], interpolate_pan(far, window=6)[1])
    assert not torch.equal(interpolate_pan(near, window=8)[1], interpolate_pan(far, window=8)[1])
    assert torch.equal(interpolate_pan(near[::-1], window=6)[9], interpolate_pan(far[::-1], window=6)[9])


def test_two_frames_and_window_two_are_linear():
    assert_shows(interpolate_pan([0, 4])[1], 2)
    assert_shows(interpolate_pan([0, 4, 16], window=2)[1], 2)


def test_each_pair_of_neighbors_is_matched_once_each_way():
    positions = list(range(0, 40, 2))
    frames = pan(positions)
    flow = KnownFlow(frames, positions)
    interpolate_frames(frames, flow)
    assert sorted(flow.pairs) == sorted([(t, t + 1) for t in range(19)] + [(t + 1, t) for t in range(19)])


def test_an_accelerating_object_lands_where_it_should():
    """Only the object moves, by s^2; its background must not slow it down or be dragged along."""
    centers = [8, 12, 24, 44]
    frames, masks = square_clip(centers)
    truth, _ = square_clip([9, 17, 33])
    flow = square_flow(frames, masks, centers)
    errors = {}
    for sofp_mode in ("quadratic", "linear"):
        middles = interpolate_frames(frames, flow, sofp_mode=sofp_mode)[1::2]
        errors[sofp_mode] = (middles - truth).square().mean().item()
    assert errors["quadratic"] < 0.05 * errors["linear"]


def test_estimated_flow_places_an_accelerating_object():
    """The same with flow from DIS: the center of the foreground is right to a third of a pixel."""
    yy, xx = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    texture = picture(5)[:, :96, :96]

    def frame(x):
        weight = torch.sigmoid((10 - ((xx - x) ** 2 + (yy - 48) ** 2).sqrt()) * 2)
        return 0.3 * texture + 0.6 * weight

    def center(image):
        weight = (image - 0.3 * texture).clamp_min(0).sum(0)
        return (weight * xx).sum() / weight.sum()

    frames = torch.stack([frame(20 + 2 * t**2) for t in range(5)])
    interpolated = interpolate_frames(frames, DISFlowEstimator())
    for index, position in ((3, 24.5), (5, 32.5)):
        assert abs(center(interpolated[index]) - position) < 0.34


def test_no_pixel_of_a_large_frame_is_lost():
    height, width = 2, 2**23 + 16  # more pixels than float32 can count
    values = torch.arange(width).remainder(7).expand(1, 1, height, width).float()
    sums, covered = splat(values, torch.zeros(1, 2, height, width), torch.ones(1, 1, height, width))
    assert covered.min() == 1 and torch.allclose(sums[:, :1] / sums[:, 1:], values)
