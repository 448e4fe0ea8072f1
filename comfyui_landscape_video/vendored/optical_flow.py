# Copied from pipeline_landscape_video/landscape_optical_flow.py by vendor.py. Change the source instead.
"""
Estimate optical flow between frames with RAFT (torchvision) or DIS (OpenCV).

A flow estimator maps two batches of frames, `(pairs, 3, height, width)` in [0, 1], to the flow
`(pairs, 2, height, width)` in pixels, x then y: the content of `frames_a` at `p` is found in `frames_b` at
`p + flow(p)`. Any callable of this kind will do. The estimators here also offer its two halves, `encode` for one frame
and `match` for a pair, so that a caller with many pairs encodes each frame once.

RAFT: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", 2020.
DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016.
"""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


logger = logging.getLogger(__name__)

FLOW_ESTIMATORS = ("raft", "raft-small", "dis")

FlowEstimator = Callable[[Tensor, Tensor], Tensor]

# torchvision's RAFT pools its correlation volume three times and needs two cells at the coarsest level: 2 * 2^3 * 8.
_RAFT_MIN_SIZE, _RAFT_STRIDE = 128, 8
_DIS_MIN_SIZE = 16  # OpenCV refuses less than 12
_MAX_CORRELATION_BYTES = 2**30


class RAFTFlowEstimator(nn.Module):
    """
    RAFT of torchvision that encodes each frame once and upsamples after the last update only.

    The flow equals that of the wrapped model, pair by pair, to float32 rounding. Frames of any size are padded by
    reflection to at least 128 x 128 and multiples of 8. In half precision the convolutions run in the model's dtype;
    correlation, coordinates and flow stay float32, since float16 coordinates have steps of 0.25 pixels at 512.

    Args:
        model: A `torchvision.models.optical_flow.RAFT`.
        num_flow_updates: Number of refinement steps.
        chunk_size: Number of pairs or frames per batch. `None` takes as many as keep the correlation volume, by far
            the largest tensor, below 1 GiB.

    Raises:
        ValueError: `num_flow_updates` or `chunk_size` is less than 1.
    """

    def __init__(self, model: nn.Module, num_flow_updates: int = 12, chunk_size: int | None = None) -> None:
        super().__init__()
        if num_flow_updates < 1:
            raise ValueError(f"`num_flow_updates` must be at least 1, got {num_flow_updates}.")
        _check_chunk_size(chunk_size)
        self.model = model.eval().requires_grad_(False)
        self.num_flow_updates = num_flow_updates
        self.chunk_size = chunk_size

    def forward(self, frames_a: Tensor, frames_b: Tensor) -> Tensor:
        """Estimate the flow in pixels, `(pairs, 2, height, width)`, between frames `(pairs, 3, height, width)`."""
        _check_pairs(frames_a, frames_b)
        return self.match(self.encode(frames_a), self.encode(frames_b), *frames_a.shape[-2:]).to(frames_a.device)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames to features and context, `(frames, channels, padded_height / 8, padded_width / 8)`."""
        _check_frames(frames)
        parameter = next(self.model.parameters())
        encoded = []
        for chunk in frames.split(self._chunk_size(*frames.shape[-2:])):
            pixels = chunk.to(parameter.device, torch.float32) * 2 - 1
            pixels = _reflect_pad(pixels, _RAFT_MIN_SIZE, _RAFT_STRIDE).to(parameter.dtype)
            encoded.append(torch.cat([self.model.feature_encoder(pixels), self.model.context_encoder(pixels)], dim=1))
        return torch.cat(encoded)

    @torch.no_grad()
    def match(self, encoded_a: Tensor, encoded_b: Tensor, height: int, width: int) -> Tensor:
        """Estimate the flow between encoded frames of this size, float32 `(pairs, 2, height, width)`."""
        chunk_size = self._chunk_size(height, width)
        chunks = zip(encoded_a.split(chunk_size), encoded_b.split(chunk_size), strict=True)
        padded_flow = torch.cat([self._match(a, b) for a, b in chunks])
        self.model.corr_block.corr_pyramid = [torch.tensor(0)]  # else the block keeps the last volume alive
        top, left = (padded_flow.shape[-2] - height) // 2, (padded_flow.shape[-1] - width) // 2
        return padded_flow[..., top : top + height, left : left + width]

    def _match(self, encoded_a: Tensor, encoded_b: Tensor) -> Tensor:
        from torchvision.models.optical_flow import raft as torchvision_raft

        model, dtype = self.model, encoded_a.dtype
        hidden_channels = model.update_block.hidden_state_size
        context_channels = model.context_encoder.output_dim - hidden_channels
        feature_channels = encoded_a.shape[1] - hidden_channels - context_channels
        channels = [feature_channels, hidden_channels, context_channels]
        features_a, hidden_state, context = encoded_a.split(channels, dim=1)
        model.corr_block.build_pyramid(features_a.float().contiguous(), encoded_b[:, :feature_channels].float())
        hidden_state, context = torch.tanh(hidden_state), F.relu(context)

        pairs, _, rows, columns = encoded_a.shape
        start = torchvision_raft.make_coords_grid(pairs, rows, columns, device=encoded_a.device)
        coordinates = start
        for _ in range(self.num_flow_updates):
            correlation = model.corr_block.index_pyramid(centroids_coords=coordinates).to(dtype)
            flow = (coordinates - start).to(dtype)
            hidden_state, flow_step = model.update_block(hidden_state, context, correlation, flow)
            coordinates = coordinates + flow_step.float()
        up_mask = None if model.mask_predictor is None else model.mask_predictor(hidden_state).float()
        return torchvision_raft.upsample_flow(coordinates - start, up_mask=up_mask)

    def _chunk_size(self, height: int, width: int) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        cells = max(height, _RAFT_MIN_SIZE) * max(width, _RAFT_MIN_SIZE) // _RAFT_STRIDE**2
        return max(1, _MAX_CORRELATION_BYTES // (4 * cells**2))


class DISFlowEstimator:
    """
    Dense inverse search of OpenCV on gray frames: without weights, fast on a CPU, deterministic.

    The defaults search more finely than OpenCV's medium preset (finest scale 1, stride 3). Interpolation gains from
    that, and warping still takes most of the time.

    Args:
        finest_scale: Level of the image pyramid at which the search ends; 0 is full resolution.
        patch_stride: Distance of the matched 8 x 8 patches, in pixels of that level.
        num_threads: Number of pairs that run in parallel. `None` takes one per core.

    Raises:
        ValueError: An argument is out of its range.
        ImportError: OpenCV is not installed.
    """

    def __init__(self, finest_scale: int = 0, patch_stride: int = 2, num_threads: int | None = None) -> None:
        if finest_scale < 0:
            raise ValueError(f"`finest_scale` must be at least 0, full resolution, got {finest_scale}.")
        if not 1 <= patch_stride <= 8:
            raise ValueError(f"`patch_stride` must be between 1 and 8 pixels, got {patch_stride}.")
        _check_chunk_size(num_threads, "num_threads")
        if find_spec("cv2") is None:  # fail before a clip is sampled, not after
            raise ImportError("The flow estimator 'dis' needs OpenCV: `pip install opencv-python`.")
        self.finest_scale = finest_scale
        self.patch_stride = patch_stride
        self.num_threads = num_threads or os.cpu_count() or 1

    def __call__(self, frames_a: Tensor, frames_b: Tensor) -> Tensor:
        """Estimate the flow in pixels, `(pairs, 2, height, width)`, between frames `(pairs, 3, height, width)`."""
        _check_pairs(frames_a, frames_b)
        return self.match(self.encode(frames_a), self.encode(frames_b), *frames_a.shape[-2:]).to(frames_a.device)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Convert frames to gray levels, uint8 `(frames, padded_height, padded_width)` on the CPU."""
        _check_frames(frames)
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        gray = (frames.float().cpu() * luma).sum(dim=1, keepdim=True)
        gray = _reflect_pad(gray, _DIS_MIN_SIZE, 1).squeeze(1)
        return (gray.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()

    def match(self, encoded_a: Tensor, encoded_b: Tensor, height: int, width: int) -> Tensor:
        """Estimate the flow between encoded frames of this size, float32 `(pairs, 2, height, width)` on the CPU."""
        gray_pairs = list(zip(encoded_a.numpy(), encoded_b.numpy(), strict=True))
        with ThreadPoolExecutor(min(self.num_threads, len(gray_pairs))) as pool:
            flows = list(pool.map(lambda pair: self._match(*pair), gray_pairs))
        flow = rearrange([torch.from_numpy(flow) for flow in flows], "pairs h w xy -> pairs xy h w")
        top, left = (flow.shape[-2] - height) // 2, (flow.shape[-1] - width) // 2
        return flow[..., top : top + height, left : left + width]

    def _match(self, gray_a, gray_b):
        import cv2

        # One object per pair: threads cannot share its buffers.
        search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(self.finest_scale)
        search.setPatchStride(self.patch_stride)
        return search.calc(gray_a, gray_b, None)


def estimator_at_hand() -> str:
    """Return the name of the default flow estimator, and log it: RAFT if its weights are here, else DIS."""
    if find_spec("torchvision") is None:
        logger.warning("Flow estimator: DIS of OpenCV, because RAFT needs torchvision.")
        return "dis"
    from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

    downloaded = Path(torch.hub.get_dir()) / "checkpoints"
    for name, entries in (("raft", Raft_Large_Weights), ("raft-small", Raft_Small_Weights)):
        if (downloaded / entries.DEFAULT.url.rsplit("/", 1)[-1]).is_file():
            logger.info(f"Flow estimator: {name}, from {downloaded}.")
            return name
    logger.warning("Flow estimator: DIS of OpenCV, because RAFT weights are missing; choose 'raft' to download them.")
    return "dis"


def _reflect_pad(frames: Tensor, min_size: int, multiple: int) -> Tensor:
    """
    Pad height and width evenly on both sides by reflection, to at least `min_size` and a multiple of `multiple`.

    Unlike `torch.nn.functional.pad`, this reflects again where the padding is wider than the frame.
    """
    for dim in (-2, -1):
        size = frames.shape[dim]
        target = -(-max(size, min_size) // multiple) * multiple
        if target == size:
            continue
        period = max(1, 2 * (size - 1))
        position = (torch.arange(target, device=frames.device) - (target - size) // 2) % period
        frames = frames.index_select(dim, torch.minimum(position, period - position))
    return frames


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames must have the shape (frames, 3, height, width), got {tuple(frames.shape)}.")


def _check_pairs(frames_a: Tensor, frames_b: Tensor) -> None:
    if frames_a.shape != frames_b.shape:
        raise ValueError(f"frames must have one shape, got {tuple(frames_a.shape)} and {tuple(frames_b.shape)}.")


def _check_chunk_size(chunk_size: int | None, name: str = "chunk_size") -> None:
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"`{name}` must be at least 1 pair, got {chunk_size}.")
