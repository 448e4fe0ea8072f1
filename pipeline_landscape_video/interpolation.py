"""Interpolate clips and videos with sparse optical flow projection. Not part of the Hub's code."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from .landscape_frame_interpolation import FrameInterpolator
from .landscape_sofp import SparseFlowProjection
from .landscape_warping import FlowWarper


def interpolate_frames(
    frames: Tensor,
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    timestamps: Sequence[float] | None = None,
    window: int = 4,
    progress: Callable[[int, int], None] | None = None,
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

    Returns:
        Frames of the same dtype and device. Every `2**times`-th one is an original, bit for bit.

    Raises:
        ValueError: An argument is out of its range, or the estimator returns flow of another shape.
    """
    interpolator = FrameInterpolator(flow_estimator, SparseFlowProjection(sofp_mode), FlowWarper(), times, window)
    return interpolator.interpolate_clip(frames, timestamps, progress)


def interpolate_stream(
    frames: Iterable[tuple[Tensor, float]],
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    window: int = 4,
    is_cut: Callable[[Tensor, Tensor], bool] | None = None,
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

    Returns:
        Iterator over the originals, as they came in, and `2**times - 1` frames between each two, with their times.

    Raises:
        ValueError: An argument is out of its range, at once; or frames do not fit together, when they arrive.
    """
    interpolator = FrameInterpolator(flow_estimator, SparseFlowProjection(sofp_mode), FlowWarper(), times, window)
    return interpolator.interpolate_stream(frames, is_cut)
