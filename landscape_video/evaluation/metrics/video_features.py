"""Compute CLIP embeddings of frames and texts, and one vector per clip.

Vectors are the features that FVD and KVD compare, and the logits of the inception score.

FVD's network is I3D (Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017). Names and shapes of its state
dict are those of piergiaj's pytorch-i3d (`Mixed_3b.b1a.conv3d.weight`), so published files of Kinetics-400 weights
load unchanged.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape_video.evaluation.metrics.weights import find_folder, hash_weights
from pipeline_landscape_video import SHANSHUI_TINY


# Name, input channels, and the output channels of the convolutions in a block: 1x1x1; 1x1x1 before 3x3x3; 3x3x3;
# 1x1x1 before 3x3x3; 3x3x3; 1x1x1 after pooling.
INCEPTION_BLOCKS = (
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)
MIN_FRAMES = 9  # the last pooling covers two time steps, and fewer frames leave only one
MAX_REASON = 200  # characters: a file of another network lacks hundreds of tensors


class ClipScorer:
    """Compute CLIP embeddings with the preprocessing that the model comes with.

    Args:
        source: Folder or name on the Hub of a `transformers.CLIPModel` with tokenizer and image processor. None uses
            the one of shanshui-tiny, which needs no network; its values do not compare with published ones.
        device: Device to compute on.
        batch_size: Frames in one forward pass.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The source is missing or is not a CLIP.
    """

    def __init__(
        self, source: str | Path | None = None, device: str | torch.device = "cpu", batch_size: int = 32
    ) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = SHANSHUI_TINY / "clip" if source is None else find_folder(source)
        self.name = "shanshui-clip" if source is None else str(source).rstrip("/").rpartition("/")[2]
        try:
            self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
            self.tokenizer = CLIPTokenizer.from_pretrained(folder)
            self.processor = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}: not a CLIP model: {error}") from error
        self.sha256 = hash_weights(folder)
        self.device, self.batch_size = device, batch_size

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    @property
    def description(self) -> str:
        """Name, hash of the weights and preprocessing, for the protocol."""
        processor = self.processor
        words = [f"{self.name}, sha256 {self.sha256}"]
        if processor.do_resize:
            words.append(f"resized to {dict(processor.size)} (PIL filter {int(processor.resample)})")
        if processor.do_center_crop:
            words.append(f"center crop {processor.crop_size['width']} x {processor.crop_size['height']}")
        return ", ".join([*words, f"mean {list(processor.image_mean)}, std {list(processor.image_std)}"])

    @torch.no_grad()
    def frames(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Embed uint8 RGB frames (height, width, 3): (frames, dim) float64 of unit length, on the CPU."""
        parts = []
        for start in range(0, len(frames), self.batch_size):
            batch = list(frames[start : start + self.batch_size])
            pixels = self.processor(images=batch, return_tensors="pt").pixel_values.to(self.device)
            pooled = self.model.vision_model(pixels).pooler_output
            parts.append(self.model.visual_projection(pooled).double().cpu())
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts: (texts, dim) float64 of unit length, on the CPU. Longer texts are truncated."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        pooled = self.model.text_model(tokens.to(self.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled).double().cpu(), dim=-1)

    def is_too_long(self, text: str) -> bool:
        """Whether `texts` truncates this text."""
        return len(self.tokenizer(text).input_ids) > self.tokenizer.model_max_length


def missing_on_axis(size: int, kernel: int, stride: int) -> int:
    """Amount of TensorFlow's SAME padding along one axis: it makes ceil(size / stride) outputs."""
    return max(((size + stride - 1) // stride - 1) * stride + kernel - size, 0)


def pad_same(hidden: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's SAME padding with zeros: half of it before, an odd one after."""
    # Not a loop: TorchScript of torch 2.15 loses the tensor in the second iteration.
    time = missing_on_axis(hidden.shape[2], kernel[0], stride[0])
    height = missing_on_axis(hidden.shape[3], kernel[1], stride[1])
    width = missing_on_axis(hidden.shape[4], kernel[2], stride[2])
    before = [width // 2, height // 2, time // 2]  # F.pad counts from the last axis
    sizes = [before[0], width - before[0], before[1], height - before[1], before[2], time - before[2]]
    return F.pad(hidden, sizes)


class Unit3D(nn.Module):
    """Convolution, batch norm and ReLU; the last one of the network has a bias, and neither norm nor ReLU."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 1, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel, kernel, kernel), (stride, stride, stride)
        self.conv3d = nn.Conv3d(channels, out_channels, kernel, stride, bias=last)
        self.bn = nn.Identity() if last else nn.BatchNorm3d(out_channels, eps=1e-3)
        self.activation = nn.Identity() if last else nn.ReLU()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv3d(pad_same(hidden, self.kernel, self.stride))))


class MaxPool(nn.Module):
    """Max pooling with SAME padding. Zeros never win, because the input has passed through a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, hidden: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(hidden, self.kernel, self.stride), self.kernel, self.stride)


class InceptionBlock(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, out: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit3D(channels, out[0])
        self.b1a, self.b1b = Unit3D(channels, out[1]), Unit3D(out[1], out[2], 3)
        self.b2a, self.b2b = Unit3D(channels, out[3]), Unit3D(out[3], out[4], 3)
        self.b3a, self.b3b = MaxPool((3, 3, 3), (1, 1, 1)), Unit3D(channels, out[5])

    def forward(self, hidden: Tensor) -> Tensor:
        branches = (
            self.b0(hidden),
            self.b1b(self.b1a(hidden)),
            self.b2b(self.b2a(hidden)),
            self.b3b(self.b3a(hidden)),
        )
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """The RGB stream of I3D, up to the logits."""

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.MaxPool3d_4a_3x3 = MaxPool((3, 3, 3), (2, 2, 2))
        self.MaxPool3d_5a_2x2 = MaxPool((2, 2, 2), (2, 2, 2))
        for name, channels, out in INCEPTION_BLOCKS:
            self.add_module(name, InceptionBlock(channels, out))
        self.logits = Unit3D(1024, num_classes, last=True)

    def forward(
        self, video: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = True
    ) -> Tensor:
        """Logits (batch, num_classes), or probabilities without `return_features`.

        Args:
            video: (batch, 3, num_frames, 224, 224) in [-1, 1], at least `MIN_FRAMES` frames.
            rescale: Accept values in [0, 255], as the TorchScript file of StyleGAN-V does.
            resize: Accept frames of any size, as that file does.
            return_features: Whether to stop before the softmax.
        """
        if resize:
            video = F.interpolate(video, size=[video.shape[2], 224, 224], mode="trilinear", align_corners=False)
        if rescale:
            video = 2 * video / 255 - 1
        hidden = self.MaxPool3d_2a_3x3(self.Conv3d_1a_7x7(video))
        hidden = self.MaxPool3d_3a_3x3(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(hidden)))
        hidden = self.MaxPool3d_4a_3x3(self.Mixed_3c(self.Mixed_3b(hidden)))
        hidden = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(hidden)))))
        hidden = self.Mixed_5c(self.Mixed_5b(self.MaxPool3d_5a_2x2(hidden)))
        hidden = F.avg_pool3d(hidden, [2, 7, 7], [1, 1, 1])
        logits = self.logits(hidden).mean(dim=[2, 3, 4])
        return logits if return_features else logits.softmax(dim=1)


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
