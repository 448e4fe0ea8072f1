"""CLIP-temp, CLIP-text, frame consistency and first-frame fidelity, against torchmetrics, scipy and known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine, pdist
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.multimodal import clip_score
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from landscape_video.evaluation.metrics.clip_metrics import clip_temp, clip_text, fff_clip, fff_ssim, frame_consistency
from landscape_video.evaluation.metrics.video_features import ClipScorer
from pipeline_landscape_video import SHANSHUI_TINY
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import Scene


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer(batch_size=3)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return render_clip(Scene(water="lake", boat="left", seed=7), [k / 8 for k in range(5)], 128, 128)


def unit(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=-1)


def test_known_angles():
    turning = unit((1, 0), (1, 1), (0, 1))  # 45 degrees from frame to frame, 90 from first to last
    assert clip_temp(turning) == pytest.approx(math.sqrt(0.5))
    assert frame_consistency(turning) == pytest.approx(2 * math.sqrt(0.5) / 3)
    assert clip_text(turning, unit((1, 0))[0]) == pytest.approx(100 * (1 + math.sqrt(0.5)) / 3)
    assert fff_clip(turning, unit((1, 1))[0]) == pytest.approx(math.sqrt(0.5))
    still = unit((3, 4)).repeat(6, 1)
    assert clip_temp(still) == pytest.approx(1) == frame_consistency(still)


def test_cosines_agree_with_scipy():
    frames = np.random.default_rng(0).normal(size=(7, 20))
    embeddings = unit(*map(tuple, frames))
    consecutive = [1 - cosine(one, other) for one, other in zip(frames, frames[1:], strict=False)]
    assert clip_temp(embeddings) == pytest.approx(np.mean(consecutive), abs=1e-12)
    assert frame_consistency(embeddings) == pytest.approx(1 - pdist(frames, "cosine").mean(), abs=1e-12)


class ClipOfOldTransformers(CLIPModel):
    """torchmetrics 1.9 expects embeddings where transformers 5 gives outputs."""

    def get_image_features(self, *args, **kwargs) -> torch.Tensor:
        return super().get_image_features(*args, **kwargs).pooler_output

    def get_text_features(self, *args, **kwargs) -> torch.Tensor:
        return super().get_text_features(*args, **kwargs).pooler_output


def test_clip_text_agrees_with_torchmetrics(scorer, clip):
    folder = SHANSHUI_TINY / "clip"

    def same_models() -> tuple[CLIPModel, CLIPProcessor]:
        processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
        return ClipOfOldTransformers.from_pretrained(folder), processor

    text = "mist drifting over layered mountains, a boat on a calm lake"
    images = [torch.from_numpy(frame).permute(2, 0, 1) for frame in clip]
    theirs = clip_score(images, [text] * len(images), model_name_or_path=same_models)
    ours = clip_text(scorer.frames(clip), scorer.texts([text])[0])
    assert ours == pytest.approx(float(theirs), abs=2e-3) and ours > 5


def test_the_right_prompt_scores_higher(scorer):
    scenes = {"a boat on a lake in autumn": Scene(palette="autumn", water="lake", boat="left", seed=3)}
    scenes["snow mountains under the moon"] = Scene(palette="snow", light="moon", seed=3)
    texts = scorer.texts(list(scenes))
    frames = [scorer.frames(render_clip(scene, [0.0], 128, 128)) for scene in scenes.values()]
    for own, frame in enumerate(frames):
        assert clip_text(frame, texts[own]) > clip_text(frame, texts[1 - own])


def test_first_frame_similarity_agrees_with_torchmetrics(clip):
    image = np.clip(clip[0].astype(int) + np.random.default_rng(0).normal(0, 20, clip[0].shape), 0, 255)
    image = image.astype(np.uint8)
    assert fff_ssim(clip, clip[0]) == pytest.approx(1)
    tensors = [torch.from_numpy(one).permute(2, 0, 1)[None].double() for one in (clip[0], image)]
    settings = {"sigma": 1.5, "data_range": 255.0, "return_full_image": True}
    _, map_of_theirs = structural_similarity_index_measure(*tensors, **settings)
    # torchmetrics averages the padded border as well, scikit-image only where the window is full.
    assert fff_ssim(clip, image) == pytest.approx(float(map_of_theirs[..., 5:-5, 5:-5].mean()), abs=1e-9)
    assert 0.1 < fff_ssim(clip, image) < 0.9


def test_pictures_of_another_size_are_resized_and_of_another_aspect_refused(clip):
    large = clip[0].repeat(2, axis=0).repeat(2, axis=1)
    assert fff_ssim(clip, large) > 0.9
    with pytest.raises(ValueError, match="must have the aspect ratio of the clip, 128 x 128, got 100 x 128"):
        fff_ssim(clip, clip[0][:, :100])
