"""Turn images of any kind into the tensors that a clip starts from, and match the colors of a clip to an image."""

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
SMALLEST_SIDE = 8  # pixels, the size of one latent
# Modes that PIL converts to RGB, after bit depth, transparency and color profile are handled.
RGB_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")


def upright_rgb(image: Image.Image) -> Image.Image:
    """
    Convert an image to sRGB with 8 bits: rotated by its EXIF orientation, transparent parts on white.

    Raises:
        ValueError: A mode without a defined color (floating point, LAB), or 32-bit values beyond 16 bits.
    """
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which PIL's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"the image must have 16 bits, got values from {values.min()} to {values.max()}.")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    if image.mode not in RGB_MODES:
        raise ValueError(f"the image must be RGB, gray or CMYK, got mode {image.mode}: convert it.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if profile and image.mode in ("L", "RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("The color profile of the image is ignored: %s", error)
    return image.convert("RGB")


def fit_image(image: Image.Image, height: int, width: int, fit: str = "crop") -> torch.Tensor:
    """
    Scale an image to `(3, height, width)` in [0, 1]; the aspect ratio is kept.

    Args:
        image: Any image that `upright_rgb` accepts.
        height, width: Size in pixels.
        fit: `"crop"` fills the frame and crops two sides, `"pad"` shows the whole image on white.

    Raises:
        ValueError: As `upright_rgb`; or an image that is, or becomes, less than 8 pixels high or wide.
    """
    check_image_size(image)
    image, resampling = upright_rgb(image), Image.Resampling.LANCZOS
    if fit == "pad":
        if min(width / image.width, height / image.height) * min(image.size) < SMALLEST_SIDE:
            raise ValueError(
                f"the image of {image.width} x {image.height} pixels is too long to be shown whole in"
                f" {width} x {height}; crop it."
            )
        image = ImageOps.pad(image, (width, height), resampling, color="white")
    else:
        image = ImageOps.fit(image, (width, height), resampling)
    return rearrange(torch.from_numpy(np.array(image)), "height width channels -> channels height width") / 255


def check_image_size(image: Image.Image) -> None:
    """Raise a `ValueError` for an image that is too small."""
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(
            f"the image must have at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got"
            f" {image.width} x {image.height}."
        )


def images_to_tensor(images: Any, height: int, width: int, fit: str = "crop") -> torch.Tensor:
    """
    Convert one image or several to `(batch, 3, height, width)` in [-1, 1].

    Args:
        images: A PIL image or a list of them, fitted by `fit_image`; or a tensor `([batch,] 3, height, width)` or an
            array `([batch,] height, width, 3)` in [0, 1], of exactly that size, as the pipelines return frames.
        height, width, fit: See `fit_image`.

    Raises:
        ValueError: An image that cannot be used, another shape, or values outside [0, 1].
        TypeError: Another type.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple) and images and all(isinstance(image, Image.Image) for image in images):
        return torch.stack([fit_image(image, height, width, fit) for image in images]) * 2 - 1
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
        images = images if images.ndim < 3 else images.movedim(-1, -3)
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"`image` must be a PIL image, a list of them, or a tensor, got {type(images).__name__}.")
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, height, width):
        raise ValueError(
            f"`image` must have the shape (batch, 3, {height}, {width}), got {tuple(images.shape)}: only PIL images"
            " are fitted."
        )
    if not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):  # NaN is neither
        raise ValueError(f"`image` must be in [0, 1], got {images.dtype} from {images.min()} to {images.max()}.")
    return images.float() * 2 - 1


def match_colors(clip: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """
    Reinhard et al., Color transfer between images (2001): give a clip the colors of the image that its first frame
    shows, mean and deviation of each channel in CIELAB. All frames are shifted alike, so the clip's own changes stay.

    Args:
        clip: `(num_frames, 3, height, width)` in [0, 1].
        image: `(3, height, width)` in [0, 1].

    Returns:
        A clip of the same shape, on the same device, in float32.
    """
    frames, wanted = _to_lab(clip), _to_lab(image[None])[0]
    first_mean, first_deviation = frames[0].mean((0, 1)), frames[0].std((0, 1))
    # A channel without variation cannot be stretched.
    gain = np.where(first_deviation > 1e-3, wanted.std((0, 1)) / np.maximum(first_deviation, 1e-3), 1.0)
    frames = ((frames - first_mean) * gain + wanted.mean((0, 1))).astype(np.float32)
    matched = torch.from_numpy(np.stack([cv2.cvtColor(frame, cv2.COLOR_Lab2RGB) for frame in frames]))
    return (
        rearrange(matched, "frames height width channels -> frames channels height width").clamp(0, 1).to(clip.device)
    )


def _to_lab(clip: torch.Tensor) -> np.ndarray:
    frames = rearrange(clip.float().cpu(), "frames channels height width -> frames height width channels").numpy()
    return np.stack([cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2Lab) for frame in frames])
