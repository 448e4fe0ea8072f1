"""The models that `train_motion.py` puts together: the noise schedule, the motion UNet and what of it trains."""

import argparse
import logging
from pathlib import Path

import torch
from diffusers import DDPMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel

from landscape_video.training.objectives.training_layers import checkpoint_layers, compile_unet, lower_precision
from motion_adapter.build import (
    attach_motion_adapter,
    create_motion_adapter,
    freeze_image_layers,
    remove_attentions,
    warm_start_motion_adapter,
)
from motion_adapter.convert import load_animatediff
from motion_adapter.noise_adapter import NoiseAdapter
from pipeline_landscape_video.landscape_acceleration import use_fast_attention


logger = logging.getLogger(__name__)


def load_noise_scheduler(model: str, revision: str | None = None) -> DDPMScheduler:
    """The image model's schedule with NADM's linear betas, which differ from Stable Diffusion's scaled_linear ones."""
    config = DDPMScheduler.load_config(model, subfolder="scheduler", revision=revision)
    if config.get("beta_schedule") == "scaled_linear":
        logger.info("The image model's betas are scaled_linear; training with linear ones, as the paper does.")
        config = {**config, "beta_schedule": "linear"}
    return DDPMScheduler.from_config(config)


def build_motion_unet(
    args: argparse.Namespace, latent_shape: tuple[int, int, int], frozen_dtype: torch.dtype, device: torch.device
) -> UNetMotionModel:
    """The motion UNet as the flags want it; of its parameters, those that train require gradients.

    Raises:
        ValueError: the image model cannot carry motion modules, or the clips do not fit it.
    """
    unet = load_motion_unet(
        args.pretrained_model_name_or_path,
        args.revision,
        args.motion_adapter_name_or_path,
        args.sparse_causal_mode,
        args.motion_max_seq_length,
        args.use_motion_mid_block,
    )
    check_fit(unet, latent_shape, args)
    remove_attentions(unet, ["versatile"] * args.no_versatile + ["sparse_causal"] * args.no_sparse_causal)
    freeze_image_layers(unet)
    lower_precision(unet, frozen_dtype, device)
    use_fast_attention(unet, device, frozen_dtype)
    if args.gradient_checkpointing is not None:
        checkpoint_layers(unet, args.gradient_checkpointing)
    if args.torch_compile:
        compile_unet(unet)
    return unet


def build_noise_adapter(args: argparse.Namespace, latent_shape: tuple[int, int, int]) -> NoiseAdapter | None:
    """The noise adapter of the contrastive loss, None without that loss."""
    if args.contrastive_weight == 0:
        return None
    channels, height, width = latent_shape
    return NoiseAdapter(channels, pool_size=min(32, max(height, width)))


def check_fit(unet: UNetMotionModel, latent_shape: tuple[int, int, int], args: argparse.Namespace) -> None:
    """Raise a ValueError where clips and UNet do not fit each other."""
    if latent_shape[0] != unet.config.in_channels:
        raise ValueError(f"The latents have {latent_shape[0]} channels, but the UNet takes {unet.config.in_channels}.")
    if args.num_frames_range[1] > unet.config.motion_max_seq_length:
        raise ValueError(
            f"--num_frames_range goes up to {args.num_frames_range[1]}, but the motion adapter has "
            f"{unet.config.motion_max_seq_length} positions."
        )


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
        motion_adapter: folder, hub id or AnimateDiff file of the adapter to begin with.
        sparse_causal_mode: None takes the given adapter's mode ("full" where it says none), "previous" for a new one.
        motion_max_seq_length: None takes the given adapter's number of positions, 32 for a new one.
        use_motion_mid_block: adds a motion module to the mid block, if the given adapter has none there.
    """
    config = UNet2DConditionModel.load_config(model, subfolder="unet", revision=revision)
    if config.get("_class_name") != "UNet2DConditionModel":
        raise ValueError(f"{model}: `unet` is a {config.get('_class_name')}, but has to be a UNet2DConditionModel.")
    if config.get("addition_embed_type") is not None:
        raise ValueError(
            f"{model}: `unet` has addition_embed_type={config['addition_embed_type']!r}, so it wants more than a "
            "caption (as Stable Diffusion XL does); the UNet of Stable Diffusion 1.5 and its like do not."
        )
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", revision=revision, dtype=torch.float32)
    if motion_adapter is None:
        adapter = create_motion_adapter(
            unet, sparse_causal_mode or "previous", motion_max_seq_length or 32, use_motion_mid_block
        )
    else:
        given = load_motion_adapter(motion_adapter)
        adapter = warm_start_motion_adapter(
            unet,
            given,
            sparse_causal_mode or given.config.get("sparse_causal_mode", "full"),
            motion_max_seq_length or given.config.motion_max_seq_length,
            use_motion_mid_block or given.config.use_motion_mid_block,
        )
    return attach_motion_adapter(unet, adapter)


def load_motion_adapter(name: str) -> MotionAdapter:
    """A `MotionAdapter` from a folder or the Hub, or from a file in AnimateDiff's layout; float32."""
    if Path(name).is_file():
        return load_animatediff(name).float()
    return MotionAdapter.from_pretrained(name, dtype=torch.float32)
