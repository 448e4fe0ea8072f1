"""`--push_to_hub` of `train_image_retention.py`: pushes the whole pipeline; a failed push loses no training."""

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from retention_runs import run_retention, write_cache_with_first_frames, write_motion_adapter
from tiny_models import build_components
from training_runs import WEIGHTS, status_of


@pytest.fixture
def train(hub, tmp_path):
    """Train for a step, pushing to me/branch: (exit code, output directory)."""
    still = {name: part for name, part in build_components().items() if name != "motion_adapter"}
    extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**still, **extra).save_pretrained(tmp_path / "base")
    adapter = write_motion_adapter(tmp_path / "adapter")
    (tmp_path / "clips").mkdir()
    clips = write_cache_with_first_frames(tmp_path / "clips")

    def train(*flags: str) -> tuple[int, Path]:
        push = ["--push_to_hub", "--hub_model_id", "me/branch", "--hub_license", "mit"]
        push += ["--hub_base_model", "someone/stills", "--max_train_steps", "1"]
        return run_retention(tmp_path / "base", adapter, clips, tmp_path / "run", *push, *flags), tmp_path / "run"

    return train


def test_the_pipeline_is_pushed_with_its_branch(hub, train):
    code, output = train("--learning_rate", "0.00123")
    assert code == 0
    files = hub.repos["me/branch"].files()
    for part in ("image_retention", "motion_adapter"):
        assert files[f"{part}/{WEIGHTS}"] == (output / part / WEIGHTS).read_bytes(), part
    assert {"model_index.json", f"unet/{WEIGHTS}", f"vae/{WEIGHTS}"} <= files.keys()
    card = files["README.md"].decode()
    assert "| learning rate | 0.00123 |" in card and str(output.parent) not in card


def test_a_push_that_fails_says_where_the_weights_are(hub, train):
    hub.refuse = lambda method, path: "cut" if path.endswith("/preupload/main") else None
    code, output = train("--freeze_motion")
    assert code == 1 and status_of(output)["status"] == "failed"
    assert f"Trained: the result is in {output}; the push failed: me/branch: " in status_of(output)["reason"]
    assert (output / "image_retention" / WEIGHTS).is_file()
