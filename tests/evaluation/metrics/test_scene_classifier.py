"""A classifier file carries the names of its classes, and other files are refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, label_index


ATTRIBUTES = {"palette": ("ink", "snow"), "boat": ("none", "any"), "light": ("none", "sun", "moon")}


def test_a_file_carries_everything(tmp_path):
    torch.manual_seed(0)
    classifier = SceneClassifier(ATTRIBUTES, valid=("palette", "light")).eval()
    classifier.save(tmp_path / "my-scenes.safetensors")
    loaded = SceneClassifier.load(tmp_path / "my-scenes.safetensors")
    assert loaded.name == "my-scenes" and loaded.attributes == ATTRIBUTES and loaded.motifs == ("light",)
    assert "my-scenes, sha256 " in loaded.description and "64 x 64, valid for palette, light" in loaded.description
    clip = np.random.default_rng(0).integers(0, 256, (7, 40, 60, 3), dtype=np.uint8)
    seen = loaded.classify(clip)
    for name, probabilities in classifier.classify(clip).items():
        np.testing.assert_array_equal(seen[name], probabilities)
        assert probabilities.shape == (len(ATTRIBUTES[name]),) and probabilities.sum() == pytest.approx(1)


def test_labels_become_indices():
    assert [label_index(ATTRIBUTES["light"], label) for label in ("none", False, "sun", "moon")] == [0, 0, 1, 2]
    assert [label_index(ATTRIBUTES["boat"], label) for label in ("none", False, "left", True)] == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="a label must be one of none, sun, moon, got 'star'"):
        label_index(ATTRIBUTES["light"], "star")


def test_files_that_are_no_classifier(tmp_path):
    file = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="x.safetensors: no such file"):
        SceneClassifier.load(file)
    save_file({"weight": torch.zeros(1)}, file, metadata={"scene_classifier": '{"attributes": {"palette": ["ink"]}}'})
    for content in (file.read_bytes(), b"no weights"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="x.safetensors: not a scene classifier"):
            SceneClassifier.load(file)
    save_file({"weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="x.safetensors: not a scene classifier"):
        SceneClassifier.load(file)
