"""Draw the clip, frames, caption, timestep and noise for each place of a batch from (seed, step, place) alone.

Hence a resumed run has no state to restore, the order does not depend on the number of workers, and two processes
together draw what one process draws with twice the gradient accumulation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np


# Each kind of draw has its own random stream, so that adding a kind does not change the others.
EPOCH_STREAM, STEP_STREAM, PLACE_STREAM, SPEED_STREAM = range(4)


@dataclass(frozen=True)
class ClipRequest:
    """One place of a batch: `num_frames` frames of a clip from `start`, `stride` apart, and what goes with them.

    Attributes:
        clip: Number of the clip in its dataset.
        start: First frame.
        stride: Distance between frames: use every `stride`-th one.
        num_frames: Number of frames.
        text: Caption, empty if it was dropped.
        timestep: Step of the noise schedule.
        noise_seed: Seed of the clip's noise.
        speed: Speed of motion in the noisy input relative to the clip itself, in [0, 1].
    """

    clip: int
    start: int
    stride: int
    num_frames: int
    text: str
    timestep: int
    noise_seed: int
    speed: float = 1.0


class ClipDataset(Protocol):
    """Captions and length of each clip, and the frames of a request."""

    captions: Sequence[Sequence[str]]
    lengths: Sequence[int]
    default_stride: tuple[int, int]

    def __len__(self) -> int: ...

    def name(self, clip: int) -> str: ...

    def __getitem__(self, request: ClipRequest) -> dict: ...


class TimestepBias(NamedTuple):
    """Draws timesteps at one end of the noise schedule more often.

    Attributes:
        strategy: "later" for the noisiest steps, "earlier" for the cleanest.
        portion: Share of the schedule that counts as that end, in (0, 1).
        multiplier: How many times as likely each of its steps is as any other.
    """

    strategy: str
    portion: float
    multiplier: float

    def draw(self, generator: np.random.Generator, num_train_timesteps: int) -> int:
        count = round(self.portion * num_train_timesteps)
        weight = self.multiplier * count
        if generator.random() * (weight + num_train_timesteps - count) < weight:
            step = generator.integers(count)
        else:
            step = generator.integers(count, num_train_timesteps)
        return int(num_train_timesteps - 1 - step if self.strategy == "later" else step)


@dataclass(eq=False)
class ClipBatchSampler:
    """Batches of one process, lists of `ClipRequest`, from step `first_step` up to `last_step`.

    Args:
        dataset: Clips to draw from.
        seed: Seed of all draws.
        batch_size: Clips per batch.
        num_frames_range: Fewest and most frames of a clip; each step draws one length.
        stride_range: Smallest and largest distance between frames; drawn for each clip.
        caption_dropout_prob: Probability of an empty caption.
        num_train_timesteps: Length of the noise schedule.
        first_step, last_step: Steps to draw, the last one excluded.
        accumulation_steps: Batches per step.
        num_processes, process_index: Number of processes that share a step, and this one.
        timestep_bias: Timesteps to draw more often; None draws all with equal probability.
        last_start: Last frame that a request may start at; None for any.
        slow_motion_prob: Probability of slowing down a clip that has a caption, by a speed drawn from [0, 1).
        freeze_prob: Probability that such a clip is frozen completely.

    Raises:
        ValueError: A clip is too short for the longest request; the message names the first one.
    """

    dataset: ClipDataset
    seed: int
    batch_size: int
    num_frames_range: tuple[int, int]
    stride_range: tuple[int, int]
    caption_dropout_prob: float
    num_train_timesteps: int
    first_step: int
    last_step: int
    accumulation_steps: int = 1
    num_processes: int = 1
    process_index: int = 0
    timestep_bias: TimestepBias | None = None
    last_start: int | None = None
    slow_motion_prob: float = 0.0
    freeze_prob: float = 0.0

    def __post_init__(self) -> None:
        for clip, length in enumerate(self.dataset.lengths):
            if reason := why_too_short(length, self.num_frames_range[1], self.stride_range[1]):
                raise ValueError(f"{self.dataset.name(clip)}: {reason}")
        self._order = lru_cache(maxsize=2)(self._epoch_order)  # a batch may reach into the next epoch

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        for step in range(self.first_step, self.last_step):
            for accumulation in range(self.accumulation_steps):
                first_place = (accumulation * self.num_processes + self.process_index) * self.batch_size
                yield [self.request(step, first_place + place) for place in range(self.batch_size)]

    def request(self, step: int, place: int) -> ClipRequest:
        """Draw for one place among all that a step has, over all its processes and accumulated batches."""
        places = self.batch_size * self.accumulation_steps * self.num_processes
        epoch, position = divmod(step * places + place, len(self.dataset.lengths))
        clip = int(self._order(epoch)[position])

        # The order of draws from one generator is part of the result: do not change it.
        num_frames = int(self._generator(STEP_STREAM, step).integers(*self.num_frames_range, endpoint=True))
        generator = self._generator(PLACE_STREAM, step, place)
        stride = int(generator.integers(*self.stride_range, endpoint=True))
        last = self.dataset.lengths[clip] - frames_needed(num_frames, stride)
        start = int(generator.integers(last if self.last_start is None else min(last, self.last_start), endpoint=True))
        text = self.dataset.captions[clip][generator.integers(len(self.dataset.captions[clip]))]
        dropped = generator.random() < self.caption_dropout_prob
        if self.timestep_bias is None:
            timestep = int(generator.integers(self.num_train_timesteps))
        else:
            timestep = self.timestep_bias.draw(generator, self.num_train_timesteps)
        request = ClipRequest(
            clip=clip,
            start=start,
            stride=stride,
            num_frames=num_frames,
            text="" if dropped else text,
            timestep=timestep,
            noise_seed=int(generator.integers(2**63 - 1)),
        )
        return request if dropped else replace(request, speed=self._speed(step, place))

    def _speed(self, step: int, place: int) -> float:
        generator = self._generator(SPEED_STREAM, step, place)
        if generator.random() >= self.slow_motion_prob:
            return 1.0
        speed = float(generator.random())
        return 0.0 if generator.random() < self.freeze_prob else speed

    def _epoch_order(self, epoch: int) -> np.ndarray:
        return self._generator(EPOCH_STREAM, epoch).permutation(len(self.dataset.lengths))

    def _generator(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])


def frames_needed(num_frames: int, stride: int) -> int:
    """Length of the stretch of a clip that holds `num_frames` frames, `stride` apart."""
    return (num_frames - 1) * stride + 1


def why_too_short(length: int, num_frames: int, stride: int) -> str | None:
    """Reason to reject a clip of `length` frames for a request of `num_frames`, `stride` apart; None if it fits."""
    needed = frames_needed(num_frames, stride)
    if length >= needed:
        return None
    return f"{length} frames, but {num_frames} frames at a stride of {stride} take at least {needed}."
