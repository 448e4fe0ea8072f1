"""Pictures animated while a branch trains, to see early whether the first frame keeps them and something moves."""

import argparse
import logging
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, SchedulerMixin
from PIL import Image

from landscape_video.evaluation.metrics.clip_metrics import fff_ssim
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latents import encode_frames
from landscape_video.training.data.prompt_embeds_cache import PromptEmbedsCache
from landscape_video.training.objectives.unet_with_image_retention import RetainingUNet
from landscape_video.training.run.validation import Validation
from pipeline_landscape_video import LandscapeImageToVideoPipeline
from pipeline_landscape_video.landscape_pictures import images_to_tensor


logger = logging.getLogger("validation")


class RetentionValidation(Validation):
    """Animates `pictures` (see `read_pictures`) every --validation_steps steps, or else the first clip's first frame.

    As `Validation`, with FFF-SSIM besides: how like its picture the first frame is, 1 if it is the same. What the
    autoencoder makes of the picture is as like as a first frame can become, and is logged once.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        retaining_unet: RetainingUNet,
        noise_scheduler: SchedulerMixin,
        vae: AutoencoderKL,
        text_states: PromptEmbedsCache,
        dataset: WithFirstFrames,
        latent_shape: tuple[int, int, int],
        accelerator: Accelerator,
        pictures: torch.Tensor | None,
    ) -> None:
        default_prompt = dataset.captions[0][0]
        super().__init__(
            args, retaining_unet.unet, noise_scheduler, vae, text_states, default_prompt, latent_shape, accelerator
        )
        self.unet = retaining_unet  # all of it is to be in evaluation mode
        self.pipe = LandscapeImageToVideoPipeline(
            **self.pipe.components, image_retention=retaining_unet.image_retention
        )
        self.pipe.set_progress_bar_config(desc="Validating", leave=False)
        if pictures is None:
            logger.info("Without --validation_images, a clip that is trained on has to do: %s.", dataset.name(0))
            pictures = dataset.read(0, 0).expand(len(self.prompts), -1, -1, -1)
        self.pictures = pictures / 2 + 0.5  # (prompts, 3, height, width) in [0, 1]
        self.targets = (self.pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        rebuilt = self.decode(encode_frames(vae, pictures))
        logger.info("FFF-SSIM of what the autoencoder makes of the pictures: %.3f.", self.similarity(rebuilt[:, None]))

    def conditions(self, number: int) -> dict[str, Any]:
        return {
            "image": self.pictures[number],
            "image_guidance_scale": self.args.validation_image_guidance_scale,
        }

    def measure(self, clips: list[np.ndarray]) -> dict[str, float]:
        similarity = self.similarity(clips)
        logger.info("FFF-SSIM %.3f.", similarity)
        return {"fff_ssim": similarity}

    def similarity(self, clips: list[np.ndarray] | np.ndarray) -> float:
        """Mean FFF-SSIM of clips, (num_frames, height, width, 3) each, and their pictures."""
        return float(np.mean([fff_ssim(clip, target) for clip, target in zip(clips, self.targets, strict=True)]))


def read_pictures(files: list[str] | None, size: tuple[int, int]) -> torch.Tensor | None:
    """--validation_images of any size as `(pictures, 3, height, width)` in [-1, 1], if there are any.

    Raises:
        ValueError: a picture that cannot be used, naming its file.
    """
    return None if files is None else torch.cat([read_picture(file, *size) for file in files])


def read_picture(file: str, height: int, width: int) -> torch.Tensor:
    """One of `read_pictures`, (1, 3, height, width)."""
    try:
        with Image.open(file) as picture:
            return images_to_tensor(picture, height, width)
    except (ValueError, OSError) as error:
        raise ValueError(f"--validation_images: {file}: {error}") from None
