"""Each frame has the share of each prompt that its place demands, and embeddings are blended by these shares."""

import logging

import pytest
import torch

from pipeline_calls import PIPELINE_LOGGER, said
from pipeline_landscape_video.landscape_prompt_schedule import PromptSchedule, shares_of_keys
from pipeline_landscape_video.landscape_windows import WindowPlan


def shares(keys, num_frames, transition=None, closed_loop=False):
    return shares_of_keys(keys, len(keys), num_frames, transition, closed_loop)


def test_a_transition_is_centered_on_its_key():
    ours = shares([0, 48], 96)
    assert torch.equal(ours.sum(1), torch.ones(96))
    assert (ours[:24, 0] == 1).all() and (ours[72:, 1] == 1).all()  # 48 frames, from 24 to 71
    torch.testing.assert_close(ours[47] + ours[48], torch.ones(2))
    assert (ours[24:72, 1].diff() > 0).all()
    shorter = shares([0, 48], 96, transition=4)[46:50, 1]
    torch.testing.assert_close(shorter, torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_without_a_transition_the_prompt_switches_at_its_key():
    assert shares([0, 5, 7], 9, transition=0).argmax(1).tolist() == [0] * 5 + [1] * 2 + [2] * 2


def test_transitions_never_overlap_whatever_the_keys():
    for keys in ([0, 1, 2, 3], [0, 90, 95], [0, 20, 60]):
        for closed_loop in (False, True):
            ours = shares(keys, 96, closed_loop=closed_loop)
            torch.testing.assert_close(ours.sum(1), torch.ones(96))
            assert ours.min() >= -1e-6 and (ours > 1e-6).sum(1).max() <= 2
            assert all(
                ours[(key + after) // 2, i] > 0.4
                for i, (key, after) in enumerate(zip(keys, [*keys[1:], 96], strict=True))
            )


def test_a_closed_loop_blends_the_last_prompt_into_the_first():
    ours = shares([0, 48], 96, closed_loop=True)
    assert abs(ours[0] - ours[-1]).max() < 0.05
    assert ours[24, 0] > 0.95 and ours[72, 1] > 0.95
    assert torch.equal(shares([0], 8, closed_loop=True), torch.ones(8, 1))


def embeds_of(texts):
    """Return an embedding with the number of each text."""
    return torch.tensor([float(text) for text in texts]).view(-1, 1, 1).expand(-1, 2, 3)


def test_each_frame_of_a_window_has_its_blend_for_every_clip_and_term():
    schedule = PromptSchedule([{0: "0", 32: "10"}, "5"], {0: "100", 48: "200"}, 2, WindowPlan(96), transition=4)
    assert schedule.texts["prompt"] == ["0", "10", "5", "5"]
    embeds = torch.cat([embeds_of(schedule.texts[name]) for name in ("negative_prompt", "prompt")])
    assert schedule.spread(embeds, (False, True)) is embeds
    window = list(range(29, 35)) + [60]
    blended = schedule.select(embeds, window, (False, True))
    assert blended.shape == (2 * 2 * 7, 2, 3)
    negative, positive = blended[:, 0, 0].view(2, 2, 7)
    torch.testing.assert_close(positive[0], torch.tensor([0, 1.25, 3.75, 6.25, 8.75, 10, 10]))
    assert positive[1].tolist() == [5] * 7
    assert negative[0].tolist() == negative[1].tolist() == [100] * 6 + [200]
    assert schedule.select(embeds[4:], window, (True,)).shape == (2 * 7, 2, 3)


def test_one_prompt_per_window_is_that_of_its_middle_frame():
    schedule = PromptSchedule({0: "0", 32: "10"}, None, 1, WindowPlan(96), transition=4, per_window=True)
    blended = schedule.select(embeds_of(["0", "10"]), list(range(24, 40)), (True,))
    torch.testing.assert_close(blended[:, 0, 0], torch.full((16,), 6.25))


def test_one_window_is_spread_once_and_then_kept():
    schedule = PromptSchedule({0: "0", 8: "10"}, None, 1, WindowPlan(16), transition=0)
    spread = schedule.spread(embeds_of(["0", "10"]), (True,))
    assert spread[:, 0, 0].tolist() == [0] * 8 + [10] * 8
    assert schedule.select(spread, range(16), (True,)) is spread


def test_short_prompts_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        PromptSchedule({0: "mist", 16: "rain"}, None, 1, WindowPlan(32))
        assert not said(caplog)
        PromptSchedule({0: "mist", 16: "rain", 31: "snow"}, None, 1, WindowPlan(47))
    assert said(caplog) == ["`prompt` changes after 15 frames; prompts need at least 16 frames to be seen."]


def test_a_negative_prompt_over_time_needs_texts():
    with pytest.raises(ValueError, match="`prompt` must be given for a `negative_prompt` over time"):
        PromptSchedule(None, {0: "rain", 20: "snow"}, 1, WindowPlan(40))
