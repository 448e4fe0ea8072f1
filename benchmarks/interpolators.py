"""Interpolation methods that the SOFP benchmark compares: each makes the middle frames of a clip from the others.

Frames are `(num_frames, 3, height, width)` in [0, 1]; N frames give N - 1 middle frames.

The learned one is RIFE 4 (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", 2022).
Four blocks, coarse to fine, refine the flows from the middle frame to both neighbors and the mask that blends them.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from assets import ASSETS
from landscape_video.files import hash_chunks
from pipeline_landscape_video import SOFP_MODES, interpolate_frames
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator, FlowEstimator, load_flow_estimator


SCALES = (8, 4, 2, 1)
WIDTHS = (192, 128, 96, 64)
MULTIPLE = 64  # the coarsest block works at an eighth of the size and halves it three times more

Interpolator = Callable[[Tensor], Tensor]
PAIRS = 4  # pairs of frames that RIFE takes at once


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


def repeat(frames: Tensor) -> Tensor:
    """Repeat the frame before."""
    return frames[:-1]


def average(frames: Tensor) -> Tensor:
    """Average both neighbors."""
    return (frames[:-1] + frames[1:]) / 2


def sofp(flow_estimator: FlowEstimator, sofp_mode: str, **settings: int) -> Interpolator:
    """SOFP with a flow estimator."""
    return lambda frames: interpolate_frames(frames, flow_estimator, sofp_mode, **settings)[1::2]


def farneback_flow(frames_a: Tensor, frames_b: Tensor) -> Tensor:
    """OpenCV's Farneback flow. Window 15 and polynomials over 7 pixels were best on the tuning clips."""
    flows = [
        cv2.calcOpticalFlowFarneback(
            gray_a, gray_b, None, pyr_scale=0.5, levels=5, winsize=15, iterations=3, poly_n=7, poly_sigma=1.5, flags=0
        )
        for gray_a, gray_b in zip(_gray(frames_a), _gray(frames_b), strict=True)
    ]
    return torch.from_numpy(np.stack(flows)).movedim(-1, 1)


class CachedFlow:
    """A flow estimator that remembers flows, because several methods need those of the same pairs of frames."""

    def __init__(self, flow_estimator: FlowEstimator) -> None:
        self.flow_estimator = flow_estimator
        self.flows: dict[tuple[str, str], Tensor] = {}

    def __call__(self, frames_a: Tensor, frames_b: Tensor) -> Tensor:
        keys = list(zip(map(_digest, frames_a), map(_digest, frames_b), strict=True))
        new = [i for i, key in enumerate(keys) if key not in self.flows]
        if new:
            estimated = self.flow_estimator(frames_a[new], frames_b[new])
            self.flows.update(zip([keys[i] for i in new], estimated, strict=True))
        return torch.stack([self.flows[key] for key in keys])

    def forget(self) -> None:
        """Drop all flows."""
        self.flows.clear()


def rife() -> Interpolator:
    """RIFE, on a few pairs at a time."""
    model = RIFE().eval()
    model.load_state_dict(load_file(ASSETS / "rife.safetensors"))

    def interpolate(frames: Tensor) -> Tensor:
        pairs = zip(frames[:-1].split(PAIRS), frames[1:].split(PAIRS), strict=True)
        return torch.cat([model(*pair) for pair in pairs])

    return interpolate


class Comparison:
    """All methods. SOFP with a trained RAFT is slow on a CPU, so it runs on a few clips only.

    Farneback's flow goes through the same warping as ours, at even speed.
    """

    def __init__(self, with_raft: bool) -> None:
        self.dis, self.raft = CachedFlow(DISFlowEstimator()), None
        self.methods: dict[str, Interpolator] = {
            "repeat": repeat,
            "average": average,
            "farneback": sofp(farneback_flow, "linear"),
            "rife": rife(),
            **{f"sofp_{mode}": sofp(self.dis, mode) for mode in SOFP_MODES},
        }
        if with_raft:
            self.raft = CachedFlow(load_flow_estimator("raft", ASSETS / "raft_large_wind.safetensors"))

    def __call__(self, frames: Tensor, with_raft: bool) -> dict[str, Tensor]:
        """Compute the middle frames of each method."""
        middles = {name: method(frames) for name, method in self.methods.items()}
        self.dis.forget()
        if with_raft:
            middles |= {f"raft_{mode}": sofp(self.raft, mode)(frames) for mode in ("linear", "quadratic")}
            self.raft.forget()
        return middles


def _digest(frame: Tensor) -> str:
    return hash_chunks([frame.numpy().tobytes()])


def _gray(frames: Tensor) -> list[np.ndarray]:
    pixels = (frames.movedim(1, -1) * 255).round().to(torch.uint8).numpy()
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels]
