"""Interpolate clips and videos with sparse optical flow projection. Not part of the Hub's code."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from .film_grain import GrainKeepingWarper
from .landscape_frame_interpolation import FrameInterpolator, check_clip
from .landscape_sofp import SparseFlowProjection
from .landscape_warping import FlowWarper
from .repeated_frames import find_repeats, measure_changes, place_pictures


def interpolate_frames(
    frames: Tensor,
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    timestamps: Sequence[float] | None = None,
    window: int = 4,
    progress: Callable[[int, int], None] | None = None,
    keep_duplicates: bool = True,
    fps: float = 24.0,
) -> Tensor:
    """
    Double the frame rate of one clip `times` times: N frames become `(N - 1) * 2**times + 1`.

    Args:
        frames: Frames of one scene, `(num_frames, 3, height, width)` in [0, 1], of any floating dtype.
        flow_estimator: Callable from two batches of frames, `(pairs, 3, height, width)` in [0, 1], to the flow in
            pixels, x then y, `(pairs, 2, height, width)`; see `load_flow_estimator`.
        sofp_mode: Position of pixels between two frames, one of `SOFP_MODES`; see `SparseFlowProjection`.
        times: Number of doublings. All of them sample the same parabola.
        timestamps: Strictly increasing times of the frames in any unit; `None` spaces them evenly.
        window: Number of frames that decide where pixels are between two of them. 4 follows changes of speed best,
            more averages over them (`benchmarks/results/sofp_choices.md`), and with less than 4 every mode is linear.
        progress: Function called with (pairs done, all pairs) after each pair of neighbors.
        keep_duplicates: Keep frames that repeat the one before, as generated clips need it. False moves between the
            distinct pictures instead, as `landscape-video interpolate` does; see `place_pictures`.
        fps: Frame rate of `frames`, without effect on kept duplicates. A picture that stands for longer than a quarter
            of a second is not a duplicate.

    Returns:
        Frames of the same dtype and device. With kept duplicates, every `2**times`-th one is an original, bit for bit.

    Raises:
        ValueError: An argument is out of its range, or the estimator returns flow of another shape.
    """
    parts = (flow_estimator, SparseFlowProjection(sofp_mode), FlowWarper(), times, window)
    timestamps = list(range(len(frames)) if timestamps is None else timestamps)
    if keep_duplicates:
        return FrameInterpolator(*parts).interpolate_clip(frames, timestamps, progress)
    check_clip(frames, timestamps)
    changes = measure_changes((frame.float() * 255).round().byte().movedim(0, -1).cpu().numpy() for frame in frames)
    pictures = place_pictures(timestamps, changes, find_repeats(changes, fps))
    interpolator = FrameInterpolator(*parts, doubled_times(timestamps, times))
    return interpolator.interpolate_clip(frames[pictures.numbers], pictures.times, progress)


def doubled_times(timestamps: Sequence[float], times: int) -> list[float]:
    """Return the given times and `2**times - 1` evenly between each two."""
    steps = [step / 2**times for step in range(2**times)]
    pairs = zip(timestamps, timestamps[1:], strict=False)
    return [start + t * (end - start) for start, end in pairs for t in steps] + [timestamps[-1]]


def interpolate_stream(
    frames: Iterable[tuple[Tensor, float]],
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    window: int = 4,
    is_cut: Callable[[Tensor, Tensor], bool] | None = None,
    output_times: Sequence[float] | None = None,
    keep_grain: bool = False,
) -> Iterator[tuple[Tensor, float]]:
    """
    Double the frame rate of a video of any length, in constant memory.

    Args:
        frames: Frames, `(3, height, width)` in [0, 1] of a floating dtype, with strictly increasing times.
        flow_estimator: See `interpolate_frames`.
        sofp_mode: See `interpolate_frames`.
        times: Number of doublings.
        window: See `interpolate_frames`.
        is_cut: Function called once with each two neighbors, in order. It returns True where the second one begins a
            scene. Nothing is interpolated across a cut: the nearest frame is repeated, which keeps the rate even.
        output_times: Increasing times of the frames to return, instead of all frames and those of the doublings.
        keep_grain: Give inserted frames as much film grain as the originals have, see `GrainKeepingWarper`.

    Returns:
        Iterator over the originals, as they came in, and `2**times - 1` frames between each two, with their times; or
        over one frame for each of `output_times` from the first to the last original.

    Raises:
        ValueError: An argument is out of its range, at once; or frames do not fit together, when they arrive.
    """
    warper = GrainKeepingWarper() if keep_grain else FlowWarper()
    parts = (flow_estimator, SparseFlowProjection(sofp_mode), warper, times, window, output_times)
    return FrameInterpolator(*parts).interpolate_stream(frames, is_cut)
