"""Compare frames with each other, with the prompt and with the input image, by their CLIP embeddings.

Values are means of cosines of CLIP embeddings (Radford et al., "Learning Transferable Visual Models From Natural
Language Supervision", 2021). They depend on the weights: show `ClipScorer.name` beside each number.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from landscape_video.evaluation.metrics.weights import find_folder, hash_weights
from pipeline_landscape_video import SHANSHUI_TINY


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


def clip_temp(frames: torch.Tensor) -> float:
    """CLIP-temp: mean cosine of consecutive embeddings (frames, dim) of unit length, at least two."""
    return float((frames[:-1] * frames[1:]).sum(dim=-1).mean())


def frame_consistency(frames: torch.Tensor) -> float:
    """Frame consistency of Tune-A-Video (Wu et al., 2022): mean cosine over all pairs of different frames."""
    count = len(frames)
    # The squared length of the sum is the sum over all ordered pairs; each frame with itself is taken out.
    return float(((frames.sum(dim=0) ** 2).sum() - (frames**2).sum()) / (count * (count - 1)))


def clip_text(frames: torch.Tensor, text: torch.Tensor) -> float:
    """CLIP-text, or CLIP-SIM with other weights: mean of 100 times the cosine of each frame and the prompt (dim,)."""
    return float(100 * (frames @ text).mean())


def fff_clip(frames: torch.Tensor, image: torch.Tensor) -> float:
    """First-frame fidelity: cosine of the embeddings of the first frame and of the input image (dim,)."""
    return float(frames[0] @ image)


def fff_ssim(clip: np.ndarray, image: np.ndarray) -> float:
    """First-frame fidelity: structural similarity of the first frame and the input image, see `ssim`.

    Args:
        clip: uint8 (num_frames, height, width, 3).
        image: uint8 (height, width, 3) with the clip's aspect ratio; resized to the clip's size (bicubic).

    Raises:
        ValueError: The aspect ratios differ, so that the clip shows a crop of the image; or scikit-image is missing.
    """
    height, width = clip.shape[1:3]
    if abs(image.shape[1] / image.shape[0] * height - width) > 1:
        raise ValueError(
            f"the image must have the aspect ratio of the clip, {width} x {height}, got {image.shape[1]} x "
            f"{image.shape[0]}."
        )
    if image.shape[:2] != (height, width):
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    return ssim(clip[0], image)


def ssim(image: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004) of two images (height, width, 3) with values from 0 to 255.

    The settings are the original's: a Gaussian window of sigma 1.5, population covariance, mean over the channels.

    Raises:
        ValueError: scikit-image is missing.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ValueError('structural similarity needs scikit-image: pip install "landscape-video[eval]".') from error

    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(image, other, channel_axis=2, data_range=255, **settings))
