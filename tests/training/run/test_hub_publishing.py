"""`--push_to_hub` of `train_motion.py`: pushes at the end or at checkpoints; a failed push loses no training."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard

from landscape_video.training.data.latent_store import write_shard
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.settings.training import MotionTraining
from pipeline_landscape_video import SHANSHUI_TINY
from tiny_models import build_components
from train_motion import run
from training_runs import forget_accelerators


parse_args = partial(parse_settings, MotionTraining, "")


@pytest.fixture
def base(tmp_path) -> Path:
    """A base model in Stable Diffusion's layout."""
    still = {name: part for name, part in build_components().items() if name != "motion_adapter"}
    extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**still, **extra).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def train(hub, base, tmp_path):
    """Train for two steps with a checkpoint after each, pushing to me/motion: (exit code, output directory)."""
    files = {path.relative_to(base).as_posix(): path.read_bytes() for path in base.rglob("*") if path.is_file()}
    hub.create("someone/stills", files)
    (tmp_path / "cache").mkdir()
    write_shard(tmp_path / "cache", 0, torch.randn(2, 8, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    rows = [{"text": f"mist over mountains {number}"} for number in range(2)]
    (tmp_path / "cache" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def train(*flags: str) -> tuple[int, Path]:
        forget_accelerators()
        arguments = ["--pretrained_model_name_or_path", str(base), "--train_data_dir", str(tmp_path / "cache")]
        arguments += ["--num_frames_range", "6", "--max_train_steps", "2", "--checkpointing_steps", "1"]
        arguments += ["--push_to_hub", "--hub_model_id", "me/motion", "--hub_license", "mit"]
        arguments += ["--hub_base_model", "someone/stills", "--output_dir", str(tmp_path / "run")]
        return run([*arguments, *flags]), tmp_path / "run"

    return train


def test_the_adapter_is_pushed_with_the_figures_of_its_training(hub, train):
    code, output_dir = train("--learning_rate", "0.00123")
    assert code == 0
    repo = hub.repos["me/motion"]
    assert [message for _, message, _ in repo.commits] == ["initial commit", "Add motion adapter"]
    name = "diffusion_pytorch_model.safetensors"
    assert repo.files()[name] == (output_dir / "motion_adapter" / name).read_bytes()
    card = repo.files()["README.md"].decode()
    assert ModelCard(card).data.base_model == "someone/stills"
    for row in (
        "| learning rate | 0.00123 |",
        "| clips | 2 |",
        "| step | 2 |",
        "| diffusion loss | ",
        "| processes | 1 |",
    ):
        assert row in card, row
    assert str(output_dir.parent) not in card


def test_every_checkpoint_can_be_pushed_and_a_failure_in_between_stops_nothing(hub, train, caplog, tmp_path):
    def refuse(method: str, path: str) -> str | None:
        only_the_first = not (tmp_path / "run" / "checkpoint-2").exists()
        return "cut" if path.endswith("/preupload/main") and only_the_first else None

    hub.refuse = refuse
    code, _ = train("--hub_strategy", "every_save", "--max_train_steps", "3")
    assert code == 0
    assert "Not pushed, training continues: me/motion: the Hub" in caplog.text
    # Of the three checkpoints the first broke; the last is the result.
    assert len(hub.repos["me/motion"].commits) == 3


def test_what_was_trained_stays_when_the_push_at_the_end_is_refused(hub, train):
    hub.refuse = lambda method, path: 403 if "/commit/" in path else None
    code, output_dir = train()
    assert code == 1
    status = json.loads((output_dir / "status.json").read_text())
    assert status["status"] == "failed"
    assert "the push failed: me/motion: your token may not do this" in status["reason"]
    assert f"landscape-video push {output_dir / 'motion_adapter'} me/motion --license mit" in status["reason"]
    assert (output_dir / "motion_adapter" / "training.json").is_file()


def test_with_a_token_that_may_not_write_training_does_not_start(hub, train):
    hub.refuse = lambda method, path: 403 if path.endswith("/api/repos/create") else None
    code, output_dir = train()
    assert code == 1
    assert "your token may not do this" in json.loads((output_dir / "status.json").read_text())["reason"]
    assert not (output_dir / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("token", "message"),
    [("", "this machine has no token: log in"), ("nonsense", "the Hub does not know you: log in")],
)
def test_without_a_valid_token_training_does_not_start(hub, train, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    code, output_dir = train()
    assert code == 1
    status = json.loads((output_dir / "status.json").read_text())
    assert status["reason"].startswith(f"me/motion: {message}")
    assert not (output_dir / "log.jsonl").exists()


REQUIRED = ["--train_data_dir", "clips", "--pretrained_model_name_or_path"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a/b", "--push_to_hub"], "`push_to_hub` needs `hub_model_id` (USER/NAME) and `hub_license`"),
        (["a/b", "--hub_model_id", "me/x"], "`hub_...` settings need `push_to_hub`"),
        (["a/b", "--hub_private"], "`hub_...` settings need `push_to_hub`"),
        (["a/b", "--push_to_hub", "--hub_model_id", "x", "--hub_license", "mit"], "'x' is not a name on the Hub"),
        (["a/b", "--push_to_hub", "--hub_model_id", "me/x", "--hub_license", "m"], "the Hub knows, got 'm'"),
        (["a/b", "--push_to_hub", "--hub_model_id", "me/x", "--hub_license", "other"], "push later with `landscape-"),
        (
            [".", "--push_to_hub", "--hub_model_id", "me/x", "--hub_license", "mit"],
            "`push_to_hub` needs `hub_base_model`",
        ),
    ],
)
def test_flags_with_which_the_push_would_fail_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_args([*REQUIRED, *flags])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_base_model_has_its_public_name(base):
    assert parse_args([*REQUIRED, "someone/stills"]).base_model == "someone/stills"
    assert parse_args([*REQUIRED, "shanshui-tiny"]).base_model == "shanshui-tiny"
    assert parse_args([*REQUIRED, str(SHANSHUI_TINY)]).base_model == "shanshui-tiny"
    assert parse_args([*REQUIRED, str(base)]).base_model is None
    pushing = ["--push_to_hub", "--hub_model_id", "me/x", "--hub_license", "mit", "--hub_base_model", "a/b"]
    assert parse_args([*REQUIRED, str(base), *pushing]).base_model == "a/b"
