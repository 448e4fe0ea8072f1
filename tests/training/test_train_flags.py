"""Flags of `train_motion.py`: every flag has an effect, and wrong ones are refused with a reason."""

import re
import sys
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from safetensors.torch import load_file

from landscape_video.training.data.latent_store import write_shard
from landscape_video.training.objectives import motion_models
from landscape_video.training.objectives.motion_models import checkpoint_layers
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.run.optimization import MuonAdamW, learning_rate_at, make_optimizer
from landscape_video.training.settings.training import MotionTraining
from pipeline_landscape_video import SHANSHUI_TINY
from training_runs import WEIGHTS, digest, forget_accelerators, status_of


parse_args = partial(parse_settings, MotionTraining, "")


@pytest.fixture(scope="module")
def default_weights() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    "flags",
    [
        "--sparse_causal_mode first_previous",
        "--sparse_causal_mode full",
        "--motion_norm frame",
        "--use_motion_mid_block",
        "--motion_max_seq_length 16",
        "--num_frames_range 7",
        "--sample_stride 2",
        "--caption_dropout_prob 1",
        "--contrastive_weight 0.5",
        "--contrastive_temperature 0.5",
        "--negative_threshold 2",
        "--negatives eq10 --negative_threshold 3",
        "--negative_threshold 3",
        "--positives within_threshold",
        "--snr_gamma 1",
        "--slow_motion_prob 1",
        "--slow_motion_prob 1 --standstill_prob 1",
        "--timestep_bias_strategy later",
        "--timestep_bias_strategy earlier",
        "--timestep_bias_strategy later --timestep_bias_portion 0.5",
        "--timestep_bias_strategy later --timestep_bias_multiplier 50",
        "--train_batch_size 1",
        "--gradient_accumulation_steps 2",
        "--optimizer muon",
        "--learning_rate 2e-3",
        "--lr_scheduler cosine",
        "--lr_scheduler constant_with_warmup --lr_warmup_steps 5",
        "--adam_beta1 0.5",
        "--adam_beta2 0.9",
        "--adam_weight_decay 0.5",
        "--adam_epsilon 1e-2",
        "--max_grad_norm 0.001",
        "--use_ema",
        "--use_ema --ema_decay 0.1",
        "--mixed_precision bf16",
        "--seed 1",
    ],
)
def test_every_flag_acts(train, default_weights, flags):
    steps = ("--max_train_steps", "2", "--num_frames_range", "6")
    if not default_weights:
        default_weights["no flags"] = digest(train("default", *steps)[1] / "motion_adapter" / WEIGHTS)
    code, output = train("run", *steps, *flags.split())
    result = digest(output / "motion_adapter" / WEIGHTS)
    assert code == 0
    assert result not in default_weights.values()
    default_weights[flags] = result


