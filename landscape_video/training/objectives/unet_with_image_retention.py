"""What `train_image_retention.py` trains: a motion UNet and its image retention branch, as one model."""

import argparse
import math

import torch
from diffusers import UNetMotionModel
from diffusers.models.unets.unet_motion_model import UNetMotionOutput
from torch import nn

from landscape_video.training.objectives.motion_models import check_fit, load_motion_unet
from landscape_video.training.objectives.training_layers import checkpoint_layers, compile_unet, lower_precision
from motion_adapter.build import freeze_idle_layers, freeze_image_layers
from pipeline_landscape_video import ImageRetention, install_sparse_causal_attention
from pipeline_landscape_video.landscape_acceleration import use_fast_attention


IMAGE_CHANNELS = (16, 32, 96, 256)  # of the layers that shrink the picture, by half from one to the next


class RetainingUNet(nn.Module):
    """A motion UNet that sees a picture through its branch; called like the UNet, with the picture besides.

    Args:
        unet: predicts; gets what the branch has to add.
        image_retention: a branch for it.
    """

    def __init__(self, unet: UNetMotionModel, image_retention: ImageRetention) -> None:
        super().__init__()
        self.unet = unet
        self.image_retention = image_retention

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        image: torch.Tensor | None = None,
    ) -> UNetMotionOutput:
        """`image` is (batch, 3, height, width) in [-1, 1], the null picture (white) where it is None; the rest, shapes
        included, is as in `ImageRetention.forward`."""
        if image is None:
            height, width = (side * self.image_retention.image_factor for side in sample.shape[-2:])
            image = torch.ones(len(sample), 3, height, width, device=sample.device)
        down, mid = self.image_retention(sample, timestep, encoder_hidden_states, image)
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states=encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        )


def build_retaining_unet(
    args: argparse.Namespace,
    latent_shape: tuple[int, int, int],
    image_size: tuple[int, int],
    frozen_dtype: torch.dtype,
    device: torch.device,
) -> tuple[RetainingUNet, list[tuple[str, nn.Parameter]]]:
    """The motion UNet and a branch as the flags want them, on the device, and what of them trains, by name.

    Args:
        latent_shape: (channels, height, width) of a frame.
        image_size: height and width of the pictures.
        frozen_dtype: of the image layers, and of what the rest computes; its weights are float32.

    Raises:
        ValueError: the models, or the clips, do not fit each other.
    """
    unet = load_motion_unet(args.pretrained_model_name_or_path, args.revision, args.motion_adapter_name_or_path)
    check_fit(unet, latent_shape, args)
    freeze_image_layers(unet)
    if args.freeze_motion:
        unet.requires_grad_(False)
    branch = load_branch(args.image_retention_name_or_path, unet, image_channels_for(latent_shape, image_size))
    freeze_idle_layers(branch)

    lower_precision(unet, frozen_dtype, device)
    if frozen_dtype != torch.float32:  # all of the branch trains, so its weights stay as they are
        branch.forward = torch.autocast(device.type, frozen_dtype)(branch.forward)
    for network in (unet, branch):
        use_fast_attention(network, device, frozen_dtype)
        if args.gradient_checkpointing is not None:
            checkpoint_layers(network, args.gradient_checkpointing)
    model = RetainingUNet(unet, branch).to(device)
    if args.torch_compile:
        compile_unet(model)
    return model, [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def load_branch(name: str | None, unet: UNetMotionModel, image_channels: tuple[int, ...]) -> ImageRetention:
    """The branch of that folder or hub id, or a new one, for `unet`; float32, all of it to be trained.

    Raises:
        ValueError: it is for another UNet, or for pictures of another size.
    """
    if name is None:
        return ImageRetention.from_unet(unet, image_channels)
    branch = ImageRetention.from_pretrained(name, dtype=torch.float32)
    branch.check_fits(unet)
    if len(branch.config.image_channels) != len(image_channels):
        raise ValueError(
            f"{name} is for pictures {branch.image_factor} times as large as the latents, but those of the clips are "
            f"{2 ** (len(image_channels) - 1)} times as large."
        )
    install_sparse_causal_attention(branch, branch.config.sparse_causal_mode)
    return branch.requires_grad_(True)


def image_channels_for(latent_shape: tuple[int, int, int], image_size: tuple[int, int]) -> tuple[int, ...]:
    """`image_channels` of a branch that brings pictures to the size of the latents.

    Raises:
        ValueError: they are not 2, 4 or 8 times as high and wide as the latents.
    """
    factors = [image / latent for image, latent in zip(image_size, latent_shape[1:], strict=True)]
    halvings = math.log2(factors[0])
    if factors[0] != factors[1] or halvings not in range(1, len(IMAGE_CHANNELS)):
        raise ValueError(
            f"The first frames are {image_size[1]} x {image_size[0]} pixels and their latents {latent_shape[2]} x "
            f"{latent_shape[1]}: they have to be 2, 4 or 8 times as large."
        )
    return IMAGE_CHANNELS[: int(halvings) + 1]
