"""The scene classifier learns palettes in seconds, and the autoencoder's reconstructions are part of its data."""

import json

import numpy as np
import pytest
import torch

from landscape_video.evaluation.metrics.scene_classifier import shrink
from shanshui.measuring.classifier_training import (
    ATTRIBUTES,
    disturb,
    get_classifier,
    labels_of,
    reconstruct,
    train_classifier,
)
from shanshui.measuring.predictions import classify_clips
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import PALETTES, Scene


RICH = Scene(water="lake", boat="left", mist="right", birds="left", trees="pines", light="moon", pavilion=True, seed=7)


def test_the_classifier_learns(palette_classifier):
    scenes = [Scene(palette=palette, layers=2, seed=100) for palette in PALETTES]
    clips = [render_clip(scene, [0.0, 1.0], 64, 64) for scene in scenes]
    probabilities = classify_clips(palette_classifier, clips)
    assert (probabilities["palette"].argmax(1) == labels_of(scenes)["palette"]).mean() >= 0.8
    assert set(probabilities) == set(ATTRIBUTES)


def test_losses_are_logged(tmp_path):
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    train_classifier(frames, labels_of([Scene()] * 4), tmp_path / "log.jsonl", steps=51, batch_size=2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 51] and set(lines[0]) == {"step", *ATTRIBUTES}


def test_disturbances_keep_the_image():
    frames = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    disturbed = disturb(frames, torch.Generator().manual_seed(1))
    assert disturbed.shape == frames.shape and not torch.equal(disturbed, frames)
    assert (disturbed.mean((2, 3)) - frames.mean((2, 3))).abs().max() < 0.12


def test_labels_tell_presence_of_what_moves():
    labels = labels_of([RICH, Scene()])
    assert [labels[name].tolist() for name in ("boat", "mist", "birds", "trees")] == [[1, 0]] * 4
    assert labels["light"].tolist() == [2, 0] and labels["water"].tolist() == [1, 0]
    assert labels["pavilion"].tolist() == [1, 0] and labels["waterfall"].tolist() == [0, 0]


def test_another_autoencoder_needs_another_classifier(tiny_components, tmp_path):
    scenes = [Scene(palette=palette) for palette in PALETTES[:2]]
    clips = np.stack([render_clip(scene, [0.0, 1.0], 64, 64) for scene in scenes])
    vae, file = tiny_components()["vae"], tmp_path / "classifier.safetensors"
    get_classifier(clips, scenes, vae, tmp_path, steps=1, device="cpu")
    written = file.stat().st_mtime_ns
    get_classifier(clips, scenes, vae, tmp_path, steps=1, device="cpu")
    assert file.stat().st_mtime_ns == written
    vae.decoder.conv_out.bias.data += 0.1
    get_classifier(clips, scenes, vae, tmp_path, steps=1, device="cpu")
    assert file.stat().st_mtime_ns != written


def test_reconstructions_do_not_depend_on_the_chunk(tiny_components):
    frames = render_clip(RICH, [0.0, 1.0], 64, 64)
    vae = tiny_components()["vae"]
    rebuilt = reconstruct(vae, frames, chunk_size=1)
    assert rebuilt.shape == frames.shape and rebuilt.dtype == np.uint8
    np.testing.assert_allclose(rebuilt.astype(int), reconstruct(vae, frames), atol=1)
    assert shrink(rebuilt).shape == (2, 64, 64, 3)


def test_a_tree_that_is_not_in_the_data_is_refused():
    with pytest.raises(ValueError, match="a label must be one of none, pines, got 'bamboo'"):
        labels_of([Scene(trees="bamboo")])
