"""Let a motion UNet see a condition through ControlNet or T2I-Adapter; in a window, that of its own frames."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ControlNetModel, ModelMixin, T2IAdapter
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from torch import nn

from landscape_video.generation.consistent_clip import ConditionedUNet
from landscape_video.generation.models import load_model, naming
from pipeline_landscape_video import LandscapeVideoPipeline


NETWORKS: dict[str, type[ModelMixin]] = {"controlnet": ControlNetModel, "t2i_adapter": T2IAdapter}


def load_network(kind: str, source: str, pipe: LandscapeVideoPipeline) -> ModelMixin:
    """Load a condition network for a pipeline.

    Args:
        kind: "controlnet" or "t2i_adapter".
        source: Folder or Hub name.
        pipe: Pipeline, whose device and dtype the network gets.

    Raises:
        ValueError, ConnectionError: It does not load, or does not fit the pipeline's UNet.
    """
    with naming(f"`{kind}` {source}", source, "does not load: "):
        network = load_model(NETWORKS[kind], source, pipe.unet.dtype)
        check_fits(network, pipe.unet)
    return network.to(pipe._execution_device)


def check_fits(network: ModelMixin, unet: UNetMotionModel) -> None:
    """Raise a `ValueError` if a condition network was made for another UNet."""
    ours = unet.config
    if isinstance(network, ControlNetModel):
        for name in ("in_channels", "cross_attention_dim", "block_out_channels"):
            found, expected = network.config[name], ours[name]
            if list(_as_tuple(found)) != list(_as_tuple(expected)):
                raise ValueError(f"its {name} must be {expected}, as in the model's UNet, got {found}.")
    elif list(network.config.channels) != list(ours.block_out_channels):
        raise ValueError(f"its channels must be {ours.block_out_channels}, got {network.config.channels}.")


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def conditioned(network: ModelMixin, images: torch.Tensor, scale: float = 1.0) -> Callable[..., ConditionedUNet]:
    """Return a function from a pipeline to its UNet under a condition.

    Args:
        network: ControlNet or T2I-Adapter.
        images: Images of all frames, (num_frames, 3, height, width) in [0, 1], at the size of the frames.
        scale: Factor of the residuals.
    """
    condition = _control if isinstance(network, ControlNetModel) else _adapt
    return lambda pipe: condition(pipe, network, images, scale)


def _control(
    pipe: LandscapeVideoPipeline, network: ControlNetModel, images: torch.Tensor, scale: float
) -> ConditionedUNet:
    def predict(sample: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, frames: list[int]) -> torch.Tensor:
        condition = images[frames].to(sample).repeat(len(sample), 1, 1, 1)
        flat = sample.transpose(1, 2).flatten(0, 1)  # each frame of each guidance term
        down, mid = network(
            flat,
            timestep,
            encoder_hidden_states=embeds,
            controlnet_cond=condition,
            conditioning_scale=scale,
            return_dict=False,
        )
        return pipe.unet(
            sample,
            timestep,
            encoder_hidden_states=embeds,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample

    return predict


def _adapt(pipe: LandscapeVideoPipeline, network: T2IAdapter, images: torch.Tensor, scale: float) -> ConditionedUNet:
    channels = network.config.in_channels

    def predict(sample: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, frames: list[int]) -> torch.Tensor:
        condition = images[frames].to(sample)
        features = network(condition if channels == 3 else condition.mean(dim=1, keepdim=True))
        with added_features(pipe.unet, [scale * feature for feature in features]):
            return pipe.unet(sample, timestep, encoder_hidden_states=embeds).sample

    return predict


@contextmanager
def added_features(unet: UNetMotionModel, features: list[torch.Tensor]) -> Iterator[None]:
    """Add the features of a T2I-Adapter to the down blocks in a block, as diffusers' image UNet does.

    diffusers' motion UNet does not take `down_intrablock_additional_residuals`. In its blocks with attention they
    belong behind the last motion module, in others behind the whole block.

    Args:
        unet: Motion UNet.
        features: For each down block, (num_frames, channels, height, width).
    """

    def add(feature: torch.Tensor) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            hidden_states = output[0] if isinstance(output, tuple) else output
            # In place, because the output of a block is also a skip connection.
            hidden_states += feature.repeat(len(hidden_states) // len(feature), 1, 1, 1)

        return hook

    handles = []
    for block, feature in zip(unet.down_blocks, features, strict=True):
        module = block.motion_modules[-1] if getattr(block, "has_cross_attention", False) else block
        handles.append(module.register_forward_hook(add(feature)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
