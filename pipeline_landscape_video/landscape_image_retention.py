"""
Image retention branch of DreamVideo (section 4.2): keep a clip faithful to an image.

The branch is a trainable copy of the encoder of a motion UNet. It receives the image with the noisy latents and adds
residuals to the UNet's skip connections, as ControlNet does.

This file is also the code of the branch's own folder on the Hub, so it imports no other file. The attention of the
motion modules and their norm are therefore installed by the caller: `from_unet` copies them, the pipeline installs
those of the config, and a branch that was loaded without either refuses to run.
"""

import inspect
from copy import deepcopy
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding, zero_module
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import nn


COPIED = ("conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block")
# Config entries that a UNet and its branch must share for the shapes of residuals to match.
SHARED_ENTRIES = ("in_channels", "block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim")


class ImageRetention(ModelMixin, AttentionMixin, ConfigMixin):
    """
    Branch that computes residuals for the skip connections and the mid block of a `UNetMotionModel`.

    `conv_in`, the down blocks and the mid block are copies of those of the UNet, with their image layers, text
    attention and motion modules. Their input is `conv_in(noisy latents) + image_embedding(image)` (DreamVideo, section
    4.1: z_r = z_d + z_s), with the same image for all frames. `image_embedding` ends in a zero convolution, and so
    does every output: with a new branch, the prediction is bit-identical.

    The arguments from `in_channels` to `mid_block_layers` are those of `UNetMotionModel`.

    Args:
        image_channels: Widths of the layers that encode the image. Each but the first halves its size.
        sparse_causal_mode: Mode of the motion modules' second attention, one of `SPARSE_CAUSAL_MODES`.
        motion_norm: Statistics of the motion modules' norm, one of `MOTION_NORMS`.

    Example:
        >>> branch = ImageRetention.from_unet(pipe.unet)
        >>> down, mid = branch(latents, timestep, prompt_embeds, image)
        >>> pipe.unet(
        ...     latents,
        ...     timestep,
        ...     prompt_embeds,
        ...     down_block_additional_residuals=down,
        ...     mid_block_additional_residual=mid,
        ... )
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["norm"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockMotion",
            "CrossAttnDownBlockMotion",
            "CrossAttnDownBlockMotion",
            "DownBlockMotion",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int | tuple[int, ...] = 768,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        temporal_transformer_layers_per_block: int | tuple[int, ...] = 1,
        transformer_layers_per_mid_block: int | tuple[int, ...] | None = None,
        temporal_transformer_layers_per_mid_block: int | tuple[int, ...] | None = 1,
        use_linear_projection: bool = False,
        num_attention_heads: int | tuple[int, ...] = 8,
        motion_max_seq_length: int = 32,
        motion_num_attention_heads: int | tuple[int, ...] = 8,
        use_motion_mid_block: bool = False,
        mid_block_layers: int = 1,
        image_channels: tuple[int, ...] = (16, 32, 96, 256),
        sparse_causal_mode: str = "full",
        motion_norm: str = "clip",
    ):
        super().__init__()
        entries = {name: self.config[name] for name in _entries_of_unet()}
        # diffusers builds an encoder only together with a decoder. That is made as small as possible, and dropped.
        decoder = {name: (1,) * len(block_out_channels) for name in _DECODER_ENTRIES}
        unet = UNetMotionModel(**entries, up_block_types=("UpBlockMotion",) * len(block_out_channels), **decoder)
        for name in COPIED:
            setattr(self, name, getattr(unet, name))
        self.image_embedding = ControlNetConditioningEmbedding(
            block_out_channels[0], block_out_channels=tuple(image_channels)
        )
        skips = [block_out_channels[0]]
        for block in self.down_blocks:
            layers = len(block.resnets) + (block.downsamplers is not None)
            skips += [block.resnets[0].out_channels] * layers
        self.zero_convs = nn.ModuleList([zero_module(nn.Conv2d(size, size, kernel_size=1)) for size in skips])
        self.zero_conv_mid = zero_module(nn.Conv2d(block_out_channels[-1], block_out_channels[-1], kernel_size=1))

    @classmethod
    def from_unet(
        cls,
        unet: UNetMotionModel,
        image_channels: tuple[int, ...] = (16, 32, 96, 256),
        generator: torch.Generator | None = None,
    ) -> "ImageRetention":
        """
        Create a trainable branch for `unet`: a copy of its encoder with its attention, dtype and device.

        Args:
            unet: Motion UNet; it is not changed.
            image_channels: See the class. Images are `2 ** (len(image_channels) - 1)` times as large as latents.
            generator: Source of the new layers' initial weights; `None` uses the global state of torch.

        Raises:
            ValueError: `unet` has inputs or layers that a branch does not support, such as those of SDXL, of LoRA or
                of an IP-Adapter; the message names one.
        """
        for name in ("addition_embed_type", "time_cond_proj_dim"):
            if unet.config.get(name) is not None:
                raise ValueError(f"`unet` must not have {name}={unet.config[name]!r}: branches do not support it.")
        entries = {name: unet.config[name] for name in _entries_of_unet()}
        entries["sparse_causal_mode"] = unet.config.get("sparse_causal_mode", "full")
        entries["motion_norm"] = unet.config.get("motion_norm", "clip")
        with torch.device("meta"):  # all weights are replaced below
            branch = cls(**entries, image_channels=tuple(image_channels))
        expected = branch.state_dict().keys()
        for name in COPIED:
            setattr(branch, name, deepcopy(getattr(unet, name)))
        different = sorted(branch.state_dict().keys() ^ expected)
        if different:
            raise ValueError(
                f"`unet` must have the weights of its config only, got {len(different)} others, such as"
                f" {different[0]}; unload or fuse LoRA, unload IP-Adapters and disable FreeNoise first."
            )
        for layer in branch._new_layers():
            layer.to_empty(device="cpu")  # a seed gives the same weights for every device
            _init_weights(layer, generator)
            layer.to(unet.device, unet.dtype)
        for layer in (branch.image_embedding.conv_out, *branch.zero_convs, branch.zero_conv_mid):
            zero_module(layer)
        if "removed_attentions" in unet.config:
            branch.register_to_config(removed_attentions=unet.config.removed_attentions)
        return branch.requires_grad_(True).train(unet.training)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        image: torch.Tensor,
        retention_scale: float = 1.0,
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """
        DreamVideo Eq. 3: compute the residuals R that are added to the UNet's skip connections and mid block.

        Args:
            sample: Noisy latents, `(batch, channels, num_frames, height, width)`, as the UNet receives them.
            timestep: Timestep of all clips, or of each, `(batch,)`.
            encoder_hidden_states: Prompt embeddings with a copy per frame, `(batch * num_frames, tokens, dim)`, as the
                UNet receives them.
            image: Image of each clip, `(batch, 3, factor * height, factor * width)` in [-1, 1] with the factor of
                `image_factor`; white for the null image.
            retention_scale: Factor of all residuals.

        Returns:
            `down_block_additional_residuals` of the UNet, a tuple of `(batch * num_frames, channels, height, width)`,
            and its `mid_block_additional_residual`.

        Raises:
            ValueError: `image` has another shape.
            RuntimeError: The motion modules run another mode or norm than the config names.
        """
        self._check_attention()
        batch_size, _, num_frames, height, width = sample.shape
        expected = (batch_size, 3, height * self.image_factor, width * self.image_factor)
        if tuple(image.shape) != expected:
            raise ValueError(
                f"`image` must have the shape {expected} for latents {tuple(sample.shape)}, got {tuple(image.shape)}."
            )

        timesteps = torch.as_tensor(timestep, device=sample.device).expand(batch_size)
        time = self.time_embedding(self.time_proj(timesteps).to(self.dtype))
        time = time.repeat_interleave(num_frames, dim=0)
        # DreamVideo, section 4.1: z_r = z_d + z_s, the image feature repeated for each frame
        z_s = self.image_embedding(image.to(sample.dtype)).repeat_interleave(num_frames, dim=0)
        z_d = self.conv_in(rearrange(sample, "batch channels f h w -> (batch f) channels h w"))
        hidden_states = z_d + z_s

        text = {"encoder_hidden_states": encoder_hidden_states}
        skips = (hidden_states,)
        for block in self.down_blocks:
            extra = text if getattr(block, "has_cross_attention", False) else {}
            hidden_states, outputs = block(hidden_states=hidden_states, temb=time, num_frames=num_frames, **extra)
            skips += outputs
        frames = {"num_frames": num_frames} if hasattr(self.mid_block, "motion_modules") else {}
        hidden_states = self.mid_block(hidden_states, time, **text, **frames)

        down = tuple(conv(skip) * retention_scale for conv, skip in zip(self.zero_convs, skips, strict=True))
        return down, self.zero_conv_mid(hidden_states) * retention_scale

    @property
    def image_factor(self) -> int:
        """Size of the image in units of the size of the latents."""
        return 2 ** (len(self.config.image_channels) - 1)

    def check_fits(self, unet: UNetMotionModel) -> None:
        """
        Check that the branch was made for a UNet of this size.

        Raises:
            ValueError: A shared config entry differs; the message names it.
        """
        for name in SHARED_ENTRIES:
            own, others = (_plain(config[name]) for config in (self.config, unet.config))
            if own != others:
                raise ValueError(f"`image_retention` must fit `unet`: {name} must be {others}, got {own}.")

    def _check_attention(self) -> None:
        mode, norm = self.config.sparse_causal_mode, self.config.motion_norm
        for module in self.modules():
            if isinstance(module, AnimateDiffTransformer3D):
                running = getattr(module.transformer_blocks, "sparse_causal_mode", "full")
                if running != mode:
                    raise RuntimeError(
                        f"The motion modules must run the mode {mode!r} of the config, got {running!r}; call"
                        f" `install_sparse_causal_attention(branch, {mode!r})` after loading the branch."
                    )
                running = getattr(module.norm, "motion_norm", "clip")
                if running != norm:
                    raise RuntimeError(
                        f"The motion modules must run the norm {norm!r} of the config, got {running!r}; call"
                        f" `install_motion_norm(branch, {norm!r})` after loading the branch."
                    )

    def _new_layers(self) -> list[nn.Conv2d]:
        new = (self.image_embedding, self.zero_convs, self.zero_conv_mid)
        return [layer for part in new for layer in part.modules() if isinstance(layer, nn.Conv2d)]


_DECODER_ENTRIES = ("reverse_transformer_layers_per_block", "reverse_temporal_transformer_layers_per_block")


def _entries_of_unet() -> list[str]:
    """Return the config entries of a branch that a `UNetMotionModel` has, too."""
    known = inspect.signature(UNetMotionModel.__init__).parameters
    return [name for name in inspect.signature(ImageRetention.__init__).parameters if name in known and name != "self"]


def _plain(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry  # JSON turns tuples into lists


def _init_weights(layer: nn.Conv2d, generator: torch.Generator | None) -> None:
    """Initialize a layer as `nn.Conv2d` does: uniform, bounded by 1 over the root of the number of inputs."""
    bound = (layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]) ** -0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)


def check_branch(branch: ImageRetention | None, retention_scale: float, vae_scale_factor: int) -> None:
    """
    Check that a call can use a branch.

    Raises:
        ValueError: The branch is missing although its residuals count, or it was made for another VAE.
    """
    if branch is None and retention_scale != 0:
        raise ValueError("`image_retention` must be a component of this pipeline, or `retention_scale` must be 0.")
    if branch is not None and branch.image_factor != vae_scale_factor:
        raise ValueError(
            f"`image_retention` must take images {vae_scale_factor} times as large as the latents, as this VAE makes"
            f" them, got a branch for {branch.image_factor} times."
        )
