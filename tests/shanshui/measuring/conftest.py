"""Fixtures of the tests of shanshui-tiny's measurements."""

import numpy as np
import pytest

from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, shrink
from shanshui.measuring.classifier_training import labels_of, train_classifier
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import PALETTES, Scene


@pytest.fixture(scope="session")
def palette_classifier(tmp_path_factory) -> SceneClassifier:
    """Trained for seconds, on frames of 40 scenes: enough to know palettes."""
    scenes = [Scene(palette=palette, layers=2, seed=seed) for seed in range(8) for palette in PALETTES]
    frames = shrink(np.concatenate([render_clip(scene, [0.5], 64, 64) for scene in scenes]))
    log = tmp_path_factory.mktemp("classifier") / "log.jsonl"
    classifier = train_classifier(frames, labels_of(scenes), log, steps=40, batch_size=20)
    classifier.valid = ("palette",)
    return classifier
