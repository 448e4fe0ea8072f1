"""Count FLOP and memory of one-shot tuning at the size of Stable Diffusion 2 depth, without a GPU.

A step on one clip is counted on fake tensors, see `landscape_video/training/run/run_summary.py`. Memory is that of
weights, tuned weights with gradients and moments, and the largest activations, without torch itself. VAE and text
encoder are left out: they are not needed once the clip is encoded.
"""

import argparse
from typing import NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel, UNetMotionModel
from torch._subclasses.fake_tensor import FakeTensorMode

from landscape_video.training.objectives.motion_models import checkpoint_layers
from landscape_video.training.objectives.one_shot_recipe import make_trainable, one_shot_losses
from landscape_video.training.run.run_summary import count_step, make_fake
from motion_adapter.build import create_motion_adapter
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.landscape_spatio_temporal_attention import (
    install_spatio_temporal_attention,
    tuned_parameters,
)


SD2_DEPTH = {
    "in_channels": 5, "sample_size": 64, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}  # fmt: skip
OPTIMIZER_BYTES = 12  # of a tuned weight: float32 gradient and two moments
GIB = 2**30


class Cost(NamedTuple):
    """Cost of tuning.

    Attributes:
        tflop: Floating-point operations of a step, in 10^12.
        activations: Largest memory of activations, in bytes.
        memory: All memory, in bytes.
        tuned: Number of tuned weights.
    """

    tflop: float
    activations: int
    memory: int
    tuned: int


def count_tuning(num_frames: int, dtype: torch.dtype, checkpointed: str | None, pixels: int = 512) -> Cost:
    """Count a step of tuning on `num_frames` frames; `checkpointed` as `--gradient_checkpointing`."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # the schedule is real
    with torch.device("meta"):
        image_unet = UNet2DConditionModel(**SD2_DEPTH)
        adapter = create_motion_adapter(
            image_unet, "full", motion_num_attention_heads=1, motion_transformer_layers_per_block=0
        )
        unet = UNetMotionModel.from_unet2d(image_unet, adapter).to(dtype).train()
    make_fake(unet, mode)
    with mode:
        install_spatio_temporal_attention(unet)
        make_trainable(unet)
    if checkpointed is not None:
        checkpoint_layers(unet, checkpointed)
    side = pixels // 8

    def compute_losses(*batch):
        return one_shot_losses(*batch, depth=torch.empty(1, 1, num_frames, side, side))

    shape = (1, 4, num_frames, side, side)
    step = count_step(unet, DDPMScheduler(), shape, (1, 77, 1024), dtype, mode=mode, compute_losses=compute_losses)
    tuned = sum(parameter.numel() for parameter in tuned_parameters(unet).values())
    weights = sum(parameter.numel() * parameter.element_size() for parameter in unet.parameters())
    return Cost(step.flop / 1e12, step.peak_bytes, weights + OPTIMIZER_BYTES * tuned + step.peak_bytes, tuned)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = []
    for num_frames in (8, 12):
        for dtype in (torch.float32, torch.bfloat16):
            for checkpointed in (None, "attention", "all"):
                cost = count_tuning(num_frames, dtype, checkpointed)
                rows.append(
                    (
                        str(num_frames),
                        str(dtype).removeprefix("torch."),
                        checkpointed or "off",
                        f"{cost.tflop:.1f}",
                        f"{cost.activations / GIB:.1f}",
                        f"{cost.memory / GIB:.1f}",
                    )
                )
    print(f"torch {torch.__version__}, {cost.tuned / 1e6:.1f} M tuned weights, clips of 512 x 512\n")
    print(
        markdown_table(
            ("frames", "frozen layers", "gradient checkpointing", "TFLOP a step", "activations, GiB", "all, GiB"), rows
        )
    )


if __name__ == "__main__":
    main()
