"""Count the FLOP and activations of a training step at the size of Stable Diffusion 1.5, without a GPU.

A step of `train_motion.py` is compared with one of a straightforward loop with diffusers. That loop encodes its clip
in every step, keeps all weights in float32, puts autocast around the whole UNet, and calls diffusers'
`enable_gradient_checkpointing`. Both are counted on fake tensors, see `landscape_video/training/run/run_summary.py`.
"""

import argparse
from functools import partial
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDPMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from landscape_video.training.objectives.motion_models import checkpoint_layers, lower_precision
from landscape_video.training.run.run_summary import StepCost, count_step, make_fake
from motion_adapter.build import attach_motion_adapter, create_motion_adapter, freeze_image_layers


SD15 = {"cross_attention_dim": 768, "sample_size": 64}
SD15_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
HALF = torch.bfloat16


class Size(NamedTuple):
    """Size of one clip."""

    num_frames: int = 16
    pixels: int = 512

    @property
    def latents(self) -> tuple[int, int, int, int, int]:
        """Shape of its latents."""
        return (1, 4, self.num_frames, self.pixels // 8, self.pixels // 8)


class AutocastUNet(nn.Module):
    """A UNet inside autocast, as accelerate prepares it."""

    def __init__(self, unet: UNetMotionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, *args, **kwargs):
        with torch.autocast("cpu", HALF):
            return self.unet(*args, **kwargs)


def count_ours(size: Size, checkpointed: str | None, forward_only: bool = False) -> StepCost:
    """Count a step on cached latents and prompt embeddings."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # the schedule is real
    with torch.device("meta"):
        image_unet = UNet2DConditionModel(**SD15)
        unet = attach_motion_adapter(image_unet, create_motion_adapter(image_unet)).train()
    freeze_image_layers(unet)
    lower_precision(unet, HALF, torch.device("cpu"))
    if checkpointed is not None:
        checkpoint_layers(unet, checkpointed)
    make_fake(unet, mode)
    return count_step(unet, DDPMScheduler(), size.latents, (1, 77, 768), HALF, forward_only=forward_only, mode=mode)


def count_straightforward(size: Size, checkpointed: bool) -> StepCost:
    """Count a step of the straightforward loop."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # the schedule is real
    with torch.device("meta"):
        adapter = MotionAdapter(motion_max_seq_length=32, use_motion_mid_block=False)
        unet = UNetMotionModel.from_unet2d(UNet2DConditionModel(**SD15), adapter).train()
    unet.freeze_unet2d_params()
    if checkpointed:
        unet.enable_gradient_checkpointing()
    make_fake(unet, mode)
    encode = partial(encode_clip, size, mode)
    wrapped = AutocastUNet(unet)
    return count_step(wrapped, DDPMScheduler(), size.latents, (1, 77, 768), before=encode, mode=mode)


@torch.no_grad()
def encode_clip(size: Size, mode: FakeTensorMode) -> None:
    """Encode a clip and its caption, which a cache saves in every step."""
    with torch.device("meta"):
        vae, text_encoder = AutoencoderKL(**SD15_VAE), CLIPTextModel(CLIPTextConfig(**CLIP_L))
    make_fake(vae, mode), make_fake(text_encoder, mode)
    with mode, torch.autocast("cpu", HALF):
        vae.encode(torch.empty(size.num_frames, 3, size.pixels, size.pixels))
        text_encoder(torch.zeros(1, 77, dtype=torch.int64), attention_mask=torch.ones(1, 77, dtype=torch.int64))


def count_encoding(size: Size) -> int:
    """Count the FLOP of encoding one clip and its caption."""
    with FlopCounterMode(display=False) as flop:
        encode_clip(size, FakeTensorMode(allow_non_fake_inputs=True))
    return flop.get_total_flops()


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(f"torch {torch.__version__}, one clip, counted; kept and peak are activations without weights")
    print(f"{'':36} {'TFLOP':>8} {'kept GiB':>9} {'peak GiB':>9}")
    for size in (Size(8, 256), Size(16, 256), Size(16, 512)):
        print(f"{size.num_frames} frames of {size.pixels} x {size.pixels}")
        for name, count in (
            ("straightforward", partial(count_straightforward, size, False)),
            ("straightforward, checkpointing", partial(count_straightforward, size, True)),
            ("ours", partial(count_ours, size, None)),
            ("ours, --gradient_checkpointing", partial(count_ours, size, "all")),
            ("ours, ... attention", partial(count_ours, size, "attention")),
        ):
            cost = count()
            print(
                f"  {name:34} {cost.flop / 1e12:8.2f} {cost.kept_bytes / 2**30:9.2f} {cost.peak_bytes / 2**30:9.2f}",
                flush=True,
            )
            if name == "ours":
                cached = cost.flop
        encoding = count_encoding(size)
        share = (cached + encoding) / cached
        print(f"  {'encoding clip and caption':34} {encoding / 1e12:8.2f}  without a cache, {share:.2f} times ours")


if __name__ == "__main__":
    main()
