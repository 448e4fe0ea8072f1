"""Scores of perfect, of half right and of still clips."""

from dataclasses import replace

import numpy as np
import pytest

from caption_parser import parse_caption
from landscape_video.evaluation.metrics.motion_metrics import measure_flow
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from shanshui.measuring.classifier_training import ATTRIBUTES, MOTIFS
from shanshui.measuring.measured_clips import prompts_of
from shanshui.measuring.predictions import (
    Labels,
    agreement,
    answers,
    camera_counts,
    clip_scores,
    predict,
    scores_beside,
    still_clips,
)
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, FPS, Scene


@pytest.fixture(scope="module")
def rendered_clips() -> tuple[list[Scene], list[np.ndarray]]:
    """Three clips for each camera, 8 frames of 64 x 64, in which other things move, too."""
    base = (
        Scene(palette="ink", water="lake", birds="right", trees="pines", light="moon", pavilion=True, seed=7),
        Scene(palette="blue_green", mist="left", light="sun", waterfall=True, seed=3),
        Scene(palette="snow", water="river", birds="left", seed=4),
    )
    scenes = [replace(scene, camera=camera) for camera in CAMERAS for scene in base]
    return scenes, [render_clip(scene, [k / FPS for k in range(8)], 64, 64) for scene in scenes]


def test_still_clips_do_not_move(rendered_clips):
    _, clips = rendered_clips
    still = predict(still_clips(clips[:3]))
    assert list(still.cameras) == ["still"] * 3
    assert still.magnitudes == pytest.approx(0, abs=1e-3) and still.flickers == pytest.approx(0, abs=1e-3)
    moving = predict(clips[:1])
    assert moving.magnitudes[0] == measure_flow(clips[0]).magnitude and moving.probabilities == {}


def test_scores_of_perfect_and_of_still_clips(rendered_clips):
    scenes, clips = rendered_clips
    labels, classifier = Labels.of(scenes), SceneClassifier(ATTRIBUTES).eval()
    seen = predict(clips, classifier)
    perfect = replace(seen, probabilities={name: np.eye(5)[rows] for name, rows in labels.attributes.items()})
    scores = clip_scores(perfect, labels) | scores_beside(perfect, perfect, labels)
    for name in ("palette", "camera", "motifs, mean", *MOTIFS, "lake or river", "sun or moon"):
        assert scores[name].value == 1, name
    assert scores["motion, relative to rendered"].value == scores["flicker, relative to rendered"].value == 1
    counts = camera_counts(seen, labels)
    assert counts == {asked: {name: 3 * (name == asked) for name in CAMERAS} for asked in CAMERAS}
    ways = [f"camera travel, relative to rendered, {which}" for which in ("pans", "zooms")]
    half = replace(perfect, pans=perfect.pans / 2, zooms=-perfect.zooms)
    for one, expected in ((perfect, (1, 1)), (half, (0.5, -1))):
        assert [scores_beside(one, perfect, labels)[way].value for way in ways] == pytest.approx(expected)
    np.testing.assert_allclose(agreement(perfect, labels), 1)
    assert all((right == 1).all() for right in answers(perfect, labels).values())
    still = predict(still_clips(clips), classifier)
    assert clip_scores(still, labels)["camera"].value == pytest.approx(1 / len(CAMERAS))
    assert scores_beside(still, perfect, labels)["motion, relative to rendered"].value == pytest.approx(0, abs=1e-3)


def test_attributes_that_are_not_valid_do_not_count(rendered_clips):
    scenes, clips = rendered_clips
    labels = Labels.of(scenes[:3])
    seen = predict(clips[:3], SceneClassifier(ATTRIBUTES, valid=("palette", "boat")).eval())
    assert seen.motifs == ["boat"] and "motifs" in answers(seen, labels)
    only_palette = replace(seen, valid=("palette",))
    assert "motifs, mean" not in clip_scores(only_palette, labels) and "motifs" not in answers(only_palette, labels)
    right = np.array(seen.probabilities["palette"])[np.arange(3), labels.attributes["palette"]]
    np.testing.assert_allclose(agreement(only_palette, labels), right)


def test_prompts_tell_the_whole_scene_in_both_languages():
    rich = Scene(
        water="lake", boat="left", mist="right", birds="left", trees="pines", light="moon", pavilion=True, seed=7
    )
    scenes = [rich, Scene(camera="away", palette="dawn")]
    for language in ("en", "zh"):
        prompts = prompts_of(scenes, 3, language)
        assert [parse_caption(prompt) for prompt in prompts] == [replace(scene, seed=0) for scene in scenes]
        assert prompts == prompts_of(scenes, 3, language) != prompts_of(scenes, 4, language)
