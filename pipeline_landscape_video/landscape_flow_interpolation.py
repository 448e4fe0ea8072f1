"""Sparse optical flow projection (SOFP): frames between frames, placed in time by the motion around them.

Liu et al., "NADM: Noise-Aware Diffusion Model for Landscape Painting Video Generation" (Eq. 14), and "ConCLVD". For
the frames t, t + 1 and another frame T of the scene, with the flows V1 (t to t + 1) and VT (t to T), the projection
`D = <VT, V1> / |V1|^2` says how far a pixel has come at T in units of its step to t + 1. With constant acceleration
along V1, `x(0) = 0`, `x(1) = 1` and `x(n) = D`, n being the time of T in the same units, the share of the step that
is done at the share s of the time is `x(s) = s + s (s - 1) c` with `c = (D - n) / (n (n - 1))`.

Two things differ from the papers, whose T is the last frame and whose VT is the flow that leads there:
* Every frame of a window around the pair is a T, those before t with n < 0, and c is their least squares fit. One T
  leaves the last pair of a clip without any (n = 1 says nothing), and its error goes into c undiminished.
* VT is chained from flows between neighbours. Those are short, so that an estimator finds them, where the flow over a
  whole clip is often lost; and they are needed anyway: 2 (N - 1) flows for N frames, where one more to T each makes
  3 N - 4.
For the first pair of three frames both say the same.

"Sparse": c counts where forward and backward flow agree, and is 0 elsewhere. A wrong place costs more than a pale one,
so the result leans to the average of the two frames where these flows do not agree, and explain a frame no better than
no motion does; where no motion explains it better, as at the bank that a river's flow is smeared over; and in whole
regions that flow does not explain, as in rain.

A flow estimator is any callable `(frames_a, frames_b) -> flow`: frames `(pairs, 3, height, width)` in [0, 1], flow
`(pairs, 2, height, width)` in pixels, x then y. If it also has the methods `encode(frames)` and
`match(encoded_a, encoded_b, height, width)`, each frame is encoded once although it is in up to four pairs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


SOFP_MODES = ("quadratic", "projection", "linear")

# On the shorter side of a picture, what is 8 pixels at 256: single pixels are too noisy to tell an acceleration.
_BLUR_SIGMA = 8 / 256
_SMALLEST_MOTION = 0.5  # pixels; slower ones say nothing about acceleration
_DOUBT_SIGMA = 2.0  # pixels over which it is asked whether flow explains a frame
_STILL_SIGMA = 1.0  # the same, whether no motion does: a line's width
# Of the shorter side. Beyond, what is there before and after agrees by chance, or was uncovered and covered again.
_SMALL_MOTION = (1 / 32, 1 / 64)
_REGION_SIGMA = 32 / 256  # the same, whether flow explains a region; on the shorter side of a picture
# A region is lost as flow leaves 0.35 to 0.5 of the change unexplained, and 0.7 to 0.4 of what it moves is trusted.
_UNEXPLAINED, _TRUSTED = (0.35, 0.5), (0.7, 0.4)
_PAIRS_AT_ONCE, _PIXELS_AT_ONCE = 16, 2**20
_GREY_LEVEL = 1e-5  # differences below one say nothing
_EPS = 1e-6


def interpolate_frames(
    frames: Tensor,
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    timestamps: Sequence[float] | None = None,
    window: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Doubles the frame rate of one clip `times` times: N frames become (N - 1) 2^times + 1.

    Args:
        frames: `(num_frames, 3, height, width)` in [0, 1], any floating dtype, one scene.
        flow_estimator: See the module's description.
        sofp_mode: Where a pixel is between two frames: `"quadratic"`, on the parabola of the module's description;
            `"projection"`, at the literal share `s D / n` of its step, with T the last frame of the window;
            `"linear"`, at the share s.
        times: Doublings; all sample the same parabola, at the shares j / 2^times.
        timestamps: Strictly rising times of the frames in any unit; `None` spaces them evenly.
        window: Frames that are looked at to place what is between two of them: these two and, on both sides, as many
            as fit. 4 follows changes of speed best, more averages over them (`benchmarks/results/sofp_choices.md`);
            below 4 every mode is linear.
        progress: Called with (pairs done, pairs in all) after each pair of neighbours.

    Returns:
        Frames of the same dtype and device. Those at multiples of 2^times are the originals, bit for bit.

    Raises:
        ValueError: Any argument is not as described, or the estimator returns flow of another shape.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames) or not frames.is_floating_point():
        raise ValueError(
            "Expected frames of shape (num_frames, 3, height, width), at least one, of a floating dtype; got "
            f"{tuple(frames.shape)} of {frames.dtype}."
        )
    timestamps = range(len(frames)) if timestamps is None else timestamps
    if len(timestamps) != len(frames):
        raise ValueError(f"There are {len(timestamps)} `timestamps` for {len(frames)} frames.")
    items = zip(frames, timestamps, strict=True)
    interpolated = []
    for frame, _ in interpolate_stream(items, flow_estimator, sofp_mode, times, window):
        pairs, rest = divmod(len(interpolated), 2**times)
        if progress is not None and pairs and not rest:
            progress(pairs, len(frames) - 1)
        interpolated.append(frame)
    return torch.stack(interpolated)


def interpolate_stream(
    frames: Iterable[tuple[Tensor, float]],
    flow_estimator: Callable[[Tensor, Tensor], Tensor],
    sofp_mode: str = "quadratic",
    times: int = 1,
    window: int = 4,
    is_cut: Callable[[Tensor, Tensor], bool] | None = None,
) -> Iterator[tuple[Tensor, float]]:
    """The same for a video of any length, in constant memory: takes and yields pairs of a frame and its time.

    Args:
        frames: Pairs of a frame `(3, height, width)` in [0, 1], floating dtype, and its time, strictly rising.
        flow_estimator, sofp_mode, times, window: As for `interpolate_frames`.
        is_cut: Called once with each two neighbouring frames, in order; true where the second begins a scene. Nothing
            is interpolated across a cut: the frames nearest in time are repeated there, so that the rate stays even.

    Returns:
        An iterator over the originals (the very tensors that came in) and 2^times - 1 frames between each two.
    """
    if sofp_mode not in SOFP_MODES:
        raise ValueError(f"`sofp_mode` is {sofp_mode!r}, but it must be one of {', '.join(SOFP_MODES)}.")
    if times < 1:
        raise ValueError(f"`times` is {times}, but the frame rate is doubled at least once.")
    if window < 2:
        raise ValueError(f"`window` is {window}, but two frames are the least to interpolate between.")

    def stream() -> Iterator[tuple[Tensor, float]]:
        shares = [step / 2**times for step in range(1, 2**times)]
        scene = _Scene(flow_estimator, sofp_mode, shares, reach=window // 2 - 1)
        for frame, time in frames:
            if scene.frames:
                previous, previous_time = scene.frames[-1], scene.times[-1]
                _check_next(frame, time, previous, previous_time)
                if is_cut is not None and is_cut(previous, frame):
                    yield from scene.finish()
                    for share in shares:
                        yield (previous if share <= 0.5 else frame), previous_time + share * (time - previous_time)
                    scene = _Scene(flow_estimator, sofp_mode, shares, reach=window // 2 - 1)
            scene.frames.append(frame)
            scene.times.append(time)
            yield from scene.advance()
        if scene.frames:
            yield from scene.finish()

    return stream()


class _Scene:
    """The frames of one scene that are still needed. Pair i is made of the frames i and i + 1."""

    def __init__(self, flow_estimator: Callable, sofp_mode: str, shares: list[float], reach: int) -> None:
        self.flow_estimator, self.sofp_mode, self.shares = flow_estimator, sofp_mode, shares
        self.reach = 0 if sofp_mode == "linear" else reach  # frames looked at before a pair, and after it
        self.frames: list[Tensor] = []
        self.times: list[float] = []
        self.forward: list[Tensor] = []  # of each pair (3, height, width): the flow, and 1 where it is trusted
        self.backward: list[Tensor] = []
        self.last_encoded: Tensor | None = None  # of the frame that the known flows end at, or its equal
        self.done = 0  # pairs at the front that were yielded, and are kept for the next ones to look back at

    def advance(self) -> Iterator[tuple[Tensor, float]]:
        """Yields a batch of pairs once all the frames that it looks at are there."""
        pairs = self.pairs_at_once()
        if len(self.frames) > self.done + pairs + self.reach:
            yield from self.yield_pairs(pairs)

    def finish(self) -> Iterator[tuple[Tensor, float]]:
        """Yields all that is left."""
        while len(self.frames) > self.done + 1:
            yield from self.yield_pairs(min(self.pairs_at_once(), len(self.frames) - self.done - 1))
        yield self.frames[-1], self.times[-1]

    def pairs_at_once(self) -> int:
        return max(1, min(_PAIRS_AT_ONCE, _PIXELS_AT_ONCE // self.frames[0][0].numel()))

    def yield_pairs(self, pairs: int) -> Iterator[tuple[Tensor, float]]:
        self.estimate_flows(min(self.done + pairs + self.reach, len(self.frames) - 1))
        end = self.done + pairs
        between = self.interpolate(range(self.done, end))
        for row, t in enumerate(range(self.done, end)):
            yield self.frames[t], self.times[t]
            for share, frames in zip(self.shares, between, strict=True):
                yield frames[row], self.times[t] + share * (self.times[t + 1] - self.times[t])
        self.done = min(end, self.reach)
        for kept in (self.frames, self.times, self.forward, self.backward):
            del kept[: end - self.done]

    def estimate_flows(self, end: int) -> None:
        """Flow of all pairs before `end`, both ways. Equal frames have none: a network would invent some."""
        start = len(self.forward)
        if start >= end:
            return
        moving = [t - start for t in range(start, end) if not torch.equal(self.frames[t], self.frames[t + 1])]
        height, width = self.frames[0].shape[-2:]
        flow = torch.zeros(2, end - start, 2, height, width, device=self.frames[0].device)
        if moving:
            estimated = self.call_estimator(torch.stack(self.frames[start : end + 1]), moving)
            expected = (2 * len(moving), 2, height, width)
            if tuple(estimated.shape) != expected:
                raise ValueError(f"The estimator returned flow of shape {tuple(estimated.shape)}, not {expected}.")
            flow[:, moving] = rearrange(estimated.to(flow), "(way pairs) xy h w -> way pairs xy h w", way=2)
        forward, backward = flow
        self.forward.extend(_with_trust(forward, backward))
        self.backward.extend(_with_trust(backward, forward))

    def call_estimator(self, frames: Tensor, pairs: list[int]) -> Tensor:
        """Forward flow of those pairs of neighbouring frames, then their backward flow."""
        a, b = pairs + [i + 1 for i in pairs], [i + 1 for i in pairs] + pairs
        if not hasattr(self.flow_estimator, "encode"):
            return self.flow_estimator(frames[a], frames[b])
        known = [] if self.last_encoded is None else [self.last_encoded]
        encoded = torch.cat([*known, self.flow_estimator.encode(frames[len(known) :])])
        self.last_encoded = encoded[-1:]
        return self.flow_estimator.match(encoded[a], encoded[b], *frames.shape[-2:])

    def interpolate(self, pairs: range) -> list[Tensor]:
        """For each share of the time, frames `(len(pairs), 3, height, width)`."""
        frames_a = torch.stack([self.frames[t] for t in pairs])
        between = [frames_a.clone() for _ in self.shares]
        moving = [t for t in pairs if not torch.equal(self.frames[t], self.frames[t + 1])]
        if not moving:
            return between
        rows = [t - pairs[0] for t in moving]
        frames_a, frames_b = frames_a[rows].float(), torch.stack([self.frames[t + 1] for t in moving]).float()
        forward = torch.stack([self.forward[t] for t in moving])
        backward = torch.stack([self.backward[t] for t in moving])
        path = self.fit_path(moving, forward)
        errors_a, errors_b = _errors(frames_a, frames_b, forward), _errors(frames_b, frames_a, backward)
        still_a, still_b = _still(errors_a, forward), _still(errors_b, backward)
        still = torch.minimum(still_a, still_b)
        lost = torch.maximum(_lost(errors_a, forward), _lost(errors_b, backward))
        forward, backward = _with_doubt(errors_a, forward, still_a), _with_doubt(errors_b, backward, still_b)
        for share, frames in zip(self.shares, between, strict=True):
            middle = _warp_and_blend(frames_a, frames_b, forward, backward, still, path(share), share)
            middle = torch.lerp(middle, (1 - share) * frames_a + share * frames_b, 0.5 * lost)
            frames[rows] = middle.clamp(0, 1).to(frames.dtype)
        return between

    def fit_path(self, pairs: list[int], forward: Tensor) -> Callable[[float], Tensor]:
        """The share of its step that each pixel has done, `(pairs, 1, height, width)`, by the share of the time."""
        step, trusted = forward[:, :2], forward[:, 2:]
        length = step.square().sum(1, keepdim=True)
        if not self.reach:
            return lambda share: torch.full_like(length, share)
        trusted = trusted * (length > _SMALLEST_MOTION**2)
        numerator, denominator = torch.zeros_like(length), torch.zeros_like(length)
        for n, is_last, chained in self.look_around(pairs, forward):
            weight = trusted * chained[:, 2:]
            excess = (chained[:, :2] * step).sum(1, keepdim=True) - n * length  # |V1|^2 (D - n), Eq. 14
            gain = n * is_last if self.sofp_mode == "projection" else n * (n - 1)
            numerator += weight * gain * excess
            denominator += weight * gain**2 * length
        # A ratio of blurred fields: single pixels are too noisy to tell an acceleration.
        sigma = _BLUR_SIGMA * min(forward.shape[-2:])
        ratio = _blur(numerator, sigma) / (_blur(denominator, sigma) + _EPS)
        if self.sofp_mode == "projection":
            return lambda share: (share * (1 + ratio)).clamp(0, 1)  # the ratio is D / n - 1
        curvature = ratio.clamp(-1, 1)  # beyond, the pixel would start or end by running backwards
        return lambda share: share + share * (share - 1) * curvature

    def look_around(self, pairs: list[int], forward: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each T around the pairs: n, 1 where it is the last one after its pair, and VT with its trust.

        VT is `(pairs, 3, height, width)`, the others `(pairs, 1, 1, 1)`. Where the scene has no such frame, no pixel
        is trusted.
        """
        times, here = torch.tensor(self.times, dtype=torch.float64), torch.tensor(pairs)
        last_frame = len(self.frames) - 1
        nowhere = torch.zeros_like(forward)
        nowhere[:, 2] = 1
        ahead, behind = range(2, self.reach + 2), range(-1, -self.reach - 1, -1)
        for distances, flows, chained in ((ahead, self.forward, forward), (behind, self.backward, nowhere)):
            for distance in distances:
                there = here + distance
                crossed = (there if distance < 0 else there - 1).clamp(0, len(flows) - 1)
                exists = (there >= 0) & (there <= last_frame)
                is_last = exists & ((there == last_frame) | (distance == self.reach + 1))
                n = (times[there.clamp(0, last_frame)] - times[here]) / (times[here + 1] - times[here])
                n, exists, is_last = (x.to(forward).view(-1, 1, 1, 1) for x in (n, exists, is_last))
                chained = _chain(chained, torch.stack([flows[i] for i in crossed]))
                chained = torch.cat([chained[:, :2], chained[:, 2:] * exists], dim=1)
                yield n, is_last, chained


