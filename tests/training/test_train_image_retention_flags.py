"""The command line of `train_image_retention.py`."""

from pathlib import Path

import pytest

from landscape_video.training.run import train_motion_args
from landscape_video.training.run.train_image_retention_args import PRESETS, parse_args
from pipeline_landscape_video import SHANSHUI_TINY


REQUIRED = ("--pretrained_model_name_or_path", "a/model", "--train_data_dir", "clips")
STEPS = ("--validation_steps", "5")
ADAPTER = ("--motion_adapter_name_or_path", "an/adapter")


def test_presets_are_those_of_the_motion_trainer_with_what_pictures_need():
    assert PRESETS.keys() == train_motion_args.PRESETS.keys()
    args = parse_args([*REQUIRED, *ADAPTER])
    assert args.contrastive_weight == 0 and not args.freeze_motion and args.image_dropout_prob == 0.1
    assert (args.train_batch_size, args.max_train_steps, args.output_dir) == (9, 23_611, Path("image-retention"))
    args = parse_args(["--preset", "tiny", "--train_data_dir", "clips"])
    assert args.freeze_motion and args.motion_adapter_name_or_path == str(SHANSHUI_TINY / "motion_adapter")
    assert args.resolution == train_motion_args.PRESETS["tiny"]["resolution"]
    assert not parse_args(["--preset", "tiny", "--train_data_dir", "clips", "--no-freeze_motion"]).freeze_motion


def test_the_adapter_beside_the_image_model_is_taken(tmp_path):
    (tmp_path / "motion_adapter").mkdir()
    args = parse_args(["--pretrained_model_name_or_path", str(tmp_path), "--train_data_dir", "clips"])
    assert args.motion_adapter_name_or_path == str(tmp_path / "motion_adapter")
    args = parse_args(["--pretrained_model_name_or_path", "shanshui-tiny", "--train_data_dir", "clips"])
    assert args.motion_adapter_name_or_path == str(SHANSHUI_TINY / "motion_adapter")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "a/model holds no motion_adapter/: name one with --motion_adapter_name_or_path"),
        ((*ADAPTER, "--first_frame_weight", "0"), "--first_frame_weight is 0.0, but has to be above 0"),
        ((*ADAPTER, "--image_dropout_prob", "1.5"), "--image_dropout_prob is 1.5, but has to be between 0 and 1"),
        ((*ADAPTER, "--validation_images", "a.png"), "--validation_images need --validation_steps"),
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
            "--validation_images has 2 pictures, but --validation_prompts 1 texts",
        ),
        (
            (*ADAPTER, "--validation_steps", "5", "--validation_images", "a.png", "--validation_prompts", "a"),
            "there is no file a.png",
        ),
        ((*ADAPTER, "--sparse_causal_mode", "full"), "unrecognized arguments: --sparse_causal_mode"),
        ((*ADAPTER, "--learning_rate", "0"), "--learning_rate is 0.0, but has to be above 0"),
    ],
)
def test_wrong_flags_are_refused_with_a_reason(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        parse_args([*REQUIRED, *flags])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_push_needs_what_a_pipeline_is_made_of(tmp_path, capsys):
    (tmp_path / "motion_adapter").mkdir()
    flags = ["--pretrained_model_name_or_path", str(tmp_path), "--train_data_dir", "clips", "--push_to_hub"]
    flags += ["--hub_model_id", "me/branch", "--hub_license", "mit", "--hub_base_model", "someone/stills"]
    with pytest.raises(SystemExit) as ended:
        parse_args(flags)
    assert ended.value.code == 2 and f"{tmp_path} has no model_index.json" in capsys.readouterr().err
    (tmp_path / "model_index.json").write_text("{}")
    assert parse_args(flags).push_to_hub


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED"])
def test_a_launch_that_splits_models_is_refused(way, monkeypatch, capsys):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(SystemExit) as ended:
        parse_args([*REQUIRED, *ADAPTER])
    assert ended.value.code == 2 and "launch it without FSDP and DeepSpeed" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for words in ("first frame", "--freeze_motion, --no-freeze_motion", "white picture", "Exit codes: 0 finished"):
        assert words in text, words
