"""Runs of `train_motion.py` in the tests' own process, on small real models, and what they leave behind."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from landscape_video.training.data.latent_store import write_shard
from processes import launch
from tiny_models import build_components
from train_motion import run


WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_image_model(directory: Path) -> Path:
    """An image model in Stable Diffusion's layout."""
    components = build_components()
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        components[name].save_pretrained(directory / name)
    return directory


def write_latent_cache(directory: Path) -> Path:
    """Five clips of 12 frames with two captions each; with batches of 2, steps and epochs do not meet."""
    generator = torch.Generator().manual_seed(0)
    for number, clips in enumerate((3, 2)):
        write_shard(directory, number, torch.randn(clips, 12, 4, 8, 8, generator=generator))
    rows = [{"text": f"mist over mountains {number}", "texts": [f"a boat, {number}"]} for number in range(5)]
    (directory / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def forget_accelerators() -> None:
    """Leave accelerate as a new process would find it."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def run_trainer(model: Path, data: Path, output_dir: Path, *flags: str) -> int:
    """The exit code of the trainer with small defaults, which `flags` may override."""
    forget_accelerators()
    required = ["--pretrained_model_name_or_path", str(model), "--train_data_dir", str(data)]
    defaults = ["--num_frames_range", "6", "8", "--train_batch_size", "2", "--learning_rate", "1e-3"]
    return run([*required, *defaults, "--output_dir", str(output_dir), *flags])


def launch_trainer(count: int, model: Path, data: Path, output_dir: Path, *flags: str, **environment: str) -> None:
    """Train in `count` processes as a launcher would start them."""
    launch(count, _run_launched, model, data, output_dir, *flags, **environment)


def _run_launched(*arguments: Any) -> None:
    raise SystemExit(run_trainer(*arguments))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(output_dir: Path, step: int) -> list[str]:
    """Of all that a run ends with: both adapters, and the weights, moments and averages in the last checkpoint."""
    return [
        digest(output_dir / "motion_adapter" / WEIGHTS),
        digest(output_dir / "noise_adapter" / WEIGHTS),
        digest(output_dir / f"checkpoint-{step}" / "training_state.safetensors"),
    ]


def log_of(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


def status_of(output_dir: Path) -> dict:
    return json.loads((output_dir / "status.json").read_text())
