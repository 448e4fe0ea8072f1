"""Requests of a batch: what is drawn, in which ranges, and that it depends on seed, step and place alone."""

from dataclasses import replace

import numpy as np
import pytest

from landscape_video.training.data.clip_sampling import ClipBatchSampler, TimestepBias


class Clips:
    """Clips by length only."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.captions = [[f"{number}a", f"{number}b"] for number in range(len(lengths))]

    def name(self, clip: int) -> str:
        return f"clip {clip}"


def make_sampler(lengths: list[int] | None = None, **arguments) -> ClipBatchSampler:
    defaults = {
        "seed": 0,
        "batch_size": 2,
        "num_frames_range": (4, 8),
        "stride_range": (1, 3),
        "caption_dropout_prob": 0.25,
        "num_train_timesteps": 1000,
        "first_step": 0,
        "last_step": 50,
    }
    return ClipBatchSampler(Clips(lengths or [40, 22, 30, 25, 60]), **(defaults | arguments))


def test_every_clip_comes_once_an_epoch_in_changing_order():
    requests = [request for batch in make_sampler() for request in batch]
    epochs = [[request.clip for request in requests[first : first + 5]] for first in range(0, 100, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 10


def test_draws_stay_in_their_ranges_and_reach_their_ends():
    sampler = make_sampler(last_step=400)
    requests = [request for batch in sampler for request in batch]
    assert {request.num_frames for request in requests} == {4, 5, 6, 7, 8}
    assert {request.stride for request in requests} == {1, 2, 3}
    assert {request.text for request in requests} == {""} | {f"{n}{letter}" for n in range(5) for letter in "ab"}
    assert 0.2 < np.mean([request.text == "" for request in requests]) < 0.3
    assert 400 < np.mean([request.timestep for request in requests]) < 600
    assert all(0 <= request.timestep < 1000 for request in requests)
    assert len({request.noise_seed for request in requests}) == len(requests)
    for drawn in requests:
        assert 0 <= drawn.start <= sampler.dataset.lengths[drawn.clip] - (drawn.num_frames - 1) * drawn.stride - 1
    tight = make_sampler([22], batch_size=1, num_frames_range=(8, 8), stride_range=(3, 3))
    assert all(batch[0].start == 0 for batch in tight)


def test_speeds_are_drawn_for_clips_with_a_caption_and_change_nothing_else():
    as_they_are = [request for batch in make_sampler(last_step=400) for request in batch]
    requests = [request for batch in make_sampler(last_step=400, slow_motion_prob=0.6) for request in batch]
    assert [replace(request, speed=1.0) for request in requests] == as_they_are
    assert all(request.speed == 1 for request in requests if not request.text)
    slowed = [request.speed for request in requests if request.speed < 1]
    assert 0.54 < len(slowed) / sum(request.text != "" for request in requests) < 0.66
    assert 0 < min(slowed) < 0.02 and 0.98 < max(slowed) < 1 and 0.46 < np.mean(slowed) < 0.54


def test_some_slow_clips_stand_still_and_the_others_keep_their_speed():
    def speeds(**settings):
        sampler = make_sampler(last_step=400, slow_motion_prob=0.6, **settings)
        return np.array([request.speed for batch in sampler for request in batch])

    slowed, some_still = speeds(), speeds(freeze_prob=0.4)
    still = some_still == 0
    assert np.array_equal(some_still[~still], slowed[~still])
    assert (slowed[still] < 1).all() and 0.34 < still.sum() / (slowed < 1).sum() < 0.46


@pytest.mark.parametrize(("strategy", "ends"), [("later", range(900, 1000)), ("earlier", range(100))])
def test_biased_timesteps_come_as_often_as_said(strategy, ends):
    bias = TimestepBias(strategy, portion=0.1, multiplier=6)
    drawn = [bias.draw(np.random.default_rng(seed), 1000) for seed in range(3000)]
    assert min(drawn) >= 0 and max(drawn) <= 999
    share = np.mean([step in ends for step in drawn])
    assert abs(share - 6 * 0.1 / (6 * 0.1 + 0.9)) < 0.03  # three standard errors of 3,000 draws
    inside = [step for step in drawn if step in ends]
    assert abs(np.mean(inside) - np.mean(ends)) < 4  # and evenly within that end


def test_a_step_has_one_length():
    for batch in make_sampler(batch_size=8):
        assert len({request.num_frames for request in batch}) == 1


def test_a_later_start_continues_the_same_sequence():
    assert list(make_sampler())[37:] == list(make_sampler(first_step=37))
    assert len(make_sampler(first_step=37, accumulation_steps=2)) == 26


def test_seeds_differ():
    assert list(make_sampler(seed=1)) != list(make_sampler(seed=2))


def test_processes_share_what_accumulation_would_see():
    alone = list(make_sampler(accumulation_steps=2))
    first, second = (list(make_sampler(num_processes=2, process_index=index)) for index in (0, 1))
    assert alone[0::2] == first and alone[1::2] == second


def test_a_clip_too_short_is_named_with_what_it_takes():
    with pytest.raises(ValueError, match="clip 1: 21 frames, but 8 frames at a stride of 3 take at least 22"):
        make_sampler([40, 21, 30])