def _check_next(frame: Tensor, time: float, previous: Tensor, previous_time: float) -> None:
    if frame.shape != previous.shape:
        raise ValueError(f"A frame of shape {tuple(frame.shape)} follows one of {tuple(previous.shape)}.")
    if not time > previous_time:
        raise ValueError(f"Timestamps must rise, but {time} follows {previous_time}.")


def _with_trust(flow: Tensor, opposite: Tensor) -> Tensor:
    """Flow `(pairs, 2, height, width)` with a third channel: 1 where the opposite flow leads back, else 0."""
    finite = (flow.isfinite() & opposite.isfinite()).all(1, keepdim=True)
    flow, opposite = torch.where(finite, flow, 0.0), torch.where(finite, opposite, 0.0)
    back = _sample(opposite, flow, "bilinear")
    missed = (flow + back).square().sum(1, keepdim=True)
    lengths = (flow.square() + back.square()).sum(1, keepdim=True)
    return torch.cat([flow, finite & (missed < 0.01 * lengths + 0.5)], dim=1)


def _chain(first: Tensor, second: Tensor) -> Tensor:
    """Flow with trust to a third frame: `second` is read where `first` leads."""
    second = _sample(second, first[:, :2], "bilinear")
    return torch.cat([first[:, :2] + second[:, :2], first[:, 2:] * second[:, 2:]], dim=1)


