"""What CLIP sees: do frames agree with each other, with the prompt, with the picture a clip was made from.

All figures are means of cosines of CLIP embeddings (Radford et al., "Learning Transferable Visual Models From Natural
Language Supervision", 2021), so every one depends on the weights: `ClipScorer.name` belongs beside each number.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from landscape_video.evaluation.metrics.weights import find_folder, hash_weights
from pipeline_landscape_video import SHANSHUI_TINY


class ClipScorer:
    """A CLIP, with its own preprocessing.

    Args:
        source: folder or name on the Hub of a `transformers.CLIPModel` with tokenizer and image processor; None is
            shanshui-tiny's, which needs no network and whose figures compare with no one else's.
        device: to compute on.
        batch_size: frames in one forward pass.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: the source is not there, or no CLIP.
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
            raise ValueError(f"{source}: does not load as a CLIP: {error}") from error
        self.sha256 = hash_weights(folder)
        self.device, self.batch_size = device, batch_size

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    @property
    def preprocessing(self) -> str:
        """What happens to a frame, in words."""
        processor = self.processor
        words = []
        if processor.do_resize:
            words.append(f"resized to {dict(processor.size)} (PIL filter {int(processor.resample)})")
        if processor.do_center_crop:
            words.append(f"centre crop {processor.crop_size['width']} x {processor.crop_size['height']}")
        return ", ".join([*words, f"mean {list(processor.image_mean)}, std {list(processor.image_std)}"])

    @torch.no_grad()
    def frames(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Embeddings (frames, dim) float64 of unit length, on the CPU, of uint8 RGB frames (height, width, 3)."""
        parts = []
        for start in range(0, len(frames), self.batch_size):
            batch = list(frames[start : start + self.batch_size])
            pixels = self.processor(images=batch, return_tensors="pt").pixel_values.to(self.device)
            pooled = self.model.vision_model(pixels).pooler_output
            parts.append(self.model.visual_projection(pooled).double().cpu())
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings (texts, dim) float64 of unit length, on the CPU; what is beyond the text tower's end is cut."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        pooled = self.model.text_model(tokens.to(self.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled).double().cpu(), dim=-1)

    def is_too_long(self, text: str) -> bool:
        """Whether `texts` cuts something off."""
        return len(self.tokenizer(text).input_ids) > self.tokenizer.model_max_length


def clip_temp(frames: torch.Tensor) -> float:
    """CLIP-temp: mean cosine of consecutive frames' embeddings, (frames, dim) of unit length, at least two."""
    return float((frames[:-1] * frames[1:]).sum(dim=-1).mean())


def frame_consistency(frames: torch.Tensor) -> float:
    """Mean cosine over all pairs of different frames, as in Tune-A-Video (Wu et al., 2022)."""
    count = len(frames)
    # The sum over all ordered pairs is the squared length of the sum; the diagonal is 1 each.
    return float(((frames.sum(dim=0) ** 2).sum() - (frames**2).sum()) / (count * (count - 1)))


def clip_text(frames: torch.Tensor, text: torch.Tensor) -> float:
    """CLIP-text, or CLIP-SIM with other weights: mean of 100 times the cosine of each frame and the prompt (dim,)."""
    return float(100 * (frames @ text).mean())


def fff_clip(frames: torch.Tensor, image: torch.Tensor) -> float:
    """First-frame fidelity: cosine of the first frame's embedding and the input image's, (dim,)."""
    return float(frames[0] @ image)


def fff_ssim(clip: np.ndarray, image: np.ndarray) -> float:
    """First-frame fidelity: structural similarity (Wang et al., 2004) of the first frame and the input image.

    Gaussian window of sigma 1.5, population covariance, mean over the channels: the original's settings.

    Args:
        clip: uint8 (num_frames, height, width, 3).
        image: uint8 (height, width, 3) of the clip's aspect; resized to the clip's size, bicubic.

    Raises:
        ValueError: another aspect (the fidelity of a crop is not asked for), or scikit-image is missing.
    """
    from PIL import Image

    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ValueError("FFF-SSIM needs scikit-image: pip install scikit-image.") from error

    height, width = clip.shape[1:3]
    if abs(image.shape[1] / image.shape[0] * height - width) > 1:
        raise ValueError(
            f"the picture is {image.shape[1]} x {image.shape[0]}, the clip {width} x {height}: another aspect."
        )
    if image.shape[:2] != (height, width):
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    return float(
        structural_similarity(
            clip[0],
            image,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