@pytest.mark.parametrize(
    ("flags", "called"),
    [
        ("--gradient_checkpointing", ("checkpoint_layers", "all")),
        ("--gradient_checkpointing attention", ("checkpoint_layers", "attention")),
        ("--torch_compile", ("compile_unet",)),
    ],
)
def test_flags_for_memory_and_speed_do_not_change_the_weights(train, monkeypatch, flags, called):
    calls = []
    for name, function in (("checkpoint_layers", checkpoint_layers), ("compile_unet", lambda unet: None)):
        monkeypatch.setattr(
            motion_models,
            name,
            lambda unet, *args, name=name, function=function: calls.append((name, *args)) or function(unet, *args),
        )
    _, plain = train("plain", "--max_train_steps", "1")
    assert not calls
    _, other = train("other", "--max_train_steps", "1", *flags.split())
    assert calls == [called]
    weights = [load_file(output / "motion_adapter" / WEIGHTS) for output in (plain, other)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_learning_rates_are_closed_forms():
    def rates(scheduler: str, steps: list[int]) -> list[float]:
        flags = ["--pretrained_model_name_or_path", "m", "--train_data_dir", "d", "--learning_rate", "1"]
        flags += ["--lr_scheduler", scheduler, "--lr_warmup_steps", "9", "--max_train_steps", "109"]
        args = parse_args(flags)
        return [round(learning_rate_at(step, args.optimization), 6) for step in steps]

    assert rates("constant", [0, 50]) == [1, 1]
    assert rates("constant_with_warmup", [0, 4, 9, 108]) == [0.1, 0.5, 1, 1]
    assert rates("linear", [0, 9, 59, 108]) == [0.1, 1, 0.5, 0.01]
    assert rates("cosine", [0, 9, 34, 59, 109]) == [0.1, 1, 0.853553, 0.5, 0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_frames_range 8 6", "`num_frames_range` must be one number or MIN MAX"),
        ("--num_frames_range 8 9 10", "`num_frames_range` must be one number or MIN MAX"),
        ("--sample_stride 0", "`sample_stride` must be one number or MIN MAX"),
        ("--num_frames_range 5", "`num_frames_range` must start at 6 or more, got 5"),
        (
            "--num_frames_range 8 --negative_threshold 6 --negatives eq10",
            "`num_frames_range` must start at 9 or more, got 8",
        ),
        ("--train_batch_size 0", "`train_batch_size` must be at least 1, got 0"),
        ("--learning_rate 0", "`learning_rate` must be greater than 0, got 0.0"),
        ("--contrastive_weight -1", "`contrastive_weight` must be at least 0, got -1.0"),
        ("--caption_dropout_prob 1.5", "`caption_dropout_prob` must be from 0 to 1, got 1.5"),
        ("--use_8bit_adam --optimizer muon", "`use_8bit_adam` needs `optimizer` adamw, got muon"),
        ("--slow_motion_prob 2", "`slow_motion_prob` must be from 0 to 1, got 2.0"),
        ("--standstill_prob -1", "`freeze_prob` must be from 0 to 1, got -1.0"),
        ("--standstill_prob 1", "`freeze_prob` is a share of slowed-down clips: set `slow_motion_prob` above 0"),
        ("--timestep_bias_portion 1", "`timestep_bias_portion` must be less than 1, got 1.0"),
        ("--timestep_bias_multiplier 0", "`timestep_bias_multiplier` must be greater than 0, got 0.0"),
        ("--no_versatile --no_sparse_causal", "together leave no temporal attention"),
        ("--negatives some", "invalid choice: 'some'"),
        ("--learning_rat 1", "unrecognized arguments: --learning_rat 1"),
    ],
)
def test_wrong_flags_end_with_code_2_and_a_reason(train, capsys, flags, message):
    with pytest.raises(SystemExit) as exit_info:
        train("run", "--max_train_steps", "1", *flags.split())
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_clips_that_do_not_fit_the_model_are_refused(train, tmp_path):
    code, output = train("positions", "--motion_max_seq_length", "7")
    assert code == 1 and "must end at 7 or less, got 8" in status_of(output)["reason"]
    code, output = train("length", "--num_frames_range", "6", "13")
    assert code == 1 and "latents-00000.safetensors, clip 0: 12 frames, but 13" in status_of(output)["reason"]
    code, output = train("resolution", "--resolution", "64")
    assert code == 1 and "`resolution` is for videos" in status_of(output)["reason"]
    write_shard(tmp_path, 0, torch.zeros(1, 8, 8, 8, 8))
    (tmp_path / "captions.jsonl").write_text('{"text": "mist"}\n')
    code, output = train("channels", data=tmp_path)
    assert code == 1 and "have 8 channels, but the UNet takes 4" in status_of(output)["reason"]


def test_a_motion_unet_as_image_model_is_refused(train, image_model):
    path = image_model / "unet" / "config.json"
    config = path.read_text()
    path.write_text(config.replace("UNet2DConditionModel", "UNetMotionModel"))
    try:
        code, output = train("run")
    finally:
        path.write_text(config)
    assert code == 1 and "`unet` must be a UNet2DConditionModel, got UNetMotionModel" in status_of(output)["reason"]


