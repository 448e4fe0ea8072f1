"""Masks by SAM and SAM 2 of transformers, as small random models: several objects, points and boxes."""

import pytest
import torch

from landscape_video.generation.segmentation import ObjectPrompt, parse_prompts, segment
from tiny_models import build_classifier
from tiny_segmenters import build_sam, build_sam2


FRAMES = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
PROMPTS = [ObjectPrompt(points=((10, 10), (12, 12))), ObjectPrompt(box=(4, 4, 30, 30))]


@pytest.fixture(scope="module", params=[build_sam, build_sam2], ids=["SAM", "SAM 2"])
def segmenter(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("segmenter"))


def test_masks_of_several_objects(segmenter):
    masks = segment(FRAMES, str(segmenter), PROMPTS)
    assert masks.shape == (2, 3, 48, 64)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(masks[0], masks[1])
    # The first object does not depend on whether there is another one.
    assert (segment(FRAMES, str(segmenter), PROMPTS[:1])[0, 0] != masks[0, 0]).float().mean() < 0.01


def test_masks_depend_on_frames_and_prompts(segmenter):
    masks = segment(FRAMES, str(segmenter), PROMPTS[:1])
    assert not torch.equal(masks[0, 0], masks[0, 1])
    other = ObjectPrompt(points=((50, 40), (52, 42)))
    assert not torch.equal(masks, segment(FRAMES, str(segmenter), [other]))


def test_other_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`segmenter` .* does not load: it must be SAM, SAM 2 or SAM 3, got videomae"):
        segment(FRAMES, str(build_classifier(tmp_path)), PROMPTS)
    with pytest.raises(ValueError, match="`segmenter` .* does not load"):
        segment(FRAMES, str(tmp_path / "none"), PROMPTS)


def test_prompts_are_parsed_and_moved():
    points, box = parse_prompts(["10,20;30,40"], ["0,0,8,16"])
    assert points == ObjectPrompt(points=((10, 20), (30, 40)))
    assert box.moved(0.5, 1, 2) == ObjectPrompt(box=(-1.0, -2.0, 3.0, 6.0))
    assert points.moved(2.0, 10, 0) == ObjectPrompt(points=((10.0, 40.0), (50.0, 80.0)))
    with pytest.raises(ValueError, match="`boxes` must be numbers such as left,top,right,bottom, got '1,2'"):
        parse_prompts([], ["1,2"])
