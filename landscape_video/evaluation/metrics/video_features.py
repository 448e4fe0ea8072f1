"""Compute one vector per clip: the features that FVD and KVD compare, and the logits of the inception score."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from landscape_video.evaluation.metrics.clip_scorer import ClipScorer
from landscape_video.evaluation.metrics.i3d import I3D, MIN_FRAMES
from landscape_video.evaluation.metrics.weights import find_folder, hash_weights


@dataclass(frozen=True)
class I3DPreset:
    """The preprocessing of one published FVD.

    Args:
        words: What it does, for the protocol.
        crop: Whether to crop frames to a square of 224 x 224 pixels, rather than stretch them.
        ddof: 1 for the unbiased covariance, 0 for the one divided by the count.
    """

    words: str
    crop: bool
    ddof: int


MAX_REASON = 200  # characters: a file of another network lacks hundreds of tensors
I3D_PRESETS = {
    "stylegan-v": I3DPreset("whole frame stretched to 224 x 224, covariance / n (StyleGAN-V)", False, 0),
    "center-crop": I3DPreset("shorter side to 224, center crop 224, covariance / (n - 1) (VideoGPT)", True, 1),
}


class ClipFeatures:
    """Features of a CLIP, (2 * dim,), for use without I3D.

    The first half is the mean of the frames' embeddings (content), the second the mean absolute difference of
    consecutive ones (motion), scaled so that an entry of an embedding is about 1.
    """

    ddof, min_frames = 1, 2

    def __init__(self, scorer: ClipScorer) -> None:
        self.scorer = scorer
        self.name = scorer.name
        self.description = (
            f"{scorer.name}, mean and mean absolute change of {scorer.dim} CLIP dimensions, covariance / (n - 1); "
            "not comparable with any published FVD"
        )

    def features(self, clip: np.ndarray) -> np.ndarray:
        return self.of_embeddings(self.scorer.frames(clip))

    def of_embeddings(self, frames: torch.Tensor) -> np.ndarray:
        """Compute the same from the embeddings (frames, dim) of a clip."""
        scaled = frames * frames.shape[1] ** 0.5
        return torch.cat([scaled.mean(dim=0), (scaled[1:] - scaled[:-1]).abs().mean(dim=0)]).numpy()


class I3DFeatures:
    """Logits (400,) of an I3D trained on Kinetics-400.

    Args:
        file: The TorchScript file of StyleGAN-V (`i3d_torchscript.pt`), or a plain state dict in pytorch-i3d's layout
            (`rgb_imagenet.pt`, `i3d_pretrained_400.pt`, or the same as safetensors). TorchScript runs code: use only
            files from a source that you trust.
        preset: One of `I3D_PRESETS`.
        device: Device to compute on.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is neither, or its tensors have other names or shapes.
    """

    min_frames = MIN_FRAMES

    def __init__(self, file: str | Path, preset: str = "stylegan-v", device: str | torch.device = "cpu") -> None:
        if preset not in I3D_PRESETS:
            raise ValueError(f"`preset` must be one of {', '.join(I3D_PRESETS)}, got {preset!r}.")
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: no such file.")
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
        except RuntimeError as error:  # TorchScript of another model takes other arguments
            if "argument" not in str(error):
                raise
            raise ValueError(f"{self.description}: not the TorchScript file of StyleGAN-V: {error}") from error
        return logits[0].double().cpu().numpy()


def prepare_i3d(clip: np.ndarray, preset: I3DPreset) -> torch.Tensor:
    """Preprocess a clip: (3, num_frames, 224, 224) float32 in [-1, 1], resized bilinearly without antialiasing."""
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
    height, width = frames.shape[2:]
    size = (224, 224)
    if preset.crop:
        size = tuple(max(224, int(side * 224 / min(height, width))) for side in (height, width))
    frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    return (frames[:, :, top : top + 224, left : left + 224] / 127.5 - 1).permute(1, 0, 2, 3)


def load_i3d(file: str | Path) -> torch.nn.Module:
    """Load the network of a file, see `I3DFeatures`."""
    if Path(file).suffix != ".safetensors":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript, but the usual file is one
                return torch.jit.load(str(file), map_location="cpu")
        except RuntimeError:
            pass  # not TorchScript: it may be a state dict
    from motion_adapter.convert import read_weights  # imports diffusers, which takes seconds

    weights, _ = read_weights(file)
    model = I3D()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).partition(":")[2].split())
        raise ValueError(f"{file}: not an I3D checkpoint with 400 classes: {reason[:MAX_REASON]}") from error
    return model


class VideoClassifier:
    """Logits of a video classifier, for the inception score.

    Args:
        source: Folder or name on the Hub of an `AutoModelForVideoClassification` (VideoMAE, TimeSformer, ViViT) with
            its processor.
        device: Device to compute on.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The source is missing or is not such a model.
    """

    def __init__(self, source: str | Path, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForVideoClassification, AutoVideoProcessor

        folder = find_folder(source)
        try:
            self.model = AutoModelForVideoClassification.from_pretrained(folder, dtype=torch.float32)
            self.processor = AutoVideoProcessor.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{source}: not a video classifier: {reason}") from error
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
        """Logits (classes,) float64 of a clip, uint8 RGB (num_frames, height, width, 3)."""
        rows = np.linspace(0, len(clip) - 1, self.num_frames).round().astype(int)
        frames = torch.from_numpy(np.ascontiguousarray(clip[rows])).permute(0, 3, 1, 2)
        inputs = self.processor(frames, return_tensors="pt").to(self.device)
        return self.model(**inputs).logits[0].double().cpu().numpy()
