"""Clips and frozen models that losses are computed from."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler

from landscape_video.training.data.batches import encode_once, load_clips
from landscape_video.training.data.clip_sampling import ClipDataset
from landscape_video.training.data.tensor_store import PromptEmbedsCache, load_prompt_embeds_cache
from landscape_video.training.objectives.motion_models import load_noise_scheduler
from landscape_video.training.settings.training import TrainingSettings


@dataclass
class TrainingInputs:
    """Clips and frozen models on the device.

    Attributes:
        clips: Videos or latents.
        vae: Encodes batches of videos; None if the clips are latents.
        latent_shape: (channels, height, width) of a frame's latents.
        noise_scheduler: Noise schedule and prediction type.
        prompt_embeds: Prompt embeddings of captions.
    """

    clips: ClipDataset
    vae: AutoencoderKL | None
    latent_shape: tuple[int, int, int]
    noise_scheduler: DDPMScheduler
    prompt_embeds: PromptEmbedsCache

    @classmethod
    def load(cls, settings: TrainingSettings, frozen_dtype: torch.dtype, accelerator: Accelerator) -> "TrainingInputs":
        """Load the clips and the image model's frozen parts, the text encoder in `frozen_dtype`."""
        model, revision, device = *settings.model.source, accelerator.device
        with accelerator.main_process_first():  # the others find its report and need not decode every video
            clips, vae, latent_shape = load_clips(settings, device)
        prompt_embeds = load_prompt_embeds_cache(model, revision, frozen_dtype, device)
        return cls(clips, vae, latent_shape, load_noise_scheduler(model, revision), prompt_embeds)

    @property
    def device(self) -> torch.device:
        """Device of the training."""
        return self.prompt_embeds.text_encoder.device

    def encode(self, settings: TrainingSettings, accelerator: Accelerator) -> ClipDataset:
        """Replace videos by their latents from `cache_dir`, which takes hours the first time, and return the clips."""
        if self.vae is not None and not settings.data.no_cache:
            cache_dir = settings.data.cache_dir
            self.clips = encode_once(cache_dir, self.clips, self.vae, self.prompt_embeds, accelerator)
            self.vae = None
        return self.clips
