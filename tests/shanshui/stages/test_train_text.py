"""Captions without pictures for the text encoder of shanshui-tiny: what is asked of it, and what is left alone."""

import pytest
import torch

from caption_parser import find_attributes
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.scene import CHOICES
from shanshui.stages.train_text import SAID, UNSAID, HeadsOnText, fresh_caption


@pytest.mark.parametrize("index", range(8))
def test_labels_are_what_the_caption_says(index):
    text, labels = fresh_caption(1, index)
    assert (text, labels) == fresh_caption(1, index)
    told = find_attributes(text)
    for name, label in zip(SAID, labels, strict=True):
        assert (label == UNSAID) == (name not in told)
        assert label == UNSAID or CHOICES[name][label] == told[name]


def test_captions_come_in_both_languages_and_leave_things_out():
    texts, labels = zip(*(fresh_caption(1, index) for index in range(40)), strict=True)
    assert all(text.isascii() == (index % 2 == 0) for index, text in enumerate(texts))
    assert len(set(texts)) == 40
    assert any(label[SAID.index("palette")] == UNSAID for label in labels)


def test_wording_does_not_depend_on_the_scene():
    labels = torch.tensor([fresh_caption(1, index)[1] for index in range(400)])
    only_motion = (labels[:, [SAID.index("palette"), SAID.index("layers")]] == UNSAID).all(1)
    dry = torch.tensor([scene_of(index, 1, fine_motifs=False).water == "none" for index in range(400)])
    assert 0.1 < only_motion.float().mean() < 0.35
    assert abs(dry[only_motion].float().mean() - dry.float().mean()) < 0.15


@pytest.fixture(scope="module")
def heads_and_captions():
    """Pooled outputs that tell each attribute in a few numbers of their own, labels with gaps, and heads on them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.randint(len(CHOICES[name]), (600,), generator=generator) for name in SAID], 1)
    told = [torch.nn.functional.one_hot(labels[:, k], 8).float() for k in range(len(SAID))]
    pooled = torch.cat(told, 1) + 0.1 * torch.randn(600, 8 * len(SAID), generator=generator)
    unsaid = torch.rand(labels.shape, generator=generator) < 0.3
    labels = labels.masked_fill(unsaid, UNSAID)
    return HeadsOnText(pooled[:500], labels[:500]), pooled, labels


def test_heads_read_captions_that_they_were_not_fitted_to(heads_and_captions):
    heads, pooled, labels = heads_and_captions
    assert heads.right(pooled[500:], labels[500:]).float().mean() > 0.95
    assert not any(parameter.requires_grad for parameter in heads.parameters())


def test_only_what_is_said_is_asked(heads_and_captions):
    heads, pooled, labels = heads_and_captions
    silent = torch.full_like(labels[:4], UNSAID)
    assert heads.loss(pooled[:4], silent) == 0
    assert heads.right(pooled[:4], silent).all()
    one = silent.clone()
    camera = SAID.index("camera")
    one[0, camera] = 0
    expected = torch.nn.functional.cross_entropy(heads(pooled[:1])[camera], one[:1, camera])
    torch.testing.assert_close(heads.loss(pooled[:4], one), expected)


def test_one_wrong_attribute_makes_a_caption_wrong(heads_and_captions):
    heads, pooled, labels = heads_and_captions
    row = int(heads.right(pooled, labels).nonzero()[0])
    said = int((labels[row] != UNSAID).nonzero()[0])
    other = labels[row : row + 1].clone()
    other[0, said] = (other[0, said] + 1) % len(CHOICES[SAID[said]])
    assert not heads.right(pooled[row : row + 1], other).any()
