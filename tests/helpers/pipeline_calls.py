"""Call a pipeline with small defaults and observe it, for the tests of `LandscapeVideoPipeline`."""

import json
from pathlib import Path
from typing import Any

import torch


PIPELINE_LOGGER = "pipeline_landscape_video"


def still(frames_a: torch.Tensor, frames_b: torch.Tensor) -> torch.Tensor:
    """Flow estimator that returns zero flow."""
    return torch.zeros_like(frames_a[:, :2])


def recommend(model: Path, sampling: dict[str, Any]) -> None:
    """Store recommended sampling with a saved model."""
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_landscape_sampling": sampling}))


def sample(pipe, **arguments):
    """Call the pipeline with small defaults and return the frames."""
    defaults = {
        "num_frames": 4,
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "pt",
        "flow_estimator": still,
    }
    if "prompt_embeds" not in arguments:
        defaults["prompt"] = "misty mountains"
    return pipe(**(defaults | arguments)).frames


def said(caplog, logger=PIPELINE_LOGGER):
    """Return the messages of one logger."""
    return [record.getMessage() for record in caplog.records if record.name.startswith(logger)]


class Steps:
    """Count how often a pipeline's UNet runs."""

    def __init__(self, pipe):
        self.count = 0
        pipe.unet.register_forward_pre_hook(self.add)

    def add(self, *_):
        self.count += 1
