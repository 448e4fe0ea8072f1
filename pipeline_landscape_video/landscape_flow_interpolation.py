"""Sparse optical flow projection (SOFP): frames between frames, placed in time by the motion towards a later frame.

Liu et al., "NADM: Noise-Aware Diffusion Model for Landscape Painting Video Generation" (Eq. 14), and "ConCLVD". For
the frames t, t + 1 and a later frame T of one scene, with the flows V1 (t to t + 1) and VT (t to T), the projection
`D = <VT, V1> / |V1|^2` says how far a pixel travels until T in units of its next step. Against n, the time until T in
units of the time until t + 1, it tells whether the pixel speeds up (D > n) or slows down (D < n): with constant
acceleration along V1, `x(0) = 0`, `x(1) = 1` and `x(n) = D`, the share of the step done at the share s of the time is
`x(s) = s + s (s - 1) c` with `c = (D - n) / (n (n - 1))`.

A flow estimator is any callable `(frames_a, frames_b) -> flow`: frames `(pairs, 3, height, width)` in [0, 1], flow
`(pairs, 2, height, width)` in pixels, x then y. If it also has the methods `encode(frames)` and
`match(encoded_a, encoded_b, height, width)`, each frame is encoded once however many pairs it is in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


SOFP_MODES = ("quadratic", "projection", "linear")

_SMALLEST_MOTION = 0.5  # pixels; slower pixels say nothing about acceleration
_BLUR_SIGMA = 8 / 256  # of the shorter side
_PAIRS_AT_ONCE, _PIXELS_AT_ONCE = 16, 2**20
_EPS = 1e-6


def interpolate_frames(
    frames: Tensor,
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    timestamps: Sequence[float] | None = None,
    window: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Doubles the frame rate of one clip `times` times: N frames become (N - 1) 2^times + 1.

    Args:
        frames: `(num_frames, channels, height, width)` in [0, 1], 3 channels, any floating dtype, one scene.
        flow_estimator: See the module's description.
        sofp_mode: How a pixel's place between two frames is found: `"quadratic"`, constant acceleration fitted to the
            projection; `"projection"`, the literal share D / n of the step; `"linear"`, constant speed.
        times: Doublings; the same parabola is sampled at j / 2^times.
        timestamps: Strictly rising times of the frames in any unit; `None` spaces them evenly.
        window: Frames from t to T, both included. 2 leaves no later frame, so that every mode is linear.
        progress: Called with (pairs done, pairs in all) after each batch of frame pairs.

    Returns:
        Frames of the same dtype and device. Those at multiples of 2^times are the originals, bit for bit.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"Expected frames of shape (num_frames, 3, height, width), got {tuple(frames.shape)}.")
    if timestamps is None:
        timestamps = range(len(frames))
    if len(timestamps) != len(frames):
        raise ValueError(f"There are {len(timestamps)} `timestamps` for {len(frames)} frames.")

    num_pairs = len(frames) - 1
    interpolated = []
    stream = interpolate_stream(zip(frames, timestamps, strict=True), flow_estimator, sofp_mode, times, window)
    done = 0
    for frame, _ in stream:
        interpolated.append(frame)
        if progress is not None and len(interpolated) > 1 and (len(interpolated) - 1) % 2**times == 0:
            done += 1
            progress(done, num_pairs)
    return torch.stack(interpolated) if interpolated else frames


def interpolate_stream(
    frames: Iterable[tuple[Tensor, float]],
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    window: int = 8,
    is_cut: Callable[[Tensor, Tensor], bool] | None = None,
) -> Iterator[tuple[Tensor, float]]:
    """The same for a video of any length, in constant memory: takes and yields pairs of a frame and its time.

    Args:
        frames: Pairs of a frame `(3, height, width)` in [0, 1], floating dtype, and its time, strictly rising.
        flow_estimator, sofp_mode, times, window: As for `interpolate_frames`.
        is_cut: Called once with each two neighbouring frames, in order; true where a new scene begins. Nothing is
            interpolated across a cut: the frames nearest in time are repeated there, so that the rate stays even.

    Yields:
        The originals (the very tensors that came in), and 2^times - 1 frames between each two of them.
    """
    _check_settings(sofp_mode, times, window)
    scene = _Scene(flow_estimator, sofp_mode, times, window)
    for frame, time in frames:
        if scene.frames:
            scene.check_next(frame, time)
            if is_cut is not None and is_cut(scene.frames[-1], frame):
                last_frame, last_time = scene.frames[-1], scene.times[-1]
                yield from scene.finish()
                for step in range(1, 2**times):
                    share = step / 2**times
                    yield (last_frame if share <= 0.5 else frame), last_time + share * (time - last_time)
                scene = _Scene(flow_estimator, sofp_mode, times, window)
        scene.frames.append(frame)
        scene.times.append(time)
        yield from scene.advance()
    if scene.frames:
        yield from scene.finish()


class _Scene:
    """Frames of one scene that are still needed, with what the flow estimator made of each."""

    def __init__(self, flow_estimator: Callable, sofp_mode: str, times: int, window: int) -> None:
        self.flow_estimator, self.sofp_mode, self.times_doubled, self.window = flow_estimator, sofp_mode, times, window
        self.frames: list[Tensor] = []
        self.times: list[float] = []
        self.encoded: list[Tensor] = []

    def check_next(self, frame: Tensor, time: float) -> None:
        if frame.shape != self.frames[-1].shape:
            raise ValueError(f"A frame of {tuple(frame.shape)} follows one of {tuple(self.frames[-1].shape)}.")
        if not time > self.times[-1]:
            raise ValueError(f"Timestamps must rise, but {time} follows {self.times[-1]}.")

    def advance(self) -> Iterator[tuple[Tensor, float]]:
        """Yields from the front once a whole batch of pairs has all the later frames that it looks at."""
        height, width = self.frames[0].shape[-2:]
        pairs = max(1, min(_PAIRS_AT_ONCE, _PIXELS_AT_ONCE // (height * width)))
        if len(self.frames) >= pairs + self.window - 1:
            yield from self._yield_pairs(pairs)

    def finish(self) -> Iterator[tuple[Tensor, float]]:
        """Yields all that is left."""
        height, width = self.frames[0].shape[-2:]
        pairs = max(1, min(_PAIRS_AT_ONCE, _PIXELS_AT_ONCE // (height * width)))
        while len(self.frames) > 1:
            yield from self._yield_pairs(min(pairs, len(self.frames) - 1))
        yield self.frames[0], self.times[0]

    def _yield_pairs(self, pairs: int) -> Iterator[tuple[Tensor, float]]:
        between = self._interpolate(pairs)
        shares = [step / 2**self.times_doubled for step in range(1, 2**self.times_doubled)]
        for index in range(pairs):
            time, step = self.times[index], self.times[index + 1] - self.times[index]
            yield self.frames[index], time
            for share, frames in zip(shares, between, strict=True):
                yield frames[index], time + share * step
        del self.frames[:pairs], self.times[:pairs], self.encoded[:pairs]

    def _interpolate(self, pairs: int) -> list[Tensor]:
        """For each share of the step, frames `(pairs, 3, height, width)` between the first `pairs` and the next ones."""
        originals = torch.stack(self.frames[: pairs + 1])
        shares = [step / 2**self.times_doubled for step in range(1, 2**self.times_doubled)]
        between = [originals[:-1].clone() for _ in shares]
        moving = [t for t in range(pairs) if not torch.equal(self.frames[t], self.frames[t + 1])]
        if not moving:  # equal neighbours: a flow network would invent motion
            return between

        last = [min(t + self.window - 1, len(self.frames) - 1) for t in moving]
        forward, backward, to_last = self._flows(moving, last)
        n = [
            (self.times[T] - self.times[t]) / (self.times[t + 1] - self.times[t])
            for t, T in zip(moving, last, strict=True)
        ]
        n = torch.tensor(n, device=forward.device).view(-1, 1, 1, 1)
        path = _MotionPath(self.sofp_mode, forward, backward, to_last, n)
        frames_a, frames_b = originals[:-1][moving].float(), originals[1:][moving].float()
        for share, frames in zip(shares, between, strict=True):
            middle = _warp_and_blend(frames_a, frames_b, forward, backward, path.position(share), share)
            frames[moving] = middle.clamp(0, 1).to(originals.dtype)
        return between

    def _flows(self, moving: list[int], last: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """V1, its backward flow and VT, each `(pairs, 2, height, width)`; VT is V1 where T is t + 1."""
        index_pairs = [(t, t + 1) for t in moving] + [(t + 1, t) for t in moving]
        far = []
        if self.sofp_mode != "linear":
            far = [(row, t, T) for row, (t, T) in enumerate(zip(moving, last, strict=True)) if T > t + 1]
        index_pairs += [(t, T) for _, t, T in far]
        flow = self._estimate(index_pairs).to(self.frames[0].device, torch.float32)
        flow = torch.nan_to_num(flow, posinf=0.0, neginf=0.0)
        forward, backward = flow[: len(moving)], flow[len(moving) : 2 * len(moving)]
        to_last = forward.clone()
        if far:
            to_last[[row for row, _, _ in far]] = flow[2 * len(moving) :]
        return forward, backward, to_last

    def _estimate(self, index_pairs: list[tuple[int, int]]) -> Tensor:
        a, b = (list(indices) for indices in zip(*index_pairs, strict=True))
        if not hasattr(self.flow_estimator, "encode"):
            frames = torch.stack(self.frames[: max(a + b) + 1])
            return self.flow_estimator(frames[a], frames[b])
        missing = self.frames[len(self.encoded) : max(a + b) + 1]
        if missing:
            self.encoded.extend(self.flow_estimator.encode(torch.stack(missing)))
        encoded = torch.stack(self.encoded[: max(a + b) + 1])
        return self.flow_estimator.match(encoded[a], encoded[b], *self.frames[0].shape[-2:])


class _MotionPath:
    """Where between its two frames each pixel of frame t is at a share of the time."""

    def __init__(self, sofp_mode: str, forward: Tensor, backward: Tensor, to_last: Tensor, n: Tensor) -> None:
        self.sofp_mode, self.n = sofp_mode, n
        if sofp_mode == "linear":
            self.curvature = torch.zeros_like(forward[:, :1])
            return
        trusted = _trusted(forward, backward)
        # Eq. 14 as D - n, so that a pixel nobody trusts keeps an even speed. A ratio of blurred fields: single pixels
        # are too noisy to help.
        excess = ((to_last * forward).sum(1, keepdim=True) - n * (forward * forward).sum(1, keepdim=True)) * trusted
        weight = (forward * forward).sum(1, keepdim=True) * trusted
        sigma = _BLUR_SIGMA * min(forward.shape[-2:])
        self.excess = _blur(excess, sigma) / (_blur(weight, sigma) + _EPS)
        self.curvature = torch.where(n > 1, self.excess / (n * (n - 1)).clamp_min(_EPS), 0.0).clamp(-1, 1)

    def position(self, share: float) -> Tensor:
        """The done part of the step, `(pairs, 1, height, width)` in [0, 1]."""
        if self.sofp_mode == "projection":
            return (share * (1 + self.excess / self.n)).clamp(0, 1)
        return share + share * (share - 1) * self.curvature


def _trusted(forward: Tensor, backward: Tensor) -> Tensor:
    """1 where a pixel moves and its forward and backward flows agree, else 0; `(pairs, 1, height, width)`."""
    returned = _sample(backward, forward, "bilinear")
    disagreement = (forward + returned).square().sum(1, keepdim=True)
    lengths = forward.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    moves = forward.square().sum(1, keepdim=True) > _SMALLEST_MOTION**2
    return (moves & (disagreement < 0.01 * lengths + 0.5)).to(forward.dtype)


def _warp_and_blend(
    frames_a: Tensor, frames_b: Tensor, forward: Tensor, backward: Tensor, position: Tensor, share: float
) -> Tensor:
    """The frames at `share` of the time: flows splatted there, both frames sampled there, blended by visibility."""
    flow_to_a, seen_in_a = _splat(-position * forward, position * forward)
    # The share that the object has done is read where the backward flow lands: at the same pixel it tears the object.
    left = (1 - _sample(position, backward, "bilinear")) * backward
    flow_to_b, seen_in_b = _splat(-left, left)
    weight_a, weight_b = (1 - share) * seen_in_a, share * seen_in_b
    blend = weight_a * _sample(frames_a, flow_to_a, "bicubic") + weight_b * _sample(frames_b, flow_to_b, "bicubic")
    unwarped = (1 - share) * frames_a + share * frames_b
    return (blend + 1e-3 * unwarped) / (weight_a + weight_b + 1e-3)


def _splat(values: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Carries `values` along `flow` with bilinear weights.

    Returns the mean of what arrives at each pixel, holes filled from around, and how much arrives, at most 1.
    """
    batch, channels, height, width = values.shape
    target = _grid(flow) + flow
    corner = target.floor()
    fraction = target - corner
    carried = torch.cat([values, torch.ones_like(values[:, :1])], dim=1).flatten(2)
    arrived = torch.zeros_like(carried)
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            weight = (1 - dx - fraction[:, 0]).abs() * (1 - dy - fraction[:, 1]).abs()
            weight = weight * ((x >= 0) & (x < width) & (y >= 0) & (y < height))
            pixel = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
            pixel = pixel.long().flatten(1).unsqueeze(1).expand_as(carried)
            arrived.scatter_add_(2, pixel, carried * weight.flatten(1).unsqueeze(1))
    arrived = arrived.view(batch, channels + 1, height, width)
    return _fill_holes(arrived)[:, :-1], arrived[:, -1:].clamp_max(1)


