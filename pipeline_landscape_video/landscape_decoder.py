"""
Decode a VAE's latents to images twice as large as those of its own decoder.

The new decoder starts from the VAE's: untrained, it returns the VAE's image enlarged bicubically, and training adds
details to it. The latents, and with them the denoising model, stay the same.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.resnet import ResnetBlock2D
from torch import nn


class DoubleSizeDecoder(ModelMixin, ConfigMixin):
    """
    Decode latents, (frames, channels, height, width), to images of twice the VAE's size.

    Args:
        latent_channels: Channels of the latents.
        block_out_channels: Channels of the levels of the VAE's decoder, from fine to coarse.
        layers_per_block: Residual blocks per level, as in the VAE.
        norm_num_groups: Groups of the group normalization, as in the VAE.
        mid_block_add_attention: Whether the mid block has attention, as in the VAE.
        scaling_factor: Factor on the VAE's latents, as in the VAE.
        mid_layers: Residual blocks added at the size of the latents, where they cost little time.
        wide_channels: Channels of the residual block added at the size of the VAE's images.
        detail_channels: Channels at full size. They cost most of the added time.
        detail_layers: Convolutions at full size.

    Example:
        >>> decoder = DoubleSizeDecoder.from_vae(pipe.vae)
        >>> images = decoder(latents)
        >>> pipe.frame_decoder = decoder  # frames of later calls have twice the size

    Attributes:
        enlargement: Factor on height and width of the VAE's images.
    """

    enlargement = 2

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        block_out_channels: tuple[int, ...] = (16, 32, 64, 128),
        layers_per_block: int = 1,
        norm_num_groups: int = 2,
        mid_block_add_attention: bool = False,
        scaling_factor: float = 1.0,
        mid_layers: int = 2,
        wide_channels: int = 32,
        detail_channels: int = 12,
        detail_layers: int = 1,
    ) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = Decoder(
            in_channels=latent_channels,
            up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=mid_block_add_attention,
        )
        fine, coarse, groups = block_out_channels[0], block_out_channels[-1], norm_num_groups
        self.extra_mid = nn.ModuleList(
            ResnetBlock2D(in_channels=coarse, temb_channels=None, groups=groups) for _ in range(mid_layers)
        )
        self.wide = ResnetBlock2D(in_channels=fine, out_channels=wide_channels, temb_channels=None, groups=groups)
        self.to_detail = nn.Conv2d(wide_channels, 4 * detail_channels, 3, padding=1)
        self.details = nn.ModuleList(
            nn.Conv2d(detail_channels, detail_channels, 3, padding=1) for _ in range(detail_layers)
        )
        self.detail_out = zero_module(nn.Conv2d(detail_channels, 3, 3, padding=1))
        for layer in self.extra_mid:  # residual blocks that change nothing yet
            zero_module(layer.conv2)

    @classmethod
    def from_vae(cls, vae: AutoencoderKL, **settings: int) -> "DoubleSizeDecoder":
        """Build a decoder that returns the images of `vae` enlarged bicubically; `settings` are those of the class."""
        shared = (
            "latent_channels", "block_out_channels", "layers_per_block", "norm_num_groups", "mid_block_add_attention",
            "scaling_factor",
        )  # fmt: skip
        model = cls(**{name: vae.config[name] for name in shared}, **settings)
        model.decoder.load_state_dict(vae.decoder.state_dict())
        model.post_quant_conv.load_state_dict(vae.post_quant_conv.state_dict())
        return model

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """
        Decode scaled latents, (frames, channels, h, w), to images, (frames, 3, height, width), roughly in [-1, 1].

        The images are twice as high and wide as those of the VAE.
        """
        decoder = self.decoder
        hidden = decoder.conv_in(self.post_quant_conv(latents / self.config.scaling_factor))
        for layer in self.extra_mid:
            hidden = layer(hidden, None)
        hidden = decoder.mid_block(hidden)
        for block in decoder.up_blocks:
            hidden = block(hidden)
        hidden = decoder.conv_act(decoder.conv_norm_out(hidden))
        image = F.interpolate(decoder.conv_out(hidden), scale_factor=2, mode="bicubic")
        detail = F.pixel_shuffle(self.to_detail(self.wide(hidden, None)), 2)
        for layer in self.details:
            detail = detail + layer(F.silu(detail))
        return image + self.detail_out(F.silu(detail))
