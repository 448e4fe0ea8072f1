"""`cache_latents.py`: a folder of videos becomes a latent cache, or one line says why not."""

from pathlib import Path

import pytest

from cache_latents import run
from landscape_video.training.data.latent_store import LatentCache
from tiny_models import build_vae
from video_files import make_video_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_video_folder(tmp_path_factory.mktemp("videos"), [20, 9])


def test_videos_are_encoded_into_a_cache_of_equal_lengths(folder, tmp_path, caplog):
    build_vae().save_pretrained(tmp_path / "model" / "vae")
    flags = ["--pretrained_model_name_or_path", str(tmp_path / "model"), "--train_data_dir", str(folder)]
    flags += ["--output_dir", str(tmp_path / "cache"), "--resolution", "32"]
    assert run([*flags, "--num_frames", "12"]) == 1
    assert "1.mp4: 9 frames, but 12" in caplog.text and not (tmp_path / "cache").exists()
    assert run([*flags, "--num_frames", "8"]) == 0
    assert LatentCache(tmp_path / "cache").lengths == [8, 8]
    with pytest.raises(SystemExit, match="2"):
        run(flags)
