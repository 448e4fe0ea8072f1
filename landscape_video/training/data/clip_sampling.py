"""Which clip, frames, caption, timestep and noise each place of a batch gets: a pure function of (seed, step, place).

Nothing has a state that a resumed run would have to restore, the order does not depend on the number of workers, and
two processes draw together what one process draws with twice the accumulation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np


# Each kind of draw has a stream of its own, so that adding a kind leaves the others as they were.
EPOCH_STREAM, STEP_STREAM, PLACE_STREAM, PACE_STREAM = range(4)


@dataclass(frozen=True)
class ClipRequest:
    """One place of a batch: the frames `start`, `start + stride`, ... of clip number `clip`, and what goes with it."""

    clip: int
    start: int
    stride: int
    num_frames: int
    text: str
    timestep: int
    noise_seed: int
    pace: float = 1.0  # of what the noisy clip shows, beside the clip's own; see `slowed_motion`


class ClipDataset(Protocol):
    """What a source of clips offers: for each clip its captions and its length, and the frames of a request."""

    captions: Sequence[Sequence[str]]
    lengths: Sequence[int]
    default_stride: tuple[int, int]

    def __len__(self) -> int: ...

    def name(self, clip: int) -> str: ...

    def __getitem__(self, request: ClipRequest) -> dict: ...


class TimestepBias(NamedTuple):
    """Draws the timesteps of one end of the noise schedule more often.

    `strategy` is "later" (the noisiest steps) or "earlier", `portion` which part of the schedule that end is (between
    0 and 1), and `multiplier` how many times as likely as the others its steps are.
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


class ClipBatchSampler:
    """The batches of one process, lists of `ClipRequest`, from step `first_step` up to `last_step`.

    Args:
        dataset: where the clips lie.
        seed: of everything that is drawn.
        batch_size: clips in a batch.
        num_frames_range: shortest and longest clip; one length is drawn for each step.
        stride_range: smallest and largest distance between frames; drawn for each clip.
        caption_dropout_prob: how often a clip gets the empty caption.
        num_train_timesteps: length of the noise schedule.
        timestep_bias: which of its steps come more often; None draws all alike.
        last_start: the last frame that a request may begin with; None for any.
        slow_motion_prob: how often a clip with a caption is seen slowed down; its pace is then drawn from 0 to 1.
        standstill_prob: how many of those stand quite still.
        accumulation_steps: batches that make up one step.
        num_processes, process_index: the share of this process.

    Raises:
        ValueError: naming the first clip that is too short for the longest request.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        seed: int,
        batch_size: int,
        num_frames_range: tuple[int, int],
        stride_range: tuple[int, int],
        caption_dropout_prob: float,
        num_train_timesteps: int,
        first_step: int,
        last_step: int,
        accumulation_steps: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
        timestep_bias: TimestepBias | None = None,
        last_start: int | None = None,
        slow_motion_prob: float = 0.0,
        standstill_prob: float = 0.0,
    ) -> None:
        needed = (num_frames_range[1] - 1) * stride_range[1] + 1
        for clip, length in enumerate(dataset.lengths):
            if length < needed:
                raise ValueError(
                    f"{dataset.name(clip)}: {length} frames, but {num_frames_range[1]} frames at a stride of "
                    f"{stride_range[1]} take at least {needed}."
                )
        self.dataset = dataset
        self.seed = seed
        self.batch_size = batch_size
        self.num_frames_range = num_frames_range
        self.stride_range = stride_range
        self.caption_dropout_prob = caption_dropout_prob
        self.num_train_timesteps = num_train_timesteps
        self.timestep_bias = timestep_bias
        self.last_start = last_start
        self.slow_motion_prob = slow_motion_prob
        self.standstill_prob = standstill_prob
        self.first_step = first_step
        self.last_step = last_step
        self.accumulation_steps = accumulation_steps
        self.num_processes = num_processes
        self.process_index = process_index
        self._order = lru_cache(maxsize=2)(self._epoch_order)  # a batch may reach into the next epoch

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        for step in range(self.first_step, self.last_step):
            for accumulation in range(self.accumulation_steps):
                first_place = (accumulation * self.num_processes + self.process_index) * self.batch_size
                yield [self.request(step, first_place + place) for place in range(self.batch_size)]

    def request(self, step: int, place: int) -> ClipRequest:
        """What the given place of the step's whole batch, over all processes and accumulated batches, gets."""
        places = self.batch_size * self.accumulation_steps * self.num_processes
        epoch, position = divmod(step * places + place, len(self.dataset.lengths))
        clip = int(self._order(epoch)[position])

        shortest, longest = self.num_frames_range
        num_frames = int(self._generator(STEP_STREAM, step).integers(shortest, longest, endpoint=True))
        generator = self._generator(PLACE_STREAM, step, place)
        stride = int(generator.integers(*self.stride_range, endpoint=True))
        span = (num_frames - 1) * stride + 1
        last = self.dataset.lengths[clip] - span
        start = int(generator.integers(last if self.last_start is None else min(last, self.last_start), endpoint=True))
        text = self.dataset.captions[clip][generator.integers(len(self.dataset.captions[clip]))]
        dropped = generator.random() < self.caption_dropout_prob
        if self.timestep_bias is None:
            timestep = int(generator.integers(self.num_train_timesteps))
        else:
            timestep = self.timestep_bias.draw(generator, self.num_train_timesteps)
        pace_generator = self._generator(PACE_STREAM, step, place)
        slowed = pace_generator.random() < self.slow_motion_prob and not dropped
        pace = float(pace_generator.random()) if slowed else 1.0
        if slowed and pace_generator.random() < self.standstill_prob:
            pace = 0.0
        return ClipRequest(
            clip=clip,
            start=start,
            stride=stride,
            num_frames=num_frames,
            text="" if dropped else text,
            timestep=timestep,
            noise_seed=int(generator.integers(2**63 - 1)),
            pace=pace,
        )

    def _epoch_order(self, epoch: int) -> np.ndarray:
        return self._generator(EPOCH_STREAM, epoch).permutation(len(self.dataset.lengths))

    def _generator(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])
