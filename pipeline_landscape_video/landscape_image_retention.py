"""
The image retention branch of DreamVideo (section 4.2): a copy of a motion UNet's way down, which sees the picture
beside the noisy frames and tells the UNet about it through its skips.

This file stands alone, for it also travels as the code of the branch's own folder. So the sparse-causal attention of
the motion modules is put in place by whoever loads a branch, as for a `UNetMotionModel`: `from_unet` copies it, the
pipeline installs what the config says, and a branch that was loaded without either refuses to run.
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
# Entries of the config that a UNet and its branch must have in common, or their tensors do not meet.
SHARED_ENTRIES = ("in_channels", "block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim")


class ImageRetention(ModelMixin, AttentionMixin, ConfigMixin):
    """
    Residuals for the skips and the middle of a `UNetMotionModel` that keep a clip true to a picture.

    `conv_in`, the down blocks and the middle block are those of the UNet, image layers, text attention and motion
    modules. Their input is `conv_in(noisy latents) + image_embedding(picture)` (section 4.1: z_r = z_d + z_s), the
    picture the same for all frames. `image_embedding` ends, and each output passes, in a convolution that starts at
    zero, so a new branch changes nothing, to the bit.

    Args:
        in_channels to mid_block_layers: as `UNetMotionModel`, whose way down this is.
        image_channels: width of the layers that bring the picture to the size of the latents; each but the first
            halves it.
        sparse_causal_mode: how the motion modules see other frames, one of `SPARSE_CAUSAL_MODES`.

    Example:
        >>> branch = ImageRetention.from_unet(pipe.unet)
        >>> down, mid = branch(latents, timestep, text_states, picture)
        >>> pipe.unet(
        ...     latents,
        ...     timestep,
        ...     text_states,
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
    ):
        super().__init__()
        entries = {name: self.config[name] for name in _entries_of_unet()}
        # diffusers builds the way down only together with the way up, which is as small as can be, and dropped.
        way_up = {name: (1,) * len(block_out_channels) for name in _LAYERS_OF_THE_WAY_UP}
        unet = UNetMotionModel(**entries, up_block_types=("UpBlockMotion",) * len(block_out_channels), **way_up)
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
        A new branch for `unet`: a copy of its way down with its attention, in its dtype and on its device, all of it
        to be trained. Until then it changes nothing.

        Args:
            unet: stays as it is.
            image_channels: see the class; the picture is 2 ** (their number - 1) times as large as the latents.
            generator: draws the initial weights of what is new; torch's global random state without it.

        Raises:
            ValueError: `unet` has an input or layers that a branch has not (SDXL's, LoRA, an IP-Adapter); the message
                names one.
        """
        for name in ("addition_embed_type", "time_cond_proj_dim"):
            if unet.config.get(name) is not None:
                raise ValueError(f"`unet` has {name}={unet.config[name]!r}, which an image retention branch has not.")
        entries = {name: unet.config[name] for name in _entries_of_unet()}
        mode = unet.config.get("sparse_causal_mode", "full")
        with torch.device("meta"):  # what is built here is replaced
            branch = cls(**entries, image_channels=tuple(image_channels), sparse_causal_mode=mode)
        expected = branch.state_dict().keys()
        for name in COPIED:
            setattr(branch, name, deepcopy(getattr(unet, name)))
        different = sorted(branch.state_dict().keys() ^ expected)
        if different:
            raise ValueError(
                f"`unet` and a branch for it differ in {len(different)} weights, such as {different[0]}: unload or"
                " fuse LoRA, unload IP-Adapters, disable FreeNoise, and copy then."
            )
        for layer in branch._new_layers():
            layer.to_empty(device="cpu")  # where a seed means the same for every device
            _draw(layer, generator)
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
        Args:
            sample: noisy latents, `(batch, channels, num_frames, height, width)`, as the UNet gets them.
            timestep: one for all clips, or `(batch,)`.
            encoder_hidden_states: text states, one copy per frame, `(batch * num_frames, tokens, dim)`, as the UNet
                gets them.
            image: the picture of each clip in [-1, 1], white where there is none, `(batch, 3, 8 * height, 8 * width)`
                (the factor is that of `image_channels`).
            retention_scale: factor of all residuals.

        Returns:
            What the UNet takes as `down_block_additional_residuals`, a tuple of `(batch * num_frames, channels, ...)`,
            and as `mid_block_additional_residual`.

        Raises:
            ValueError: a picture of another size, or one that is not there for each clip.
            RuntimeError: the motion modules do not attend as the config says.
        """
        self._check_attention()
        batch_size, _, num_frames, height, width = sample.shape
        expected = (batch_size, 3, height * self.image_factor, width * self.image_factor)
        if tuple(image.shape) != expected:
            raise ValueError(f"`image` is {tuple(image.shape)}, must be {expected} for latents {tuple(sample.shape)}.")

        timesteps = torch.as_tensor(timestep, device=sample.device).expand(batch_size)
        time = self.time_embedding(self.time_proj(timesteps).to(self.dtype))
        time = time.repeat_interleave(num_frames, dim=0)
        picture = self.image_embedding(image.to(sample.dtype)).repeat_interleave(num_frames, dim=0)
        hidden_states = self.conv_in(rearrange(sample, "batch channels f h w -> (batch f) channels h w")) + picture

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
        """How many times as high and wide as the latents the picture is."""
        return 2 ** (len(self.config.image_channels) - 1)

    def check_fits(self, unet: UNetMotionModel) -> None:
        """Raise a `ValueError` that names the entry of the configs in which `unet` and the branch for it differ."""
        for name in SHARED_ENTRIES:
            own, others = (_plain(config[name]) for config in (self.config, unet.config))
            if own != others:
                raise ValueError(f"`image_retention` does not fit `unet`: {name} is {own}, but {others} in the UNet.")

    def check_image_factor(self, vae_scale_factor: int) -> None:
        """Raise a `ValueError` unless images are `vae_scale_factor` times as large as their latents."""
        if self.image_factor != vae_scale_factor:
            raise ValueError(
                f"`image_retention` must take images {vae_scale_factor} times as large as the latents, as this VAE"
                f" makes them, got a branch for {self.image_factor} times."
            )

    def _check_attention(self) -> None:
        mode = self.config.sparse_causal_mode
        for module in self.modules():
            if isinstance(module, AnimateDiffTransformer3D):
                running = getattr(module.transformer_blocks, "sparse_causal_mode", "full")
                if running != mode:
                    raise RuntimeError(
                        f"The config of the branch says sparse_causal_mode={mode!r}, its motion modules run"
                        f" {running!r}: call `install_sparse_causal_attention(branch, {mode!r})` after loading it."
                    )

    def _new_layers(self) -> list[nn.Conv2d]:
        new = (self.image_embedding, self.zero_convs, self.zero_conv_mid)
        return [layer for part in new for layer in part.modules() if isinstance(layer, nn.Conv2d)]


_LAYERS_OF_THE_WAY_UP = ("reverse_transformer_layers_per_block", "reverse_temporal_transformer_layers_per_block")


def _entries_of_unet() -> list[str]:
    """The entries of a branch's config that are a `UNetMotionModel`'s."""
    known = inspect.signature(UNetMotionModel.__init__).parameters
    return [name for name in inspect.signature(ImageRetention.__init__).parameters if name in known and name != "self"]


def _plain(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry  # a tuple is a list once it was in a file


def _draw(layer: nn.Conv2d, generator: torch.Generator | None) -> None:
    """As `nn.Conv2d` draws by itself: uniform between -1 and 1 over the root of its inputs."""
    bound = (layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]) ** -0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
