"""RIFE 4 (IFNet), the learned interpolator that the SOFP benchmark compares with, for the weights of `assets.py`.

Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", 2022. Four blocks, coarse to
fine, refine the flows from the middle frame to both neighbors and the mask that blends them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


SCALES = (8, 4, 2, 1)
WIDTHS = (192, 128, 96, 64)
MULTIPLE = 64  # the coarsest block works at an eighth of the size and halves it three times more


class ScaledResidual(nn.Module):
    """A 3x3 convolution with a learned gain for each channel, added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(features) * self.beta + features, 0.2)


class FlowBlock(nn.Module):
    """Residual flow (4 channels: to both frames, x and y) and residual mask at one scale."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()

        def halve(channels: int, out_channels: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, out_channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2))

        self.conv0 = nn.Sequential(halve(in_channels, width // 2), halve(width // 2, width))
        self.convblock = nn.Sequential(*(ScaledResidual(width) for _ in range(8)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, 24, 4, stride=2, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Tensor, flow: Tensor | None, scale: int) -> tuple[Tensor, Tensor]:
        features = F.interpolate(features, scale_factor=1 / scale, mode="bilinear")
        if flow is not None:
            flow = F.interpolate(flow, scale_factor=1 / scale, mode="bilinear") / scale
            features = torch.cat([features, flow], dim=1)
        residual = self.lastconv(self.convblock(self.conv0(features)))
        residual = F.interpolate(residual, scale_factor=scale, mode="bilinear")
        return residual[:, :4] * scale, residual[:, 4:5]


class RIFE(nn.Module):
    """Predicts the frame at time `t` in [0, 1] between two frames `(pairs, 3, height, width)` in [0, 1], any size."""

    def __init__(self) -> None:
        super().__init__()
        for level, width in enumerate(WIDTHS):
            in_channels = 7 if level == 0 else 12  # frames and time, then also the mask and the flow
            self.add_module(f"block{level}", FlowBlock(in_channels, width))

    @torch.no_grad()
    def forward(self, frames_a: Tensor, frames_b: Tensor, t: float = 0.5) -> Tensor:
        height, width = frames_a.shape[-2:]
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        frames_a, frames_b = (F.pad(frames, padding, mode="replicate") for frames in (frames_a, frames_b))
        time = torch.full_like(frames_a[:, :1], t)
        flow, mask, warped_a, warped_b = None, None, frames_a, frames_b
        for level, scale in enumerate(SCALES):
            features = [warped_a, warped_b, time] + ([] if mask is None else [mask])
            flow_step, mask_step = getattr(self, f"block{level}")(torch.cat(features, dim=1), flow, scale)
            flow, mask = (flow_step, mask_step) if flow is None else (flow + flow_step, mask + mask_step)
            warped_a, warped_b = _warp(frames_a, flow[:, :2]), _warp(frames_b, flow[:, 2:])
        blended = torch.lerp(warped_b, warped_a, torch.sigmoid(mask))
        return blended[..., :height, :width]


def _warp(frames: Tensor, flow: Tensor) -> Tensor:
    height, width = frames.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position = torch.stack([x, y]).to(flow) + flow
    size = torch.tensor([width - 1, height - 1]).to(flow).view(1, 2, 1, 1)
    grid = (2 * position / size - 1).movedim(1, -1)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=True)
