"""Interpolation against closed forms: known motion in, known positions out."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline_landscape_video.landscape_flow_interpolation import (
    SOFP_MODES,
    interpolate_frames,
    interpolate_stream,
)
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator


HEIGHT, WIDTH = 40, 56


def picture(seed=0, size=200):
    """A smooth random picture, (3, size, size) in [0, 1]."""
    coarse = torch.rand(1, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0].clamp(0, 1)


def pan(positions, seed=0, height=HEIGHT, width=WIDTH):
    """Frames of a picture whose content has come `positions` whole pixels to the right."""
    scene = picture(seed)
    return torch.stack([scene[:, 50 : 50 + height, 100 - p : 100 - p + width] for p in positions])


class KnownFlow:
    """The true flow between frames whose whole content stands at known places, (x, y) or x alone."""

    def __init__(self, frames, positions):
        self.frames = frames
        self.positions = [position if isinstance(position, tuple) else (position, 0.0) for position in positions]
        self.pairs = []

    def index(self, frame):
        return next(i for i, known in enumerate(self.frames) if torch.equal(frame, known))

    def __call__(self, frames_a, frames_b):
        flows = []
        for frame_a, frame_b in zip(frames_a, frames_b, strict=True):
            a, b = self.index(frame_a), self.index(frame_b)
            self.pairs.append((a, b))
            shift = torch.tensor(self.positions[b]) - torch.tensor(self.positions[a])
            flows.append(shift.view(2, 1, 1).expand(2, *frame_a.shape[-2:]))
        return torch.stack(flows)


def interpolate_pan(positions, **arguments):
    frames = pan(positions)
    return interpolate_frames(frames, KnownFlow(frames, positions), **arguments)


def assert_shows(frame, position, margin=16, tolerance=1e-3):
    """The frame is the picture at that place; `margin` columns at the sides come from beyond a neighbour's border."""
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
    """Even motion, unevenly sampled: only with its timestamps is it recognised as even."""
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


def test_each_pair_of_neighbours_is_matched_once_each_way():
    positions = list(range(0, 40, 2))
    frames = pan(positions)
    flow = KnownFlow(frames, positions)
    interpolate_frames(frames, flow)
    assert sorted(flow.pairs) == sorted([(t, t + 1) for t in range(19)] + [(t + 1, t) for t in range(19)])


@pytest.mark.parametrize("seed", range(3))
def test_equal_neighbours_give_the_same_frame_whatever_the_flow_says(seed):
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
    assert_shows(interpolated[1][:, 20:], 1) if False else None
    torch.testing.assert_close(interpolated[1][:, 24:, 16:-16], pan([1])[0][:, 24:, 16:-16], rtol=0, atol=1e-3)


