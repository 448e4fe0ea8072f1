"""Interpolated clips and streams: which frames are kept, repeated and made, and which input is refused."""

import pytest
import torch

from known_motion import KnownFlow, pan
from pipeline_landscape_video import interpolate_frames, interpolate_stream
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator


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
    frames = pan([0, 2, 4, 6])
    flow = KnownFlow(frames, [0, 2, 4, 6])
    interpolate_frames(frames, flow, times=2, progress=lambda done, total: seen.append((done, total)))
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

    with pytest.raises(ValueError, match="quadratic, projection, linear, got 'cubic'"):
        interpolate_stream(unread(), DISFlowEstimator(), sofp_mode="cubic")
    with pytest.raises(ValueError, match="`times` must be at least 1 .*, got 0"):
        interpolate_stream(unread(), DISFlowEstimator(), times=0)
    with pytest.raises(ValueError, match="`window` must hold at least the 2 frames .*, got 1"):
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
    with pytest.raises(ValueError, match="`timestamps` must be 3, one per frame, got 2"):
        interpolate_frames(frames, DISFlowEstimator(), timestamps=[0, 1])
    with pytest.raises(ValueError, match="`timestamps` must increase, got 1.0 after 1.0"):
        interpolate_frames(frames, DISFlowEstimator(), timestamps=[0.0, 1.0, 1.0])


def test_frames_of_two_sizes_are_refused():
    items = [(torch.rand(3, 16, 16), 0.0), (torch.rand(3, 16, 18), 1.0)]
    with pytest.raises(ValueError, match="16, 18.*16, 16"):
        list(interpolate_stream(items, DISFlowEstimator()))


def test_flow_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must return the shape \(2, 2, 40, 56\), got \(2, 40, 56, 2\)"):
        interpolate_frames(pan([0, 2]), lambda a, b: torch.zeros(2, 40, 56, 2))
