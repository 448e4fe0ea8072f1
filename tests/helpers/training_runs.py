"""Run `train_motion.py` in this process, on small real models, and digest what it writes."""

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
    """Write an image model in Stable Diffusion's layout."""
    components = build_components()
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        components[name].save_pretrained(directory / name)
    return directory


def write_latent_cache(directory: Path) -> Path:
    """Write five clips of 12 frames with two captions each. With batches of 2, epochs end within a step."""
    generator = torch.Generator().manual_seed(0)
    for number, clips in enumerate((3, 2)):
        write_shard(directory, number, torch.randn(clips, 12, 4, 8, 8, generator=generator))
    rows = [{"text": f"mist over mountains {number}", "texts": [f"a boat, {number}"]} for number in range(5)]
    (directory / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def forget_accelerators() -> None:
    """Reset accelerate's state to that of a new process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def run_trainer(model: Path, data: Path, output_dir: Path, *flags: str) -> int:
    """Run the trainer with small defaults, which `flags` may override, and return its exit code."""
    forget_accelerators()
    required = ["--pretrained_model_name_or_path", str(model), "--train_data_dir", str(data)]
    defaults = ["--num_frames_range", "6", "8", "--train_batch_size", "2", "--learning_rate", "1e-3"]
    return run([*required, *defaults, "--output_dir", str(output_dir), *flags])


def launch_trainer(count: int, model: Path, data: Path, output_dir: Path, *flags: str, **environment: str) -> None:
    """Train in `count` processes, started like a launcher does."""
    launch(count, _run_launched, model, data, output_dir, *flags, **environment)


def _run_launched(*arguments: Any) -> None:
    raise SystemExit(run_trainer(*arguments))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(output_dir: Path, step: int) -> list[str]:
    """Hash the results of a run: both adapters, and weights, optimizer state and EMA of the last checkpoint."""
    return [
        digest(output_dir / "motion_adapter" / WEIGHTS),
        digest(output_dir / "noise_adapter" / WEIGHTS),
        digest(output_dir / f"checkpoint-{step}" / "training_state.safetensors"),
    ]


def log_of(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


def status_of(output_dir: Path) -> dict:
    return json.loads((output_dir / "status.json").read_text())