def square_clip(centres, size=64, half=8):
    """A bright square that moves over a picture that does not, and where it is, (frames, 1, size, size)."""
    background = picture(3)[:, :size, :size] * 0.5
    frames, masks = [], []
    for x in centres:
        mask = torch.zeros(1, size, size)
        mask[:, size // 2 - half : size // 2 + half, x - half : x + half] = 1
        frames.append(background * (1 - mask) + mask * torch.tensor([0.9, 0.8, 1.0]).view(3, 1, 1))
        masks.append(mask)
    return torch.stack(frames), torch.stack(masks)


def square_flow(frames, masks, centres):
    def flow(frames_a, frames_b):
        flows = []
        for frame_a, frame_b in zip(frames_a, frames_b, strict=True):
            a, b = (next(i for i, f in enumerate(frames) if torch.equal(f, frame)) for frame in (frame_a, frame_b))
            flows.append(torch.cat([masks[a] * (centres[b] - centres[a]), torch.zeros_like(masks[a])]))
        return torch.stack(flows)

    return flow


def test_what_an_object_uncovers_comes_from_the_frame_that_sees_it():
    frames, masks = square_clip([16, 28, 40, 52])
    interpolated = interpolate_frames(frames, square_flow(frames, masks, [16, 28, 40, 52]))
    expected, _ = square_clip([22, 34, 46])
    for middle, truth in zip(interpolated[1::2], expected, strict=True):
        error = (middle - truth).abs().amax(dim=0)
        assert error.mean() < 1e-3
        assert error[24:40].mean() < 2e-3  # the rows of the square, its edges included


def test_an_accelerating_object_lands_where_it_should():
    """Only the object moves, by s^2; its background must not slow it down or be dragged along."""
    centres = [8, 12, 24, 44]
    frames, masks = square_clip(centres)
    truth, _ = square_clip([9, 17, 33])
    flow = square_flow(frames, masks, centres)
    errors = {}
    for sofp_mode in ("quadratic", "linear"):
        middles = interpolate_frames(frames, flow, sofp_mode=sofp_mode)[1::2]
        errors[sofp_mode] = (middles - truth).square().mean().item()
    assert errors["quadratic"] < 0.05 * errors["linear"]


def test_estimated_flow_places_an_accelerating_object():
    """The same with flow that DIS estimates: the centre of what differs from the background, to a third of a pixel."""
    yy, xx = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    texture = picture(5)[:, :96, :96]

    def frame(x):
        weight = torch.sigmoid((10 - ((xx - x) ** 2 + (yy - 48) ** 2).sqrt()) * 2)
        return 0.3 * texture + 0.6 * weight

    def centre(image):
        weight = (image - 0.3 * texture).clamp_min(0).sum(0)
        return (weight * xx).sum() / weight.sum()

    frames = torch.stack([frame(20 + 2 * t**2) for t in range(5)])
    interpolated = interpolate_frames(frames, DISFlowEstimator())
    for index, position in ((3, 24.5), (5, 32.5)):
        assert abs(centre(interpolated[index]) - position) < 0.34


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_originals_stay_bit_for_bit(dtype, times):
    frames = pan([0, 3, 5, 6, 6, 2]).to(dtype)
    interpolated = interpolate_frames(frames, DISFlowEstimator(), times=times)
    assert interpolated.dtype == dtype
    assert len(interpolated) == 5 * 2**times + 1
    assert torch.equal(interpolated[:: 2**times], frames)
    assert 0 <= interpolated.min() and interpolated.max() <= 1


def test_the_same_clip_gives_the_same_bits():
    frames = pan([0, 2, 6, 7, 13])
    first = interpolate_frames(frames, DISFlowEstimator())
    assert torch.equal(first, interpolate_frames(frames, DISFlowEstimator(num_threads=1)))


def test_one_frame_has_nothing_between():
    frames = pan([0])
    assert torch.equal(interpolate_frames(frames, DISFlowEstimator()), frames)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 30), (7, 5), (33, 129)])
def test_any_size_is_interpolated(height, width):
    frames = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    interpolated = interpolate_frames(frames, DISFlowEstimator())
    assert interpolated.shape == (5, 3, height, width)
    assert interpolated.isfinite().all()
    assert torch.equal(interpolated[::2], frames)


