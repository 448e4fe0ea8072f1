"""Models that `train_motion.py` puts together: the noise schedule, the motion UNet and the noise adapter.

Precision, activation checkpointing and compilation of the UNet act on its modules in place. Names of parameters stay,
so what is saved stays the same.
"""

import logging
from functools import partial

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel, UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch.utils.checkpoint import checkpoint

from landscape_video.generation.models import load_motion_adapter
from landscape_video.training.objectives.short_attention import use_fast_attention
from landscape_video.training.settings.training import MotionTraining
from motion_adapter.build import (
    attach_motion_adapter,
    create_motion_adapter,
    freeze_image_layers,
    remove_attentions,
    warm_start_motion_adapter,
)


logger = logging.getLogger("training")

# Layers that are recomputed in the backward pass, by the choices of --gradient_checkpointing.
CHECKPOINTED = {
    "attention": (Transformer2DModel, AnimateDiffTransformer3D),
    "all": (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D),
}
MAX_LENGTHS = 64  # clip lengths that get a graph of their own; more of them run without compilation


def load_noise_scheduler(model: str, revision: str | None = None) -> DDPMScheduler:
    """The image model's noise schedule with NADM's linear betas, where Stable Diffusion has scaled_linear ones."""
    config = DDPMScheduler.load_config(model, subfolder="scheduler", revision=revision)
    if config.get("beta_schedule") == "scaled_linear":
        logger.info("The image model's betas are scaled_linear; training with linear ones, as the paper does.")
        config = {**config, "beta_schedule": "linear"}
    return DDPMScheduler.from_config(config)


def build_motion_unet(
    settings: MotionTraining,
    latent_shape: tuple[int, int, int],
    frozen_dtype: torch.dtype,
    device: torch.device,
) -> UNetMotionModel:
    """Build the motion UNet on the device; of its parameters, those that train require gradients.

    Args:
        latent_shape: (channels, height, width) of a frame.
        frozen_dtype: Type of the image layers.

    Raises:
        ValueError: The image model does not support motion modules, or the clips do not fit it.
    """
    model, optimization = settings.model, settings.optimization
    unet = load_motion_unet(
        model.pretrained_model_name_or_path,
        model.revision,
        model.motion_adapter_name_or_path,
        model.sparse_causal_mode,
        model.motion_max_seq_length,
        model.use_motion_mid_block,
        model.motion_norm,
    )
    check_fit(unet, latent_shape, settings.data.num_frames_range[1])
    remove_attentions(unet, ["versatile"] * model.no_versatile + ["sparse_causal"] * model.no_sparse_causal)
    freeze_image_layers(unet)
    lower_precision(unet, frozen_dtype, device)
    use_fast_attention(unet, device, frozen_dtype)
    if optimization.gradient_checkpointing is not None:
        checkpoint_layers(unet, optimization.gradient_checkpointing)
    if optimization.torch_compile:
        compile_unet(unet)
    return unet


def check_fit(unet: UNetMotionModel, latent_shape: tuple[int, int, int], num_frames: int) -> None:
    """Raise a `ValueError` if the longest clips do not fit the UNet."""
    if latent_shape[0] != unet.config.in_channels:
        raise ValueError(f"The latents have {latent_shape[0]} channels, but the UNet takes {unet.config.in_channels}.")
    if num_frames > unet.config.motion_max_seq_length:
        raise ValueError(
            f"`num_frames_range` must end at {unet.config.motion_max_seq_length} or less, got {num_frames}: the "
            "motion adapter has no more positions."
        )


def load_motion_unet(
    model: str,
    revision: str | None = None,
    motion_adapter: str | None = None,
    sparse_causal_mode: str | None = None,
    motion_max_seq_length: int | None = None,
    use_motion_mid_block: bool = False,
    motion_norm: str | None = None,
) -> UNetMotionModel:
    """Load the image UNet of `model` in float32 with a motion adapter. A new adapter does not change its output yet.

    Args:
        model: Folder or Hub id of the image model.
        revision: Commit, tag or branch of the Hub id.
        motion_adapter: Folder, Hub id or AnimateDiff file of the adapter to start from; None creates a new one.
        sparse_causal_mode: None keeps the given adapter's mode ("full" if it names none), "previous" for a new one.
        motion_max_seq_length: None keeps the given adapter's number of positions, 32 for a new one.
        use_motion_mid_block: Add a motion module to the mid block if the given adapter has none there.
        motion_norm: None keeps the given adapter's norm ("clip" if it names none), "clip" for a new one.

    Raises:
        ValueError: The image model's UNet is of another kind.
    """
    config = UNet2DConditionModel.load_config(model, subfolder="unet", revision=revision)
    if config.get("_class_name") != "UNet2DConditionModel":
        raise ValueError(f"{model}: `unet` must be a UNet2DConditionModel, got {config.get('_class_name')}.")
    if config.get("addition_embed_type") is not None:
        raise ValueError(
            f"{model}: `unet` has addition_embed_type={config['addition_embed_type']!r}, so it needs more than a "
            "caption, as Stable Diffusion XL does: use a model like Stable Diffusion 1.5."
        )
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", revision=revision, dtype=torch.float32)
    if motion_adapter is None:
        adapter = create_motion_adapter(
            unet,
            sparse_causal_mode or "previous",
            motion_max_seq_length or 32,
            use_motion_mid_block,
            motion_norm=motion_norm or "clip",
        )
    else:
        given = load_motion_adapter(motion_adapter, torch.float32)
        adapter = warm_start_motion_adapter(
            unet,
            given,
            sparse_causal_mode or given.config.get("sparse_causal_mode", "full"),
            motion_max_seq_length or given.config.motion_max_seq_length,
            use_motion_mid_block or given.config.use_motion_mid_block,
            motion_norm=motion_norm or given.config.get("motion_norm", "clip"),
        )
    return attach_motion_adapter(unet, adapter)


def lower_precision(unet: UNetMotionModel, dtype: torch.dtype, device: torch.device) -> None:
    """Let the frozen image layers compute in `dtype`, as in sampling, and the motion modules under autocast.

    The motion modules' weights stay float32. Autocast around the whole UNet would convert every norm of the image
    layers to float32 and back and keep both copies. The UNet then takes `encoder_hidden_states` in `dtype`. For
    float32 nothing changes.
    """
    if dtype == torch.float32:
        return
    unet.conv_in.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))  # noise is added in float32
    for name, module in unet.named_modules():
        if ".motion_modules." not in f".{name}." and not any(module.children()):
            module.to(dtype)
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            module.forward = torch.autocast(device.type, dtype)(module.forward)


def checkpoint_layers(unet: UNetMotionModel, layers: str) -> None:
    """Keep only the inputs of layers for the backward pass, and recompute the rest there.

    diffusers' own `enable_gradient_checkpointing` leaves out the motion modules, the largest part.

    Args:
        layers: "attention" wraps spatial transformers and motion modules, "all" the residual blocks as well.
    """
    for module in unet.modules():
        if isinstance(module, CHECKPOINTED[layers]):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def compile_unet(unet: UNetMotionModel, backend: str = "inductor") -> None:
    """Compile the forward pass, and with it the backward pass, as one graph for each number of frames.

    Layers compiled for any number of frames are slower than uncompiled ones on a CPU, and there are more kinds of them
    than torch compiles before it gives up. Call this after `checkpoint_layers`.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_LENGTHS)
    unet.forward = torch.compile(unet.forward, dynamic=False, backend=backend)
