"""Recipe of an image retention branch (DreamVideo, 4.2), trained as one model with the motion UNet."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import UNetMotionModel
from diffusers.models.unets.unet_motion_model import UNetMotionOutput
from torch import nn

from landscape_video.files import write_directory
from landscape_video.training.objectives.motion_models import (
    check_fit,
    checkpoint_layers,
    compile_unet,
    load_motion_unet,
    lower_precision,
)
from landscape_video.training.objectives.motion_recipe import MotionRecipe
from landscape_video.training.objectives.short_attention import use_fast_attention
from landscape_video.training.settings.inputs import MOTION_ADAPTER
from landscape_video.training.settings.training import RetentionTraining
from motion_adapter.build import freeze_idle_layers, freeze_image_layers, save_motion_modules
from motion_adapter.code_files import BRANCH
from pipeline_landscape_video import ImageRetention
from pipeline_landscape_video.landscape_motion_attention import install_motion_config


IMAGE_CHANNELS = (16, 32, 96, 256)  # channels of the layers that shrink the image, each by half


class UNetWithImageRetention(nn.Module):
    """A motion UNet that sees an image through its branch; called like the UNet, with the image as well.

    Args:
        unet: Motion UNet, which predicts.
        image_retention: Branch whose residuals are added to the UNet's skip connections.
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
        """Predict noise or velocity of clips that start from an image.

        Args:
            image: (batch, 3, height, width) in [-1, 1]; None is the null image, which is white.

        Other arguments and shapes are those of `ImageRetention.forward`.
        """
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


def build_unet_with_image_retention(
    settings: RetentionTraining,
    latent_shape: tuple[int, int, int],
    image_size: tuple[int, int],
    frozen_dtype: torch.dtype,
    device: torch.device,
) -> UNetWithImageRetention:
    """Build the motion UNet and its branch on the device; parameters that train require gradients.

    Args:
        latent_shape: (channels, height, width) of a frame.
        image_size: (height, width) of the images.
        frozen_dtype: Type of the image layers, and of the computation in the other layers, whose weights are float32.

    Raises:
        ValueError: The models, or the clips, do not fit each other.
    """
    model, optimization = settings.model, settings.optimization
    unet = load_motion_unet(model.pretrained_model_name_or_path, model.revision, model.motion_adapter_name_or_path)
    check_fit(unet, latent_shape, settings.data.num_frames_range[1])
    freeze_image_layers(unet)
    if model.freeze_motion:
        unet.requires_grad_(False)
    branch = load_branch(model.image_retention_name_or_path, unet, image_channels_for(latent_shape, image_size))
    freeze_idle_layers(branch)

    lower_precision(unet, frozen_dtype, device)
    if frozen_dtype != torch.float32:  # the whole branch trains, so its weights stay float32
        branch.forward = torch.autocast(device.type, frozen_dtype)(branch.forward)
    for network in (unet, branch):
        use_fast_attention(network, device, frozen_dtype)
        if optimization.gradient_checkpointing is not None:
            checkpoint_layers(network, optimization.gradient_checkpointing)
    combined = UNetWithImageRetention(unet, branch).to(device)
    if optimization.torch_compile:
        compile_unet(combined)
    return combined


def load_branch(name: str | None, unet: UNetMotionModel, image_channels: tuple[int, ...]) -> ImageRetention:
    """Load the branch of a folder or Hub id in float32, or create a new one for `unet`; all of it trains.

    Raises:
        ValueError: The branch is for another UNet, or for images of another size.
    """
    if name is None:
        return ImageRetention.from_unet(unet, image_channels)
    branch = ImageRetention.from_pretrained(name, dtype=torch.float32)
    branch.check_fits(unet)
    if len(branch.config.image_channels) != len(image_channels):
        raise ValueError(
            f"{name} is for images {branch.image_factor} times as large as the latents, but the images of the clips "
            f"are {2 ** (len(image_channels) - 1)} times as large."
        )
    install_motion_config(branch, branch.config)
    return branch.requires_grad_(True)


def image_channels_for(latent_shape: tuple[int, int, int], image_size: tuple[int, int]) -> tuple[int, ...]:
    """`image_channels` of a branch that shrinks images to the size of the latents.

    Raises:
        ValueError: The images are not 2, 4 or 8 times as high and wide as the latents.
    """
    factors = [image / latent for image, latent in zip(image_size, latent_shape[1:], strict=True)]
    halvings = math.log2(factors[0])
    if factors[0] != factors[1] or halvings not in range(1, len(IMAGE_CHANNELS)):
        raise ValueError(
            f"The first frames must be 2, 4 or 8 times as large as their latents, got {image_size[1]} x "
            f"{image_size[0]} pixels and latents of {latent_shape[2]} x {latent_shape[1]}."
        )
    return IMAGE_CHANNELS[: int(halvings) + 1]


class RetentionRecipe(MotionRecipe):
    """Train the branch of a `UNetWithImageRetention` by the losses of a motion adapter, with first frames as images.

    Args:
        parts: Arguments of `MotionRecipe`; `unet` is a `UNetWithImageRetention`.
        first_frame_weight: Weight of the first frame in the loss, where each other frame has 1.
    """

    def __init__(self, *parts: Any, first_frame_weight: float) -> None:
        # A slowed-down clip keeps its first frame, because that is the image which the branch sees.
        super().__init__(*parts, first_frame_weight=first_frame_weight, speed_anchor=0.0)

    def conditions(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"image": batch["image"].to(self.inputs.device)}

    def export(self, directory: Path | None, final: bool = False) -> None:
        if directory is None:
            return
        with write_directory(directory / BRANCH) as folder:
            self.unet.image_retention.save_pretrained(folder)
            self.record.write(folder)
        if any(parameter.requires_grad for parameter in self.unet.unet.parameters()):
            with write_directory(directory / MOTION_ADAPTER) as folder:
                save_motion_modules(self.unet.unet, folder)
                self.record.write(folder)