def test_progress_counts_pairs():
    seen = []
    interpolate_pan([0, 2, 4, 6], times=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_estimator_with_encode_sees_each_frame_once():
    class Counting(DISFlowEstimator):
        encoded = 0

        def encode(self, frames):
            self.encoded += len(frames)
            return super().encode(frames)

    estimator = Counting()
    frames = pan(range(0, 50, 2))
    interpolated = interpolate_frames(frames, estimator)
    assert estimator.encoded == 25
    assert torch.equal(interpolated, interpolate_frames(frames, lambda a, b: DISFlowEstimator()(a, b)))


# A stream


def test_a_stream_gives_what_a_clip_gives():
    positions = [0, 1, 3, 6, 10, 15, 21, 22, 22, 20, 16, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 4, 8, 12, 18, 24, 33]
    frames = pan(positions)
    stream = interpolate_stream(((frame, t / 25) for t, frame in enumerate(frames)), DISFlowEstimator(), times=2)
    streamed, times = zip(*stream, strict=True)
    assert torch.equal(torch.stack(streamed), interpolate_frames(frames, DISFlowEstimator(), times=2))
    torch.testing.assert_close(torch.tensor(times), torch.arange(109) / 100)


def test_a_stream_yields_the_very_originals():
    frames = list(pan([0, 2, 4]))
    streamed = [frame for frame, _ in interpolate_stream(zip(frames, range(3), strict=True), DISFlowEstimator())]
    assert all(streamed[2 * t] is frame for t, frame in enumerate(frames))


def test_a_stream_holds_few_frames_however_long_it_is():
    """Never more than one batch of pairs and one window ahead of what has been yielded."""
    taken = 0

    def endless():
        nonlocal taken
        frames = pan([0, 2, 5])
        while True:
            yield frames[taken % 3], float(taken)
            taken += 1

    stream = interpolate_stream(endless(), DISFlowEstimator())
    for index in range(160):
        next(stream)
        assert taken - index / 2 <= 24


@pytest.mark.parametrize("times", [1, 2])
def test_nothing_is_bridged_across_a_cut(times):
    before, after = pan([0, 2, 4]), pan([0, 3, 6, 9], seed=7)
    frames = torch.cat([before, after])
    items = zip(frames, range(7), strict=True)
    asked = []

    def is_cut(previous, current):
        asked.append((previous, current))
        return torch.equal(current, after[0])

    streamed = [frame for frame, _ in interpolate_stream(items, DISFlowEstimator(), times=times, is_cut=is_cut)]
    factor = 2**times
    assert len(streamed) == 6 * factor + 1
    assert torch.equal(
        torch.stack(streamed[: 2 * factor + 1]), interpolate_frames(before, DISFlowEstimator(), times=times)
    )
    assert torch.equal(torch.stack(streamed[3 * factor :]), interpolate_frames(after, DISFlowEstimator(), times=times))
    for step in range(1, factor):  # repeats the frame that is nearer in time
        nearer = before[-1] if step <= factor // 2 else after[0]
        assert torch.equal(streamed[2 * factor + step], nearer)
    assert all(a is b for (_, a), (b, _) in zip(asked[:-1], asked[1:], strict=True)) and len(asked) == 6


def test_cuts_next_to_each_other_leave_single_frames():
    frames = list(pan([0, 4, 8]))
    stream = interpolate_stream(zip(frames, range(3), strict=True), DISFlowEstimator(), is_cut=lambda a, b: True)
    streamed = [frame for frame, _ in stream]
    assert [next(i for i, f in enumerate(frames) if f is frame) for frame in streamed] == [0, 0, 1, 1, 2]


def test_an_empty_stream_is_empty():
    assert list(interpolate_stream([], DISFlowEstimator())) == []


# What is refused


def test_wrong_settings_are_refused_before_a_frame_is_read():
    def unread():
        raise AssertionError("read a frame")
        yield

    with pytest.raises(ValueError, match="'cubic'.*quadratic, projection, linear"):
        interpolate_stream(unread(), DISFlowEstimator(), sofp_mode="cubic")
    with pytest.raises(ValueError, match="`times` is 0"):
        interpolate_stream(unread(), DISFlowEstimator(), times=0)
    with pytest.raises(ValueError, match="`window` is 1"):
        interpolate_stream(unread(), DISFlowEstimator(), window=1)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(num_frames, 3, height, width\)"):
        interpolate_frames(torch.rand(shape), DISFlowEstimator())


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        interpolate_frames(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), DISFlowEstimator())


def test_timestamps_that_do_not_fit_are_refused():
    frames = pan([0, 2, 4])
    with pytest.raises(ValueError, match="2 `timestamps` for 3 frames"):
        interpolate_frames(frames, DISFlowEstimator(), timestamps=[0, 1])
    with pytest.raises(ValueError, match="1.0 follows 1.0"):
        interpolate_frames(frames, DISFlowEstimator(), timestamps=[0.0, 1.0, 1.0])


def test_frames_of_two_sizes_are_refused():
    items = [(torch.rand(3, 16, 16), 0.0), (torch.rand(3, 16, 18), 1.0)]
    with pytest.raises(ValueError, match="16, 18.*16, 16"):
        list(interpolate_stream(items, DISFlowEstimator()))


def test_flow_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"flow of shape \(2, 40, 56, 2\), not \(2, 2, 40, 56\)"):
        interpolate_frames(pan([0, 2]), lambda a, b: torch.zeros(2, 40, 56, 2))
