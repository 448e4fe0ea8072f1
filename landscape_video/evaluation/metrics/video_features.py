"""One vector for a clip: what the Frechet metrics compare, and what the inception score asks a classifier.

Each extractor has a `name` that stands beside the numbers it leads to, a `description` with hash and preprocessing for
the protocol, `min_frames`, and gives a float64 vector for a clip, uint8 RGB (num_frames, height, width, 3).
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from landscape_video.evaluation.metrics.clip_metrics import ClipScorer
from landscape_video.evaluation.metrics.i3d import I3D, MIN_FRAMES
from landscape_video.evaluation.metrics.weights import find_folder, hash_weights


@dataclass(frozen=True)
class I3DPreset:
    """How frames come to 224 x 224, and how the covariance is divided (`ddof`)."""

    words: str
    crop: bool
    ddof: int


I3D_PRESETS = {
    "stylegan-v": I3DPreset("whole frame stretched to 224 x 224, covariance / n (StyleGAN-V)", False, 0),
    "center-crop": I3DPreset("shorter side to 224, centre crop 224, covariance / (n - 1) (VideoGPT)", True, 1),
}


class FeatureExtractor(Protocol):
    """What the Frechet metrics need."""

    name: str
    description: str
    ddof: int
    min_frames: int

    def features(self, clip: np.ndarray) -> np.ndarray:
        """(dim,) float64 of a clip, uint8 RGB (num_frames, height, width, 3)."""


class ClipFeatures:
    """Of a CLIP, where there is no I3D: content from the mean of the frames' embeddings, motion from the mean absolute
    difference of consecutive ones, (2 * dim,), scaled so that an entry of an embedding is about 1.
    """

    ddof, min_frames = 1, 2

    def __init__(self, scorer: ClipScorer) -> None:
        self.scorer = scorer
        self.name = scorer.name
        self.description = (
            f"{scorer.name}, mean and mean absolute change of {scorer.dim} CLIP dimensions, covariance / (n - 1); "
            "compares with no published FVD"
        )

    def features(self, clip: np.ndarray) -> np.ndarray:
        return self.of_embeddings(self.scorer.frames(clip))

    def of_embeddings(self, frames: torch.Tensor) -> np.ndarray:
        """The same from embeddings (frames, dim) that are there already."""
        scaled = frames * frames.shape[1] ** 0.5
        return torch.cat([scaled.mean(dim=0), (scaled[1:] - scaled[:-1]).abs().mean(dim=0)]).numpy()


class I3DFeatures:
    """Logits of an I3D of Kinetics-400, (400,).

    Args:
        file: the TorchScript file of StyleGAN-V (`i3d_torchscript.pt`), or a plain state dict in pytorch-i3d's layout
            (`rgb_imagenet.pt`, `i3d_pretrained_400.pt`, or the same as safetensors). TorchScript is a program: take
            it only from where you would take code.
        preset: one of `I3D_PRESETS`.
        device: to compute on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, or its tensors have other names or shapes.
    """

    min_frames = MIN_FRAMES

    def __init__(self, file: str | Path, preset: str = "stylegan-v", device: str | torch.device = "cpu") -> None:
        if preset not in I3D_PRESETS:
            raise ValueError(f"there is no preset {preset!r}; there are {', '.join(I3D_PRESETS)}.")
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: there is no such file.")
        self.model = load_i3d(file).to(device).eval()
        self.device, self.preset = device, I3D_PRESETS[preset]
        self.name = f"I3D {preset}"
        self.ddof = self.preset.ddof
        self.description = f"I3D {Path(file).name}, sha256 {hash_weights(file)}, {self.preset.words}"

    @torch.no_grad()
    def features(self, clip: np.ndarray) -> np.ndarray:
        video = prepare_i3d(clip, self.preset)[None].to(self.device)
        try:
            logits = self.model(video, rescale=False, resize=False, return_features=True)
        except RuntimeError as error:  # a program that takes other arguments
            if "argument" not in str(error):
                raise
            raise ValueError(f"{self.description}: is not the TorchScript file of StyleGAN-V: {error}") from error
        return logits[0].double().cpu().numpy()


def prepare_i3d(clip: np.ndarray, preset: I3DPreset) -> torch.Tensor:
    """(3, num_frames, 224, 224) float32 in [-1, 1], resized bilinearly, without smoothing, as both presets do."""
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
    height, width = frames.shape[2:]
    size = (224, 224)
    if preset.crop:
        size = (
            (224, max(224, int(width * 224 / height)))
            if height < width
            else (max(224, int(height * 224 / width)), 224)
        )
    frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    return (frames[:, :, top : top + 224, left : left + 224] / 127.5 - 1).permute(1, 0, 2, 3)


def load_i3d(file: str | Path) -> torch.nn.Module:
    """The network of a file, see `I3DFeatures`."""
    if Path(file).suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _i3d_of(load_file(file), file)
        except SafetensorError as error:
            raise ValueError(f"{file}: is no whole safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript; the file that everyone uses is one
            return torch.jit.load(str(file), map_location="cpu")
    except RuntimeError:
        pass  # no TorchScript, so a state dict
    from pickle import UnpicklingError

    try:
        return _i3d_of(torch.load(file, map_location="cpu", weights_only=True), file)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        raise ValueError(f"{file}: is neither TorchScript nor a state dict: {reason}") from error


def _i3d_of(weights: dict[str, torch.Tensor], file: str | Path) -> I3D:
    model = I3D()
    needed = {name: tensor.shape for name, tensor in model.state_dict().items()}
    counters = {name for name in needed if name.endswith("num_batches_tracked")}  # older files have none
    given = {name: getattr(tensor, "shape", None) for name, tensor in dict(weights).items() if name not in counters}
    for name, shape in needed.items():
        if name not in counters and given.get(name) != shape:
            found = "there is none" if name not in given else f"there it is {tuple(given[name] or ())}"
            raise ValueError(f"{file}: is no I3D of 400 classes: {name} has to be {tuple(shape)}, but {found}.")
    if unknown := sorted(given.keys() - needed.keys()):
        raise ValueError(f"{file}: is no I3D of 400 classes: what is {unknown[0]}?")
    model.load_state_dict(weights, strict=False)  # for the counters alone; all others were compared above
    return model


class VideoClassifier:
    """Logits of a video classifier, for the inception score.

    Args:
        source: folder or name on the Hub of an `AutoModelForVideoClassification` (VideoMAE, TimeSformer, ViViT) with
            its processor.
        device: to compute on.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: the source is not there, or no such model.
    """

    def __init__(self, source: str | Path, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForVideoClassification, AutoVideoProcessor

        folder = find_folder(source)
        try:
            self.model = AutoModelForVideoClassification.from_pretrained(folder, dtype=torch.float32)
            self.processor = AutoVideoProcessor.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{source}: does not load as a video classifier: {reason}") from error
        self.model.to(device).eval()
        self.device = device
        self.num_frames = self.model.config.num_frames
        self.name = str(source).rstrip("/").rpartition("/")[2]
        self.description = (
            f"{self.name} ({type(self.model).__name__}), sha256 {hash_weights(folder)}, {self.num_frames} frames "
            f"evenly spaced, {type(self.processor).__name__}, {self.model.config.num_labels} classes, 10 splits"
        )

    @torch.no_grad()
    def logits(self, clip: np.ndarray) -> np.ndarray:
        """(classes,) float64 of a clip, uint8 RGB (num_frames, height, width, 3)."""
        rows = np.linspace(0, len(clip) - 1, self.num_frames).round().astype(int)
        frames = torch.from_numpy(np.ascontiguousarray(clip[rows])).permute(0, 3, 1, 2)
        inputs = self.processor(frames, return_tensors="pt").to(self.device)
        return self.model(**inputs).logits[0].double().cpu().numpy()
