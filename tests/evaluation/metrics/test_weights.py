"""Weights of metrics and models: where they are found, and the hash that is reported with every number."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from hub_runs import files_of
from landscape_video.evaluation.metrics.video_features import ClipScorer
from landscape_video.evaluation.metrics.weights import find_folder, hash_configs, hash_weights
from landscape_video.evaluation.systems.text_to_video import DEFAULTS, FORMS, SystemSpec
from motion_adapter.export import export_pipeline
from pipeline_landscape_video import SHANSHUI_TINY


def test_the_hash_of_one_file_is_its_own(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"mist")
    own = sha256(b"mist").hexdigest()
    assert hash_weights(tmp_path) == hash_weights(tmp_path / "model.safetensors") == own
    # Several files: names and contents count, other files do not.
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.bin").write_bytes(b"rain")
    several, configs = hash_weights(tmp_path), hash_configs(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert several == hash_weights(tmp_path) != own
    assert configs != hash_configs(tmp_path) and hash_configs(tmp_path / "model.safetensors") is None
    (tmp_path / "unet" / "weights.bin").rename(tmp_path / "unet" / "other.bin")
    assert hash_weights(tmp_path) != several


def test_a_folder_without_weights_has_no_hash(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights found"):
        hash_weights(tmp_path)


def test_a_clip_from_the_hub(hub):
    hub.create("me/clip", files_of(SHANSHUI_TINY / "clip") | {"code.py": b"raise SystemExit"})
    scorer = ClipScorer("me/clip")
    assert scorer.name == "clip" and scorer.sha256 == hash_weights(SHANSHUI_TINY / "clip")
    assert not (find_folder("me/clip") / "code.py").exists()
    with pytest.raises(ValueError, match="me/none is not on the Hub"):
        ClipScorer("me/none")


def test_a_pipeline_from_the_hub_paints_as_its_folder_does(hub, tiny_pipeline, tmp_path):
    folder = export_pipeline(tiny_pipeline(), tmp_path / "export")
    hub.create("me/mountains", files_of(folder))
    settings = replace(DEFAULTS, num_frames=3, steps=1)
    specs = [SystemSpec("ours", "landscape", model, settings=settings) for model in ("me/mountains", str(folder))]
    clips = [FORMS["landscape"](spec, "cpu").generate("mist", 2) for spec in specs]
    np.testing.assert_array_equal(*clips)
    assert specs[0].record()["model_sha256"] == specs[1].record()["model_sha256"]
    with pytest.raises(ValueError, match="^ours: me/none is not on the Hub"):
        FORMS["landscape"](SystemSpec("ours", "landscape", "me/none"), "cpu")


@pytest.mark.parametrize("source", ["./none", "/none/clip", "none", "a/b/c"])
def test_paths_that_are_not_there(source):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_folder(source)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "clip.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="got a file"):
        find_folder(Path(tmp_path / "clip.pt"))
