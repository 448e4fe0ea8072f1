"""The benchmark of animation on twos and threes: what is shown, what is held out, and its table."""

import torch

import held_pictures
from held_pictures import PICTURES, table, truth_of, with_middles


def test_middles_come_between_their_frames():
    frames = torch.arange(3.0).view(3, 1, 1, 1)
    assert with_middles(frames, frames[:-1] + 0.5).flatten().tolist() == [0, 0.5, 1, 1.5, 2]


def test_the_true_clip_has_all_frames_of_the_doubled_rate(monkeypatch):
    monkeypatch.setattr(held_pictures, "SIZE", 32)
    truth = truth_of("boat", 4, hold=3)
    assert truth.shape == (6 * (PICTURES - 1) + 1, 3, 32, 32) and 0 <= truth.min() < truth.max() <= 1
    assert not torch.equal(truth[0], truth[1])


def test_the_table_has_a_row_for_each_method():
    text = table({"on twos": {"SOFP": 40.126, "RIFE": 39.0}, "on threes": {"SOFP": 38.0, "RIFE": 37.0}})
    assert "| SOFP | 40.13 | 38.00 |" in text and "| RIFE | 39.00 | 37.00 |" in text
