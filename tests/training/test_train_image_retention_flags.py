"""Flags of `train_image_retention.py`."""

from functools import partial
from pathlib import Path

import pytest

from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.settings.training import MotionTraining, RetentionTraining
from pipeline_landscape_video import SHANSHUI_TINY
from train_image_retention import run


parse_args = partial(parse_settings, RetentionTraining, "")
REQUIRED = ("--pretrained_model_name_or_path", "a/model", "--train_data_dir", "clips")
STEPS = ("--validation_steps", "5")
ADAPTER = ("--motion_adapter_name_or_path", "an/adapter")


def test_presets_extend_those_of_train_motion():
    assert RetentionTraining.PRESETS.keys() == MotionTraining.PRESETS.keys()
    args = parse_args([*REQUIRED, *ADAPTER])
    assert (
        args.objective.contrastive_weight == 0
        and not args.model.freeze_motion
        and args.images.image_dropout_prob == 0.1
    )
    assert (args.optimization.train_batch_size, args.optimization.max_train_steps, args.run.output_dir) == (
        9,
        23_611,
        Path("image-retention"),
    )
    args = parse_args(["--preset", "tiny", "--train_data_dir", "clips"])
    assert args.model.freeze_motion and args.model.motion_adapter_name_or_path == str(SHANSHUI_TINY / "motion_adapter")
    assert args.data.resolution == MotionTraining.PRESETS["tiny"]["resolution"]
    assert not parse_args(["--preset", "tiny", "--train_data_dir", "clips", "--no-freeze_motion"]).model.freeze_motion


def test_the_adapter_in_the_image_models_folder_is_the_default(tmp_path):
    (tmp_path / "motion_adapter").mkdir()
    args = parse_args(["--pretrained_model_name_or_path", str(tmp_path), "--train_data_dir", "clips"])
    assert args.model.motion_adapter_name_or_path == str(tmp_path / "motion_adapter")
    args = parse_args(["--pretrained_model_name_or_path", "shanshui-tiny", "--train_data_dir", "clips"])
    assert args.model.motion_adapter_name_or_path == str(SHANSHUI_TINY / "motion_adapter")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "a/model has no motion_adapter/"),
        ((*ADAPTER, "--first_frame_weight", "0"), "`first_frame_weight` must be greater than 0, got 0.0"),
        ((*ADAPTER, "--image_dropout_prob", "1.5"), "`image_dropout_prob` must be from 0 to 1, got 1.5"),
        (
            (*ADAPTER, "--validation_images", "a.png"),
            "`validation_images` are for validation clips: set `validation_steps`",
        ),
        (
            (
                *ADAPTER,
                "--validation_steps",
                "5",
                "--validation_images",
                "a.png",
                "b.png",
                "--validation_prompts",
                "a",
            ),
            "`validation_images` must be as many as `validation_prompts`, got 2 and 1",
        ),
        (
            (*ADAPTER, "--validation_steps", "5", "--validation_images", "a.png", "--validation_prompts", "a"),
            "`validation_images` must be existing files, got a.png",
        ),
        ((*ADAPTER, "--sparse_causal_mode", "full"), "unrecognized arguments: --sparse_causal_mode"),
        ((*ADAPTER, "--learning_rate", "0"), "`learning_rate` must be greater than 0, got 0.0"),
    ],
)
def test_wrong_flags_are_refused_with_a_reason(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        parse_args([*REQUIRED, *flags])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_push_needs_a_whole_pipeline(tmp_path, capsys):
    (tmp_path / "motion_adapter").mkdir()
    flags = ["--pretrained_model_name_or_path", str(tmp_path), "--train_data_dir", "clips", "--push_to_hub"]
    flags += ["--hub_model_id", "me/branch", "--hub_license", "mit", "--hub_base_model", "someone/stills"]
    with pytest.raises(SystemExit) as ended:
        parse_args(flags)
    assert ended.value.code == 2 and f"{tmp_path} has no model_index.json" in capsys.readouterr().err
    (tmp_path / "model_index.json").write_text("{}")
    assert parse_args(flags).hub.push_to_hub


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED"])
def test_a_launch_that_splits_models_is_refused(way, monkeypatch, capsys):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(SystemExit) as ended:
        parse_args([*REQUIRED, *ADAPTER])
    assert ended.value.code == 2 and "launch without FSDP and DeepSpeed" in capsys.readouterr().err


def test_help_explains_images_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        run(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for words in (
        "first frame",
        "--freeze_motion, --no-freeze_motion",
        "null image (white)",
        "exit codes: 0 finished",
    ):
        assert words in text, words