# Presets


def parsed(*flags: str) -> dict:
    settings = parse_args(["--train_data_dir", "d", *flags])
    return {field.name: value for field, value in settings.options()} | {"preset": settings.preset}


def test_the_paper_is_the_default():
    model = ("--pretrained_model_name_or_path", "m")
    assert parsed(*model) == parsed(*model, "--preset", "paper")
    paper = parsed(*model)
    expected = {
        "num_frames_range": (8, 8), "train_batch_size": 1, "learning_rate": 1e-5, "max_train_steps": 40_000,
        "contrastive_temperature": 0.07, "negative_threshold": 4, "contrastive_weight": 0.07, "max_grad_norm": 1.0,
        "caption_dropout_prob": 0.1, "adam_weight_decay": 1e-2, "validation_steps": None, "report_to": (),
    }  # fmt: skip
    assert {name: paper[name] for name in expected} == expected


@pytest.mark.parametrize("preset", ["fast", "tiny"])
def test_a_preset_changes_defaults_and_flags_come_first(preset):
    model = ("--pretrained_model_name_or_path", "m")
    values = parsed(*model, "--preset", preset, "--train_batch_size", "3")
    assert values["train_batch_size"] == 3
    expected = MotionTraining.PRESETS[preset] | {"train_batch_size": 3, "pretrained_model_name_or_path": "m"}
    assert {name: values[name] for name in expected} == expected
    differing = {name for name, value in parsed(*model).items() if values[name] != value}
    assert differing == set(expected) - {"pretrained_model_name_or_path"} | {"preset"}


def test_the_tiny_preset_names_its_image_model():
    assert parsed("--preset", "tiny")["pretrained_model_name_or_path"] == str(SHANSHUI_TINY)
    with pytest.raises(SystemExit, match="2"):
        parsed("--preset", "fast")


def test_muon_evens_out_singular_values_of_matrices_and_leaves_the_rest_to_adamw():
    torch.manual_seed(0)
    matrix, bias = (torch.nn.Parameter(torch.zeros(size)) for size in ((8, 6), (8,)))
    matrix.grad, bias.grad = torch.randn(8, 6) @ torch.diag(torch.logspace(-1, 1, 6)), torch.randn(8)
    MuonAdamW([matrix, bias], lr=0.1, weight_decay=0).step()
    singular_values = torch.linalg.svdvals(matrix.detach())
    assert singular_values.max() / singular_values.min() < 2  # 100 and more in the gradient
    assert matrix.pow(2).mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.3)  # AdamW's length, as Muon has it
    torch.testing.assert_close(bias.detach(), -0.1 * bias.grad.sign(), rtol=1e-4, atol=1e-6)


def test_8_bit_adam_needs_bitsandbytes(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)  # as if it were not there
    code, output = train("run", "--use_8bit_adam")
    assert code == 1 and "pip install bitsandbytes" in status_of(output)["reason"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_skipped_by_a_float16_overflow_is_reported_as_skipped(optimizer):
    required = ("--pretrained_model_name_or_path", "model", "--train_data_dir", "clips", "--output_dir", "run")
    args = parse_args([*required, "--mixed_precision", "fp16", "--optimizer", optimizer])
    forget_accelerators()
    Accelerator(cpu=True)  # whose state the optimizer asks
    weight = torch.nn.Parameter(torch.ones(2, 2))
    prepared = AcceleratedOptimizer(make_optimizer([weight], args.optimization), scaler=torch.amp.GradScaler("cpu"))
    for factor, skipped in ((1.0, False), (torch.inf, True)):
        prepared.scaler.scale(weight.sum() * factor).backward()
        prepared.step()
        prepared.zero_grad()
        assert prepared.step_was_skipped is skipped and weight.isfinite().all()
