"""Short calls of a pipeline, and what is to be seen of them, for the tests of `LandscapeVideoPipeline`."""

import torch


PIPELINE_LOGGER = "pipeline_landscape_video"


def still(frames_a: torch.Tensor, frames_b: torch.Tensor) -> torch.Tensor:
    """A flow estimator that sees no motion."""
    return torch.zeros_like(frames_a[:, :2])


def sample(pipe, **arguments):
    """Frames of a call with small defaults."""
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
    """Messages of one logger."""
    return [record.getMessage() for record in caplog.records if record.name.startswith(logger)]


class Steps:
    """Counts how often a pipeline's UNet runs."""

    def __init__(self, pipe):
        self.count = 0
        pipe.unet.register_forward_pre_hook(self.add)

    def add(self, *_):
        self.count += 1
