"""
Estimate optical flow between frames with RAFT (torchvision) or DIS (OpenCV).

A flow estimator maps two batches of frames, `(pairs, 3, height, width)` in [0, 1], to the flow
`(pairs, 2, height, width)` in pixels, x then y: the content of `frames_a` at `p` is found in `frames_b` at
`p + flow(p)`. Any callable of this kind will do. The estimators here also offer its two halves, `encode` for one frame
and `match` for a pair, so that a caller with many pairs encodes each frame once.

RAFT: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", 2020.
DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016.
"""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from diffusers.utils import logging
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


logger = logging.get_logger(__name__)

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


def load_flow_estimator(
    name: str | None = None,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
) -> FlowEstimator:
    """
    Create a flow estimator.

    Args:
        name: One of `FLOW_ESTIMATORS`. `None` takes RAFT if `weights` are given or torchvision has downloaded some
            before, else DIS, which needs no weights; the choice is logged.
        weights: File of RAFT weights (`.safetensors`, or a `torch.save` of tensors, with the keys of torchvision or
            princeton-vl), or name of torchvision weights to download, such as `"C_T_V2"`. `None` downloads
            torchvision's default weights if `name` asks for RAFT.
        device: Device of RAFT. DIS always runs on the CPU.
        dtype: Precision of RAFT.
        chunk_size: Number of pairs per batch, see `RAFTFlowEstimator`, or in parallel, see `DISFlowEstimator`.

    Raises:
        ValueError: The name is unknown, weights are given for DIS, or the file has other keys or shapes than RAFT.
        OSError: The file does not exist, or the weights cannot be downloaded.
    """
    if name is not None and name not in FLOW_ESTIMATORS:
        raise ValueError(f"`flow_estimator` must be one of {', '.join(FLOW_ESTIMATORS)}, got {name!r}.")
    if name == "dis" and weights is not None:
        raise ValueError(f"`weights` must be None for the flow estimator 'dis', got {str(weights)!r}.")
    _check_chunk_size(chunk_size)
    if name is None and weights is None:
        name = estimator_at_hand()
    if name == "dis":
        return DISFlowEstimator(num_threads=chunk_size)
    model = _load_raft(name, weights)
    return RAFTFlowEstimator(model.to(device=device, dtype=dtype), chunk_size=chunk_size)


class FlowEstimatorCache:
    """Keep the flow estimator that a pipeline used last, until its name, weights, device or dtype change."""

    def __init__(self) -> None:
        self._estimators: dict[tuple, FlowEstimator] = {}

    def get(
        self, name: str | None, weights: str | Path | None, device: torch.device, dtype: torch.dtype
    ) -> FlowEstimator:
        """Return the flow estimator for these arguments, in half precision on a GPU only, since CPUs are slower."""
        half = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
        key = (name, weights, device, dtype if half else torch.float32)
        if key not in self._estimators:
            self._estimators = {key: load_flow_estimator(*key)}
        return self._estimators[key]


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


def _load_raft(name: str | None, weights: str | Path | None) -> nn.Module:
    """Load a RAFT of torchvision. Without a name, the weights decide whether it is the large or the small one."""
    from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights, raft_large, raft_small

    builders = {"raft": (raft_large, Raft_Large_Weights), "raft-small": (raft_small, Raft_Small_Weights)}
    build, entries = builders[name or "raft"]
    if weights is None or (str(weights) in (*entries.__members__, "DEFAULT") and not Path(weights).exists()):
        entry = entries[str(weights or "DEFAULT")]
        try:
            return build(weights=entry, progress=False)
        except OSError as error:
            raise OSError(
                f"RAFT weights cannot be downloaded from {entry.url} ({error}); pass a file as `weights`, or choose"
                " the flow estimator 'dis', which needs none."
            ) from error

    state_dict = _to_torchvision_keys(_read_state_dict(Path(weights)))
    if name is None and not any(key.startswith("mask_predictor.") for key in state_dict):
        build = raft_small
    model = build(weights=None)
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:  # its message has a line per tensor: hundreds for an unrelated file
        problems = _describe_differences(state_dict, model.state_dict())
        raise ValueError(
            f"{weights} must hold the weights of torchvision's {build.__name__}, got tensors that are {problems}."
        ) from error
    return model


def _describe_differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Describe how tensors differ in name or shape from the expected ones, with an example of each kind."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    shapes = [f"{name}: {tuple(found[name].shape)}, not {tuple(expected[name].shape)}" for name in reshaped]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    return ", ".join(f"{kind} ({names[0]}{_and_more(names)})" for kind, names in kinds.items() if names)


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a file of RAFT weights, got no file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} must hold weights that can be read without running code, got: {error}") from error
    state_dict = state_dict.get("state_dict", state_dict) if isinstance(state_dict, dict) else {"": None}
    if not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise ValueError(f"{path} must hold a plain state dict, got more than tensors.")
    return state_dict


# Names in princeton-vl/RAFT and their replacements in torchvision, applied in this order.
_PRINCETON_TO_TORCHVISION = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"^(\w+_encoder\.layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"^(\w+_encoder\.layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv([cf])(\d)\.", r"update_block.motion_encoder.conv\1\2.0."),
    (r"\.convc(\d)\.0\.", r".convcorr\1.0."),
    (r"\.convf(\d)\.0\.", r".convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d?)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"\.convgru\.", ".convgru1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)


def _to_torchvision_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of princeton-vl. Those of torchvision stay, and unknown ones fail in `load_state_dict`."""
    if not any(re.match(r"(module\.)?fnet\.", key) for key in state_dict):
        return state_dict
    renamed = {}
    for key, value in state_dict.items():
        # A residual block with a stride has the norm of its shortcut twice: as norm3 and as downsample.1.
        if re.search(r"\.layer\d\.\d\.norm3\.", key) and re.sub(r"norm3", "downsample.1", key) in state_dict:
            continue
        for pattern, replacement in _PRINCETON_TO_TORCHVISION:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


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
