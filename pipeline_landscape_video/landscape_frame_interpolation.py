"""
Interpolate clips and videos of any length: estimate the flows that each batch of pairs needs, and blend frames.

A flow estimator is any callable `(frames_a, frames_b) -> flow`, with frames `(pairs, 3, height, width)` in [0, 1] and
flow `(pairs, 2, height, width)` in pixels, x then y. If it also has the methods `encode(frames)` and
`match(encoded_a, encoded_b, height, width)`, each frame is encoded once although it is in up to four pairs.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from einops import rearrange
from torch import Tensor


# Pairs per batch: as many as these pixels allow, which bounds memory at large frames.
_MAX_PAIRS, _MAX_PIXELS = 16, 2**20

Item = tuple[Tensor, float]
"""A frame, `(3, height, width)` in [0, 1], and its time."""


class FrameInterpolator:
    """
    Frame interpolation with a given flow estimator, projection and warper.

    Args:
        flow_estimator: Flow estimator, see the top of this file.
        projection: `SparseFlowProjection`, which places pixels in time.
        warper: `FlowWarper`, which warps and blends frames.
        times: Number of doublings of the frame rate.
        window: Number of frames that determine the positions of pixels between two of them: these two, and equally
            many on each side. Below 4, only the two count.
        output_times: Increasing times of the frames to return, instead of all frames and those of the doublings.

    Raises:
        ValueError: `times` is less than 1, or `window` less than 2.
    """

    def __init__(
        self,
        flow_estimator: Callable[[Tensor, Tensor], Tensor],
        projection: Any,
        warper: Any,
        times: int = 1,
        window: int = 4,
        output_times: Sequence[float] | None = None,
    ) -> None:
        if times < 1:
            raise ValueError(f"`times` must be at least 1 doubling of the frame rate, got {times}.")
        if window < 2:
            raise ValueError(f"`window` must hold at least the 2 frames to interpolate between, got {window}.")
        self.flow_estimator, self.projection, self.warper = flow_estimator, projection, warper
        self.factor = 2**times
        self.output_times = output_times
        self.reach = window // 2 - 1 if projection.uses_other_frames else 0  # frames on each side of a pair

    def interpolate_clip(
        self,
        frames: Tensor,
        timestamps: Sequence[float] | None = None,
        progress: Callable[[int, int], None] | None = None,
        closed_loop: bool = False,
    ) -> Tensor:
        """
        Interpolate one clip of one scene.

        Args:
            frames: Frames, `(num_frames, 3, height, width)` in [0, 1], of any floating dtype.
            timestamps: Strictly increasing times of the frames in any unit; `None` spaces them evenly.
            progress: Function called with (pairs done, all pairs) after each pair of neighbors.
            closed_loop: Whether the first frame follows the last one, with frames in between. Then there are
                `num_frames * 2**times` frames, and no `timestamps`.

        Returns:
            `((num_frames - 1) * 2**times + 1, 3, height, width)`. Every `2**times`-th frame is an original.

        Raises:
            ValueError: An argument has the wrong shape, dtype or order, or the estimator returns another shape.
        """
        timestamps = range(len(frames)) if timestamps is None else timestamps
        check_clip(frames, timestamps)
        if closed_loop:
            return self.interpolate_clip(torch.cat([frames, frames[:1]]), progress=progress)[:-1]
        num_pairs = len(frames) - 1 if self.output_times is None else (len(self.output_times) - 1) // self.factor
        interpolated = []
        for frame, _ in self.interpolate_stream(zip(frames, timestamps, strict=True)):
            pairs, rest = divmod(len(interpolated), self.factor)
            if progress is not None and pairs and not rest:
                progress(pairs, num_pairs)
            interpolated.append(frame)
        return torch.stack(interpolated)

    def interpolate_stream(
        self, frames: Iterable[Item], is_cut: Callable[[Tensor, Tensor], bool] | None = None
    ) -> Iterator[Item]:
        """
        Interpolate a video of any length in constant memory.

        Args:
            frames: Frames with strictly increasing times.
            is_cut: Function called once with each pair of neighbors, in order. It returns True where the second frame
                begins a scene. Nothing is interpolated across a cut: the nearest frame is repeated, which keeps the
                rate.

        Yields:
            The unchanged originals, and `2**times - 1` frames between each pair of neighbors; or, with
            `output_times`, one frame at each of them from the first to the last original.

        Raises:
            ValueError: Two neighbors differ in shape, or times do not increase.
        """
        scene = _Scene(self)
        for frame, time in frames:
            if scene.frames:
                previous, previous_time = scene.frames[-1], scene.times[-1]
                _check_next(frame, time, previous, previous_time)
                if is_cut is not None and is_cut(previous, frame):
                    yield from scene.finish()
                    for t, output_time in self.steps(previous_time, time):
                        yield (previous if t <= 0.5 else frame), output_time
                    scene = _Scene(self)
            scene.frames.append(frame)
            scene.small.append(self.warper.reduce(frame))
            scene.times.append(time)
            yield from scene.advance()
        if scene.frames:
            yield from scene.finish()

    def steps(self, start: float, end: float) -> list[tuple[float, float]]:
        """Return the frames to make between two frames: position from 0 to 1, and time."""
        if self.output_times is None:
            return [(t, start + t * (end - start)) for t in (step / self.factor for step in range(1, self.factor))]
        wanted = self.output_times[bisect_right(self.output_times, start) : bisect_left(self.output_times, end)]
        return [((time - start) / (end - start), time) for time in wanted]

    def is_wanted(self, time: float) -> bool:
        """Return whether the frame at `time` is returned."""
        times = self.output_times
        return times is None or bisect_left(times, time) != bisect_right(times, time)


class _Scene:
    """The frames of one scene that are still needed. Pair i consists of the frames i and i + 1."""

    def __init__(self, interpolator: FrameInterpolator) -> None:
        self.interpolator, self.reach = interpolator, interpolator.reach
        self.warper, self.flow_estimator = interpolator.warper, interpolator.flow_estimator
        self.frames: list[Tensor] = []
        self.small: list[Tensor] = []  # the same, at the size at which flow is estimated
        self.times: list[float] = []
        self.forward: list[Tensor] = []  # flow with consistency of each pair, (3, height, width)
        self.backward: list[Tensor] = []
        self.last_encoded: Tensor | None = None  # encoding of the last frame that the known flows reach
        self.num_past = 0  # finished pairs at the front, kept because later pairs use their flows

    def advance(self) -> Iterator[Item]:
        """Yield a batch of pairs if all frames that it needs have arrived."""
        pairs = self.batch_size()
        if len(self.frames) > self.num_past + pairs + self.reach:
            yield from self.yield_pairs(pairs)

    def finish(self) -> Iterator[Item]:
        """Yield all remaining pairs and the last frame."""
        while len(self.frames) > self.num_past + 1:
            yield from self.yield_pairs(min(self.batch_size(), len(self.frames) - self.num_past - 1))
        if self.interpolator.is_wanted(self.times[-1]):
            yield self.frames[-1], self.times[-1]

    def batch_size(self) -> int:
        return max(1, min(_MAX_PAIRS, _MAX_PIXELS // self.frames[0][0].numel()))

    def yield_pairs(self, pairs: int) -> Iterator[Item]:
        self.estimate_flows(min(self.num_past + pairs + self.reach, len(self.frames) - 1))
        end = self.num_past + pairs
        # Pairs with the same steps are interpolated together. Rounding makes them the same at any time of the video.
        for positions, group in groupby(range(self.num_past, end), self.positions):
            indices = list(group)
            between = self.interpolate(indices, positions)
            for row, index in enumerate(indices):
                if self.interpolator.is_wanted(self.times[index]):
                    yield self.frames[index], self.times[index]
                for frames, (_, time) in zip(between, self.steps(index), strict=True):
                    yield frames[row], time
        self.num_past = min(end, self.reach)
        for kept in (self.frames, self.small, self.times, self.forward, self.backward):
            del kept[: end - self.num_past]

    def steps(self, index: int) -> list[tuple[float, float]]:
        return self.interpolator.steps(self.times[index], self.times[index + 1])

    def positions(self, index: int) -> tuple[float, ...]:
        return tuple(round(t, 6) for t, _ in self.steps(index))

    def is_moving(self, index: int) -> bool:
        """Return whether the frames of a pair differ. Flow networks report motion even between identical frames."""
        return not torch.equal(self.frames[index], self.frames[index + 1])

    def estimate_flows(self, end: int) -> None:
        """Estimate the flows of all pairs before `end`, in both directions."""
        start = len(self.forward)
        if start >= end:
            return
        moving = [index - start for index in range(start, end) if self.is_moving(index)]
        height, width = self.small[0].shape[-2:]
        flow = torch.zeros(2, end - start, 2, height, width, device=self.small[0].device)
        if moving:
            estimated = self.call_estimator(torch.stack(self.small[start : end + 1]), moving)
            expected = (2 * len(moving), 2, height, width)
            if tuple(estimated.shape) != expected:
                raise ValueError(f"`flow_estimator` must return the shape {expected}, got {tuple(estimated.shape)}.")
            flow[:, moving] = rearrange(estimated.to(flow), "(way pairs) xy h w -> way pairs xy h w", way=2)
        forward, backward = flow
        self.forward.extend(self.warper.measure_consistency(forward, backward))
        self.backward.extend(self.warper.measure_consistency(backward, forward))

    def call_estimator(self, frames: Tensor, pairs: list[int]) -> Tensor:
        """Return the forward flow of these pairs of neighbors, then their backward flow."""
        a, b = pairs + [i + 1 for i in pairs], [i + 1 for i in pairs] + pairs
        if not hasattr(self.flow_estimator, "encode"):
            return self.flow_estimator(frames[a], frames[b])
        known = [] if self.last_encoded is None else [self.last_encoded]
        encoded = torch.cat([*known, self.flow_estimator.encode(frames[len(known) :])])
        self.last_encoded = encoded[-1:]
        return self.flow_estimator.match(encoded[a], encoded[b], *frames.shape[-2:])

    def interpolate(self, pairs: list[int], steps: Sequence[float]) -> list[Tensor]:
        """Return the frames between pairs, `(len(pairs), 3, height, width)` for each time in `steps`."""
        moving = [index for index in pairs if self.is_moving(index)]
        if not (moving and steps):
            return [torch.stack([self.frames[index] for index in pairs]) for _ in steps]
        frames_a = stack([self.frames[index] for index in moving])
        frames_b = stack([self.frames[index + 1] for index in moving])
        if self.small[0] is self.frames[0]:  # larger frames are converted in parts
            frames_a, frames_b = frames_a.float(), frames_b.float()
        forward = torch.stack([self.forward[index] for index in moving])
        backward = torch.stack([self.backward[index] for index in moving])
        others = self.flows_to_others(moving, forward)
        displacement = self.interpolator.projection.fit(forward, others, smooth=self.warper.blur)
        blend = self.warper.prepare(frames_a, frames_b, forward, backward)
        between = []
        for t in steps:
            blended = blend(displacement(t), t).clamp_(0, 1).to(self.frames[0].dtype)
            if len(moving) < len(pairs):
                frames = torch.stack([self.frames[index] for index in pairs])
                frames[[index - pairs[0] for index in moving]] = blended
                blended = frames
            between.append(blended)
        return between

    def flows_to_others(self, pairs: list[int], forward: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """
        Yield n, whether T is the last frame of the window, and VT for each frame T around the pairs.

        VT is flow with consistency, chained from flows between neighbors. Where the scene has no such frame, no pixel
        is consistent. See `SparseFlowProjection.fit` for the shapes.
        """
        times, here = torch.tensor(self.times, dtype=torch.float64), torch.tensor(pairs)
        last_frame = len(self.frames) - 1
        no_flow = torch.zeros_like(forward)
        no_flow[:, 2] = 1
        ahead, behind = range(2, self.reach + 2), range(-1, -self.reach - 1, -1)
        for distances, flows, chained in ((ahead, self.forward, forward), (behind, self.backward, no_flow)):
            for distance in distances:
                there = here + distance
                crossed = (there if distance < 0 else there - 1).clamp(0, len(flows) - 1)
                exists = (there >= 0) & (there <= last_frame)
                is_last = exists & ((there == last_frame) | (distance == self.reach + 1))
                n = (times[there.clamp(0, last_frame)] - times[here]) / (times[here + 1] - times[here])
                n, exists, is_last = (x.to(forward).view(-1, 1, 1, 1) for x in (n, exists, is_last))
                chained = self.warper.chain(chained, torch.stack([flows[i] for i in crossed]))
                chained = torch.cat([chained[:, :2], chained[:, 2:] * exists], dim=1)
                yield n, is_last, chained


def stack(frames: Sequence[Tensor]) -> Tensor:
    """Stack frames, a single one without a copy."""
    return frames[0][None] if len(frames) == 1 else torch.stack(list(frames))


def check_clip(frames: Tensor, timestamps: Sequence[float]) -> None:
    """Raise a `ValueError` for a clip of the wrong shape or dtype, or another number of timestamps."""
    if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames) or not frames.is_floating_point():
        raise ValueError(
            "`frames` must be floating point of the shape (num_frames, 3, height, width), at least one, got"
            f" {tuple(frames.shape)} of {frames.dtype}."
        )
    if len(timestamps) != len(frames):
        raise ValueError(f"`timestamps` must be {len(frames)}, one per frame, got {len(timestamps)}.")


def _check_next(frame: Tensor, time: float, previous: Tensor, previous_time: float) -> None:
    if frame.shape != previous.shape:
        raise ValueError(f"frames must have one shape, got {tuple(frame.shape)} after {tuple(previous.shape)}.")
    if not time > previous_time:
        raise ValueError(f"`timestamps` must increase, got {time} after {previous_time}.")
