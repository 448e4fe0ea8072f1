"""`distill_few_steps.py`: a run on a small model, resumed, whose result `--preset draft` uses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from distill_few_steps import run
from landscape_video.generation.generate_clip import generate_clip
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import ModelSettings, TextToVideoSettings
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.settings.training import FewStepTraining
from motion_adapter.export import export_pipeline
from training_runs import forget_accelerators, log_of


LORA = "few_steps/pytorch_lora_weights.safetensors"


def distill(model, data, output, *flags):
    forget_accelerators()
    given = ["--pretrained_model_name_or_path", model, "--train_data_dir", data, "--output_dir", output]
    small = ["--num_frames_range", "4", "--student_steps", "2", "--teacher_steps", "4", "--rank", "2"]
    small += ["--logging_steps", "1", "--max_train_steps", "3", "--learning_rate", "1e-2", "--preset", "fast"]
    more = ["--mixed_precision", "no", "--train_batch_size", "1", "--validation_steps", "3", *flags]
    return run([str(argument) for argument in (*given, *small, *more)])


def test_a_run_that_was_stopped_ends_with_the_same_adapter_and_a_draft_uses_it(tiny_pipeline, latent_cache, tmp_path):
    model = export_pipeline(tiny_pipeline(), tmp_path / "model", include_code=False)
    assert distill(model, latent_cache, tmp_path / "whole") == 0
    for limit in ("1e-9", "60"):
        flags = ("--max_train_minutes", limit, "--resume_from_checkpoint", "latest")
        assert distill(model, latent_cache, tmp_path / "parts", *flags) == 0
    whole, parts = (load_file(tmp_path / run / LORA) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    lines = log_of(tmp_path / "parts")
    assert [line["step"] for line in lines] == [1, 2, 3] and lines[0].keys() > {"step_1_loss", "step_2_loss"}
    validation = json.loads((tmp_path / "whole" / "validation.jsonl").read_text())
    assert validation["dynamic_degree"] >= 0

    shutil.copytree(tmp_path / "whole" / "few_steps", model / "few_steps")
    pipe = load_pipeline(ModelSettings(model=str(model), device="cpu"))
    clip = generate_clip(pipe, "mist", TextToVideoSettings(num_frames=2, seed=5, interpolate=False, preset="draft"))
    assert clip.frames.shape == (2, 64, 64, 3)


def test_flags_are_checked(tmp_path, capsys):
    settings = parse_settings(FewStepTraining, "", ["--preset", "tiny", "--train_data_dir", str(tmp_path)])
    assert settings.objective.student_steps == 4 and settings.data.caption_dropout_prob == 0
    for flags, message in (
        (["--teacher_steps", "6"], "`teacher_steps` must be a multiple of `student_steps`, 4, and larger, got 6"),
        (["--teacher_steps", "4"], "`teacher_steps` must be a multiple of `student_steps`, 4, and larger, got 4"),
        (["--contrastive_weight", "1"], "unrecognized arguments"),
    ):
        with pytest.raises(SystemExit):
            parse_settings(FewStepTraining, "", ["--preset", "tiny", "--train_data_dir", str(tmp_path), *flags])
        assert message in capsys.readouterr().err
