"""Validation of an image retention branch: animate images, and measure how well the first frame keeps them."""

import logging
from typing import Any

import numpy as np
import torch

from landscape_video.evaluation.metrics.clip_metrics import fff_ssim
from landscape_video.generation.images import read_image
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latents import encode_frames
from landscape_video.training.run.validation import Validation
from pipeline_landscape_video import LandscapeImageToVideoPipeline
from pipeline_landscape_video.landscape_pictures import images_to_tensor


logger = logging.getLogger("training")


class RetentionValidation(Validation):
    """Animates images as `Validation` generates prompts, and measures FFF-SSIM as well.

    FFF-SSIM is the structural similarity of the first frame and the image, 1 if they are equal. That of the
    autoencoder's reconstruction is the best that a first frame can reach, and is logged once.

    Args:
        common: Arguments of `Validation`.
        images: One for each prompt, from `read_images`; None animates the first training clip's first frame.
        dataset: Training clips.
    """

    def __init__(self, *common: Any, images: torch.Tensor | None, dataset: WithFirstFrames) -> None:
        super().__init__(*common)
        if images is None:
            logger.info("Validation animates a training clip, %s: better set --validation_images.", dataset.name(0))
            images = dataset.read(0, 0).expand(len(self.prompts), -1, -1, -1)
        self.images = images / 2 + 0.5  # (prompts, 3, height, width) in [0, 1]
        self.targets = (self.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        reconstructions = self.decode(encode_frames(self.vae, images))
        logger.info("FFF-SSIM of the autoencoder's reconstructions: %.3f.", self.fff_ssim(reconstructions[:, None]))

    def build_pipeline(self, **components: Any) -> LandscapeImageToVideoPipeline:
        branch = self.unet.image_retention
        return LandscapeImageToVideoPipeline(
            unet=self.unet.unet, motion_adapter=None, image_retention=branch, **components
        )

    def conditions(self, number: int) -> dict[str, Any]:
        scale = self.settings.images.validation_image_guidance_scale
        return {"image": self.images[number], "image_guidance_scale": scale}

    def measure(self, clips: list[np.ndarray]) -> dict[str, float]:
        return super().measure(clips) | {"fff_ssim": self.fff_ssim(clips)}

    def fff_ssim(self, clips: list[np.ndarray] | np.ndarray) -> float:
        """Mean FFF-SSIM of clips, uint8 (num_frames, height, width, 3) each, and their images."""
        return float(np.mean([fff_ssim(clip, target) for clip, target in zip(clips, self.targets, strict=True)]))


def read_images(files: tuple[str, ...] | None, size: tuple[int, int]) -> torch.Tensor | None:
    """Read images of any size as `(images, 3, height, width)` in [-1, 1]; None without files.

    Raises:
        ValueError: A file is not a usable image; the message begins with its name.
    """
    return None if files is None else torch.cat([images_to_tensor(read_image(file), *size) for file in files])