def _errors(frames: Tensor, others: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Squared differences of `frames` from the other ones, as flow reads them and as they are."""
    warped = _sample(others, flow[:, :2], "bilinear")
    return tuple((frames - other).square().mean(1, keepdim=True) for other in (warped, others))


def _still(errors: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    """How much better no motion explains a place than a small one does: 0, no better, to 1."""
    warped, unwarped = (_blur(error, _STILL_SIGMA) for error in errors)
    length = flow[:, :2].square().sum(1, keepdim=True).sqrt() / min(flow.shape[-2:])
    better = (warped - unwarped).clamp_min(0) / (warped + unwarped + _GREY_LEVEL)
    return better * _inside(flow) * _ramp(length, *_SMALL_MOTION)


def _inside(flow: Tensor) -> Tensor:
    """Where flow leads to a place in the picture."""
    height, width = flow.shape[-2:]
    x, y = (_grid(flow[:, :2]) + flow[:, :2]).split(1, dim=1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _lost(errors: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    """Where flow does not explain what it moves in a region: 0, it does, to 1."""
    sigma = _REGION_SIGMA * min(flow.shape[-2:])
    moves = _moves(flow) * _inside(flow)
    warped, unwarped, trusted, moving = (_blur(field * moves, sigma) for field in (*errors, flow[:, 2:], moves))
    return _ramp(warped / (unwarped + _GREY_LEVEL), *_UNEXPLAINED) * _ramp(trusted / (moving + _EPS), *_TRUSTED)


def _moves(flow: Tensor) -> Tensor:
    return (flow[:, :2].square().sum(1, keepdim=True) > _SMALLEST_MOTION**2).to(flow)


def _ramp(x: Tensor, start: float, end: float) -> Tensor:
    return ((x - start) / (end - start)).clamp(0, 1)


def _with_doubt(errors: tuple[Tensor, Tensor], flow: Tensor, still: Tensor) -> Tensor:
    """Flow with trust and a fourth channel: how badly an untrusted one explains a place, 0 to 1, or twice how much
    better no motion does, `still`.
    """
    warped, unwarped = (_blur(error, _DOUBT_SIGMA) for error in errors)
    doubt = (1 - flow[:, 2:]) * _moves(flow) * warped / (warped + unwarped + _GREY_LEVEL)
    return torch.cat([flow, torch.maximum(doubt, 2 * still)], dim=1)


def _warp_and_blend(
    frames_a: Tensor,
    frames_b: Tensor,
    forward: Tensor,
    backward: Tensor,
    still: Tensor,
    done: Tensor,
    share: float,
) -> Tensor:
    """The frames at `share` of the time: flows are splatted there, both frames read by them, blended by visibility."""
    forward, trust_a, doubt_a = forward.split([2, 1, 1], dim=1)
    backward, trust_b, doubt_b = backward.split([2, 1, 1], dim=1)
    # The share that a pixel of frame b has done is read where it came from: at the same pixel it tears the object.
    done_b = _sample(done, backward, "bilinear")
    to_both_a = torch.cat([-done * forward, (1 - done) * forward, doubt_a], dim=1)
    to_both_b = torch.cat([done_b * backward, (done_b - 1) * backward, doubt_b], dim=1)
    from_a, seen_in_a = _splat(to_both_a, done * forward, trust_a)
    from_b, seen_in_b = _splat(to_both_b, (1 - done_b) * backward, trust_b)
    flows = _fill_holes(from_a + from_b)
    weight_a, weight_b = (1 - share) * seen_in_a, share * seen_in_b
    read_a, read_b = _sample(frames_a, flows[:, :2], "bicubic"), _sample(frames_b, flows[:, 2:4], "bicubic")
    # The unwarped frames are all that is left where neither sees the place, half of it where an untrusted flow is
    # wrong, and nearly all where something stands still: there, and in part where a wrong flow carries it.
    doubted_a, doubted_b = (x[:, 4:5] / x[:, 5:6].clamp_min(_EPS) for x in (from_a, from_b))
    weight = 2 * (weight_a * doubted_a + weight_b * doubted_b) + 10 * still + 1e-3
    unwarped = (1 - share) * frames_a + share * frames_b
    return (weight_a * read_a + weight_b * read_b + weight * unwarped) / (weight_a + weight_b + weight)


def _splat(values: Tensor, flow: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """What `flow` carries to each pixel.

    Returns the sums of `values` with, as last channel, their weights, and how much of the pixel is covered, at most 1.
    A pixel that is about to be covered lands where its cover does, and its flow does not lead back: it weighs little.
    """
    height, width = values.shape[-2:]
    weight = trust + 1e-2
    carried = torch.cat([values * weight, weight, torch.ones_like(weight)], dim=1)
    carried = rearrange(carried, "n c h w -> n c (h w)")
    sums = torch.zeros_like(carried)
    target = _grid(flow) + flow
    corner = target.floor()
    fraction = target - corner
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            weight = (1 - dx - fraction[:, 0]).abs() * (1 - dy - fraction[:, 1]).abs() * inside
            x, y = x.clamp(0, width - 1).long(), y.clamp(0, height - 1).long()  # floats end at 2**24 pixels
            pixel = y * width + x
            pixel = rearrange(pixel, "n h w -> n 1 (h w)").expand_as(carried)
            sums.scatter_add_(2, pixel, carried * rearrange(weight, "n h w -> n 1 (h w)"))
    sums = rearrange(sums, "n c (h w) -> n c h w", h=height)
    return sums[:, :-1], sums[:, -1:].clamp_max(1)


def _fill_holes(sums: Tensor) -> Tensor:
    """Sums and, as last channel, their weights, to means; where nothing arrived, to the mean of the surroundings."""
    if min(sums.shape[-2:]) > 1:
        coarse = _fill_holes(F.avg_pool2d(sums, 2, ceil_mode=True))
        sums = sums + 1e-3 * F.interpolate(coarse, sums.shape[-2:], mode="bilinear", align_corners=False)
    return sums / sums[:, -1:].clamp_min(_EPS)


def _sample(image: Tensor, flow: Tensor, mode: str) -> Tensor:
    """`image` at `p + flow(p)`; beyond its border, the border."""
    height, width = image.shape[-2:]
    last = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=flow.device).view(1, 2, 1, 1)
    grid = rearrange(2 * (_grid(flow) + flow) / last - 1, "n xy h w -> n h w xy")
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)


def _grid(flow: Tensor) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(size, device=flow.device) for size in flow.shape[-2:]), indexing="ij")
    return torch.stack([x, y]).to(flow.dtype)


def _blur(field: Tensor, sigma: float) -> Tensor:
    """A Gaussian of that many pixels over `(pairs, 1, height, width)`; a wide one on a coarser grid."""
    size = field.shape[-2:]
    coarser = max(1, int(sigma / 4))
    if coarser > 1:
        field = F.interpolate(field, [-(-length // coarser) for length in size], mode="area")
        sigma = sigma / coarser
    radius = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=field.device) / sigma) ** 2).to(field)
    kernel = kernel / kernel.sum()
    field = F.conv2d(field, kernel.view(1, 1, 1, -1), padding=(0, radius))
    field = F.conv2d(field, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.interpolate(field, size, mode="bilinear", align_corners=False) if coarser > 1 else field
