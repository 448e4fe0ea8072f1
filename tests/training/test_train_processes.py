"""Two processes train what one trains with twice the accumulation: whole, or split by FSDP or DeepSpeed."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import is_deepspeed_available
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from safetensors.torch import load_file

from training_runs import WEIGHTS, launch_trainer, log_of, status_of


LAUNCH = Path(__file__).parents[2] / "examples" / "launch"
# Adam divides a gradient that is all rounding by itself: the larger epsilon keeps such weights where they are.
FLAGS = (
    *("--max_train_steps", "3", "--logging_steps", "1", "--train_batch_size", "1", "--use_ema"),
    *("--adam_epsilon", "1e-4", "--checkpointing_steps", "2"),
)


def fsdp_environment() -> dict[str, str]:
    """What `accelerate launch --config_file examples/launch/fsdp.yaml` tells its processes about FSDP."""
    return told_about("FSDP", prepare_multi_gpu_env(launch_arguments("fsdp.yaml")))


def deepspeed_environment() -> dict[str, str]:
    """The same of examples/launch/deepspeed.yaml and DeepSpeed."""
    arguments = launch_arguments("deepspeed.yaml")
    arguments.deepspeed_fields_from_accelerate_config = ""
    return told_about("DEEPSPEED", prepare_deepspeed_cmd_env(arguments)[1])


def launch_arguments(config: str) -> Namespace:
    command = ["--config_file", str(LAUNCH / config), "--mixed_precision", "no", "train_motion.py"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    return arguments


def told_about(word: str, environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if word in name}


@pytest.fixture(scope="module")
def alone(image_model, latent_cache, tmp_path_factory) -> Path:
    """The run of one process, with twice the accumulation."""
    output_dir = tmp_path_factory.mktemp("alone") / "run"
    flags = (*FLAGS, "--gradient_accumulation_steps", "2")
    launch_trainer(1, image_model, latent_cache, output_dir, *flags)
    return output_dir


def assert_same_weights(output_dir: Path, expected: Path) -> None:
    for file in (f"motion_adapter/{WEIGHTS}", f"noise_adapter/{WEIGHTS}", "checkpoint-3/training_state.safetensors"):
        torch.testing.assert_close(load_file(output_dir / file), load_file(expected / file), rtol=1e-5, atol=1e-6)


def assert_same_log(output_dir: Path, expected: Path) -> None:
    for key in ("diffusion_loss", "contrastive_loss", "grad_norm"):
        values = [[line[key] for line in log_of(output)] for output in (output_dir, expected)]
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)


def test_two_processes_train_what_one_does(alone, image_model, latent_cache, tmp_path):
    together = tmp_path / "together"
    launch_trainer(2, image_model, latent_cache, together, *FLAGS)
    assert_same_log(together, alone)
    assert_same_weights(together, alone)


def assert_split_and_whole_runs_resume_each_other(
    folder: Path, alone: Path, models: tuple[Path, Path], *flags: str, **environment: str
) -> None:
    """Two processes that split weights or moments train as one does, from the start and from its checkpoint."""
    split, resumed, whole = (folder / name for name in ("split", "resumed", "whole"))
    validation = ("--validation_steps", "3", "--validation_inference_steps", "1")
    launch_trainer(2, *models, split, *FLAGS, *flags, *validation, **environment)
    assert_same_log(split, alone)
    assert_same_weights(split, alone)
    assert (split / "validation" / "step-000003.mp4").exists()

    # They resume what one process saved, and one process what they saved.
    launch_trainer(2, *models, resumed, *FLAGS, "--resume_from_checkpoint", str(alone / "checkpoint-2"), **environment)
    assert_same_weights(resumed, alone)
    accumulated = (*FLAGS, "--gradient_accumulation_steps", "2")
    launch_trainer(1, *models, whole, *accumulated, "--resume_from_checkpoint", str(split / "checkpoint-2"))
    assert_same_weights(whole, alone)


@pytest.mark.long  # starts five processes, and torch itself has crashed in one of nine tries (malloc) on a CPU
def test_processes_that_split_the_weights_train_what_one_does(alone, image_model, latent_cache, tmp_path):
    environment = fsdp_environment()
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    models = (image_model, latent_cache)
    assert_split_and_whole_runs_resume_each_other(tmp_path, alone, models, "--gradient_checkpointing", **environment)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["1", "2"])
def test_processes_that_split_the_moments_train_what_one_does(stage, alone, image_model, latent_cache, tmp_path):
    pytest.importorskip("deepspeed", reason="compiles itself and a GPU's kernels: no part of the test extra")
    environment = deepspeed_environment() | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": stage, "DS_ACCELERATOR": "cpu"}
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert_split_and_whole_runs_resume_each_other(tmp_path, alone, (image_model, latent_cache), **environment)


@pytest.mark.parametrize(
    ("variable", "flag", "line"),
    [
        (("FSDP_VERSION", "1"), (), "set `fsdp_version: 2`"),
        (("FSDP_ACTIVATION_CHECKPOINTING", "true"), (), "Use --gradient_checkpointing"),
        (("FSDP_RESHARD_AFTER_FORWARD", "false"), (), "Weights must be split again"),
        (("FSDP_OFFLOAD_PARAMS", "true"), (), "offloading is not supported"),
        (("FSDP_VERSION", "2"), ("--use_8bit_adam",), "`use_8bit_adam` does not work"),
        (("FSDP_VERSION", "2"), ("--optimizer", "muon"), "`optimizer` muon does not work"),
        (("FSDP_VERSION", "2"), ("--torch_compile",), "`torch_compile` does not work"),
        (("FSDP_VERSION", "2"), ("--mixed_precision", "fp16"), "use bf16"),
    ],
)
def test_settings_that_do_not_work_with_fsdp_are_refused(train, monkeypatch, variable, flag, line):
    for name, value in (*fsdp_environment().items(), variable):
        monkeypatch.setenv(name, value)
    code, output_dir = train("run", *flag)
    assert code == 1 and line in status_of(output_dir)["reason"]


@pytest.mark.parametrize(
    ("variable", "flag", "line"),
    [
        ("ZERO_STAGE=3", (), "works here in stages 1 and 2, not 3: FSDP splits the weights"),
        ("OFFLOAD_OPTIMIZER_DEVICE=cpu", (), "offloading is not supported"),
        ("OFFLOAD_PARAM_DEVICE=nvme", (), "offloading is not supported"),
        ("CONFIG_FILE=ds.json", (), "own configuration file is not read"),
        ("ZERO_STAGE=2", ("--use_8bit_adam",), "`use_8bit_adam` does not work"),
        ("ZERO_STAGE=2", ("--optimizer", "muon"), "`optimizer` muon does not work"),
        ("ZERO_STAGE=2", ("--torch_compile",), "`torch_compile` does not work"),
        ("ZERO_STAGE=2", ("--mixed_precision", "fp16"), "use bf16"),
        *([] if is_deepspeed_available() else [("ZERO_STAGE=2", (), "is not installed: `pip install deepspeed`")]),
    ],
)
def test_settings_that_do_not_work_with_deepspeed_are_refused(train, monkeypatch, variable, flag, line):
    setting, wrong = variable.split("=")
    for name, value in (deepspeed_environment() | {f"ACCELERATE_DEEPSPEED_{setting}": wrong}).items():
        monkeypatch.setenv(name, value)
    code, output_dir = train("run", *flag)
    assert code == 1 and line in status_of(output_dir)["reason"]
