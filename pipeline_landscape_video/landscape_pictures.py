"""Pictures as people have them, made the tensors that a clip begins with; and colours carried from clip to clip."""

import logging
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageCms, ImageOps


logger = logging.getLogger(__name__)

FITS = ("crop", "pad")
SMALLEST_SIDE = 8  # pixels: less is no picture
# Modes that PIL turns into RGB by itself, once depth, transparency and colour profile were seen to.
RGB_ENOUGH = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")


def upright_rgb(picture: Image.Image) -> Image.Image:
    """
    A picture in sRGB with 8 bits, turned as its EXIF orientation says, its transparent parts on white paper.

    Raises:
        ValueError: a mode that has no such meaning (floating point, LAB); 32-bit values beyond 16 bits.
    """
    profile = picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits, which PIL's own conversion would cut at 255
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"the picture has values from {values.min()} to {values.max()}, more than 16 bits.")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
    if picture.mode not in RGB_ENOUGH:
        raise ValueError(f"the picture is of mode {picture.mode}; save it as RGB, grey or CMYK.")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if profile and picture.mode in ("L", "RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("The colour profile of the picture is not used: %s", error)
    return picture.convert("RGB")


def fit_picture(picture: Image.Image, height: int, width: int, fit: str = "crop") -> torch.Tensor:
    """
    A picture as `(3, height, width)` in [0, 1], scaled without distortion.

    Args:
        picture: see `upright_rgb`.
        height, width: in pixels.
        fit: `"crop"` fills the frame and cuts what stands out on two sides, `"pad"` shows all of it on white paper.

    Raises:
        ValueError: as `upright_rgb`; a picture that is, or becomes, less than 8 pixels high or wide.
    """
    check_picture_size(picture)
    picture, resampling = upright_rgb(picture), Image.Resampling.LANCZOS
    scale = min(width / picture.width, height / picture.height)
    if fit == "pad" and scale * min(picture.size) < SMALLEST_SIDE:
        raise ValueError(
            f"the picture of {picture.width} x {picture.height} is too long to be seen whole in {width} x {height}:"
            " crop it."
        )
    if fit == "pad":
        picture = ImageOps.pad(picture, (width, height), resampling, color="white")
    else:
        picture = ImageOps.fit(picture, (width, height), resampling)
    return rearrange(torch.from_numpy(np.array(picture)), "height width channels -> channels height width") / 255


def check_picture_size(picture: Image.Image) -> None:
    """Raise a `ValueError` for a picture that is too small to be one."""
    if min(picture.size) < SMALLEST_SIDE:
        size = f"{picture.width} x {picture.height}"
        raise ValueError(f"the picture has {size} pixels, at least {SMALLEST_SIDE} x {SMALLEST_SIDE} are needed.")


def pictures_to_tensor(pictures: Any, height: int, width: int, fit: str = "crop") -> torch.Tensor:
    """
    One picture or several as `(batch, 3, height, width)` in [-1, 1].

    Args:
        pictures: a PIL image or a list of them, fitted by `fit_picture`; or a tensor `([batch,] 3, height, width)` or
            an array `([batch,] height, width, 3)` in [0, 1], of just that size, as the pipelines return frames.
        height, width, fit: see `fit_picture`.

    Raises:
        ValueError: a picture that cannot be used, or of another shape; values outside [0, 1].
        TypeError: something else.
    """
    if isinstance(pictures, Image.Image):
        pictures = [pictures]
    if isinstance(pictures, list | tuple) and pictures and all(isinstance(one, Image.Image) for one in pictures):
        return torch.stack([fit_picture(picture, height, width, fit) for picture in pictures]) * 2 - 1
    if isinstance(pictures, np.ndarray):
        pictures = torch.from_numpy(pictures)
        pictures = pictures if pictures.ndim < 3 else pictures.movedim(-1, -3)
    if not isinstance(pictures, torch.Tensor):
        raise TypeError(f"`image` is a {type(pictures).__name__}, must be a PIL image, a list of them, or a tensor.")
    pictures = pictures[None] if pictures.ndim == 3 else pictures
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, height, width):
        raise ValueError(
            f"`image` is a tensor or array of {tuple(pictures.shape)}, must be of (batch, 3, {height}, {width}): only"
            " PIL images are fitted."
        )
    if not (pictures.is_floating_point() and pictures.min() >= 0 and pictures.max() <= 1):  # NaN is neither
        raise ValueError(f"`image` has {pictures.dtype} from {pictures.min()} to {pictures.max()}, must be in [0, 1].")
    return pictures.float() * 2 - 1


def match_colours(clip: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """
    The clip with the colours of a picture that its first frame repeats: mean and deviation of each channel in CIELAB
    (Reinhard et al., Color transfer between images, 2001). The same shift for all frames, so its own changes stay.

    Args:
        clip: `(num_frames, 3, height, width)` in [0, 1].
        picture: `(3, height, width)` in [0, 1].

    Returns:
        a clip of the same shape, on the same device, in float32.
    """
    frames, wanted = _to_lab(clip), _to_lab(picture[None])[0]
    first_mean, first_deviation = frames[0].mean((0, 1)), frames[0].std((0, 1))
    # A channel without any change has nothing to stretch.
    gain = np.where(first_deviation > 1e-3, wanted.std((0, 1)) / np.maximum(first_deviation, 1e-3), 1.0)
    frames = ((frames - first_mean) * gain + wanted.mean((0, 1))).astype(np.float32)
    matched = torch.from_numpy(np.stack([cv2.cvtColor(frame, cv2.COLOR_Lab2RGB) for frame in frames]))
    return (
        rearrange(matched, "frames height width channels -> frames channels height width").clamp(0, 1).to(clip.device)
    )


def _to_lab(clip: torch.Tensor) -> np.ndarray:
    frames = rearrange(clip.float().cpu(), "frames channels height width -> frames height width channels").numpy()
    return np.stack([cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2Lab) for frame in frames])
