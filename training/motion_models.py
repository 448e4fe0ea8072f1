"""The parts that `train_motion.py` puts together: the noise schedule, the motion UNet and what of it trains."""

import logging

import torch
from diffusers import AutoencoderKL, DDPMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models import AutoModel
from torch import nn

from motion_adapter.build import attach_motion_adapter, create_motion_adapter, warm_start_motion_adapter


logger = logging.getLogger(__name__)


def load_noise_scheduler(model: str, revision: str | None = None) -> DDPMScheduler:
    """The image model's schedule with NADM's linear betas, which differ from Stable Diffusion's scaled_linear ones."""
    config = DDPMScheduler.load_config(model, subfolder="scheduler", revision=revision)
    if config.get("beta_schedule") == "scaled_linear":
        logger.info("The image model's betas are scaled_linear; training with linear ones, as the paper does.")
        config = {**config, "beta_schedule": "linear"}
    return DDPMScheduler.from_config(config)


def load_motion_unet(
    model: str,
    revision: str | None = None,
    motion_adapter: str | None = None,
    sparse_causal_mode: str | None = None,
    motion_max_seq_length: int | None = None,
    use_motion_mid_block: bool = False,
) -> UNetMotionModel:
    """The image UNet of `model`, float32, with a new motion adapter, which changes nothing yet, or a given one.

    Args:
        motion_adapter: folder or hub id of the adapter to begin with.
        sparse_causal_mode: None takes the given adapter's mode ("full" where it says none), "previous" for a new one.
        motion_max_seq_length: None takes the given adapter's number of positions, 32 for a new one.
        use_motion_mid_block: adds a motion module to the mid block, if the given adapter has none there.
    """
    class_name = UNet2DConditionModel.load_config(model, subfolder="unet", revision=revision).get("_class_name")
    if class_name != "UNet2DConditionModel":
        raise ValueError(f"{model}: `unet` is a {class_name}, but has to be a UNet2DConditionModel.")
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", revision=revision, dtype=torch.float32)
    if motion_adapter is None:
        adapter = create_motion_adapter(
            unet, sparse_causal_mode or "previous", motion_max_seq_length or 32, use_motion_mid_block
        )
    else:
        given = MotionAdapter.from_pretrained(motion_adapter, dtype=torch.float32)
        adapter = warm_start_motion_adapter(
            unet,
            given,
            sparse_causal_mode or given.config.get("sparse_causal_mode", "full"),
            motion_max_seq_length or given.config.motion_max_seq_length,
            use_motion_mid_block or given.config.use_motion_mid_block,
        )
    return attach_motion_adapter(unet, adapter)


def cast_frozen_layers(unet: UNetMotionModel, dtype: torch.dtype) -> None:
    """Keep the image model's linear and convolutional weights in `dtype`, where autocast would copy them to it."""
    for name, module in unet.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and "motion_modules" not in name:
            module.to(dtype)


def load_vae(model: str, revision: str | None, device: torch.device) -> AutoencoderKL:
    """The image model's VAE, float32 (Stable Diffusion's overflows in float16), frozen."""
    vae = AutoModel.from_pretrained(model, subfolder="vae", revision=revision, dtype=torch.float32)
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, pixel_values: torch.Tensor, chunk_size: int = 16) -> torch.Tensor:
    """Scaled latents, (frames, channels, height, width), of frames in [-1, 1], (frames, 3, height, width).

    The distribution's mode, not a sample: equal whether a clip is encoded once or each time it comes up.
    """
    latents = []
    for frames in pixel_values.split(chunk_size):
        encoded = vae.encode(frames.to(vae.device, vae.dtype))
        latents.append(encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents)
    shift = getattr(vae.config, "shift_factor", None) or 0
    return (torch.cat(latents) - shift) * vae.config.scaling_factor