def _fill_holes(arrived: Tensor) -> Tensor:
    """Sums and, as last channel, their weights, to means; where nothing arrived, the mean of the surroundings."""
    if min(arrived.shape[-2:]) > 1:
        coarse = _fill_holes(F.avg_pool2d(arrived, 2, ceil_mode=True))
        coarse = F.interpolate(coarse, arrived.shape[-2:], mode="bilinear", align_corners=False)
        arrived = arrived + 1e-3 * coarse
    return arrived / arrived[:, -1:].clamp_min(_EPS)


def _sample(image: Tensor, flow: Tensor, mode: str) -> Tensor:
    """`image` at `p + flow(p)`, clamped to the border."""
    height, width = image.shape[-2:]
    size = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=flow.device).view(1, 2, 1, 1)
    grid = (2 * (_grid(flow) + flow) / size - 1).movedim(1, -1)
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)


def _grid(flow: Tensor) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(size, device=flow.device) for size in flow.shape[-2:]), indexing="ij")
    return torch.stack([x, y]).to(flow.dtype)


def _blur(field: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=field.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(field.dtype)
    field = F.conv2d(field, kernel.view(1, 1, 1, -1), padding=(0, radius))
    return F.conv2d(field, kernel.view(1, 1, -1, 1), padding=(radius, 0))


def _check_settings(sofp_mode: str, times: int, window: int) -> None:
    if sofp_mode not in SOFP_MODES:
        raise ValueError(f"`sofp_mode` is {sofp_mode!r}, but it must be one of {', '.join(SOFP_MODES)}.")
    if times < 1:
        raise ValueError(f"`times` is {times}, but the frame rate is doubled at least once.")
    if window < 2:
        raise ValueError(f"`window` is {window}, but two frames are the least to interpolate between.")
