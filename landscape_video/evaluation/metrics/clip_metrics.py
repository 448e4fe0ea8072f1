"""Compare frames with each other, with the prompt and with the input image.

Values are means of cosines of CLIP embeddings (Radford et al., "Learning Transferable Visual Models From Natural
Language Supervision", 2021), see `ClipScorer`. They depend on the weights: show `ClipScorer.name` beside each number.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image


if TYPE_CHECKING:
    import torch


def clip_temp(frames: "torch.Tensor") -> float:
    """CLIP-temp: mean cosine of consecutive embeddings (frames, dim) of unit length, at least two."""
    return float((frames[:-1] * frames[1:]).sum(dim=-1).mean())


def frame_consistency(frames: "torch.Tensor") -> float:
    """Frame consistency of Tune-A-Video (Wu et al., 2022): mean cosine over all pairs of different frames."""
    count = len(frames)
    # The squared length of the sum is the sum over all ordered pairs; each frame with itself is taken out.
    return float(((frames.sum(dim=0) ** 2).sum() - (frames**2).sum()) / (count * (count - 1)))


def clip_text(frames: "torch.Tensor", text: "torch.Tensor") -> float:
    """CLIP-text, or CLIP-SIM with other weights: mean of 100 times the cosine of each frame and the prompt (dim,)."""
    return float(100 * (frames @ text).mean())


def fff_clip(frames: "torch.Tensor", image: "torch.Tensor") -> float:
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
