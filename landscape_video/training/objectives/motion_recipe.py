"""Recipe of a motion adapter: motion modules on a frozen image model, and a noise adapter for their loss."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import nn

from landscape_video.files import write_directory
from landscape_video.training.data.batches import prepare_batch
from landscape_video.training.data.prompt_embeds_cache import PromptEmbedsCache
from landscape_video.training.objectives.motion_objective import MotionObjective
from landscape_video.training.objectives.recipe import Recipe
from landscape_video.training.objectives.sharded_weights import whole_model
from landscape_video.training.objectives.training_record import TrainingRecord
from landscape_video.training.settings.models import MOTION_ADAPTER
from landscape_video.training.settings.optimization import ObjectiveSettings
from motion_adapter.build import extract_motion_adapter
from motion_adapter.noise_adapter import NoiseAdapter


NOISE_ADAPTER = "noise_adapter"  # folder in OUTPUT_DIR, and prefix of its parameters in checkpoints


class MotionRecipe(Recipe):
    """Train motion modules and noise adapter by NADM, Alg. 1.

    Args:
        unet: Motion UNet whose trainable parameters require gradients.
        noise_adapter: Noise adapter, None without a contrastive loss.
        noise_scheduler: Noise schedule and prediction type.
        prompt_embeds: Prompt embeddings of captions; its text encoder's device is the device of the training.
        vae: Encodes batches of videos; None if the batches are latents.
        objective: Settings of the losses.
        record: Written beside each exported model.
        more_settings: Other keywords of `motion_losses`.
    """

    def __init__(
        self,
        unet: nn.Module,
        noise_adapter: NoiseAdapter | None,
        noise_scheduler: DDPMScheduler,
        prompt_embeds: PromptEmbedsCache,
        vae: AutoencoderKL | None,
        objective: ObjectiveSettings,
        record: TrainingRecord,
        **more_settings: Any,
    ) -> None:
        self.unet = unet
        self.noise_adapter = noise_adapter
        self.noise_scheduler = noise_scheduler
        self.prompt_embeds = prompt_embeds
        self.vae = vae
        self.record = record
        self.device = prompt_embeds.text_encoder.device
        self.objective = MotionObjective(
            unet,
            noise_adapter,
            noise_scheduler,
            contrastive_weight=objective.contrastive_weight,
            temperature=objective.contrastive_temperature,
            threshold=objective.negative_threshold,
            negatives=objective.negatives,
            positives=objective.positives,
            snr_gamma=objective.snr_gamma,
            **more_settings,
        )
        self.model = self.objective.to(self.device).train()

    @property
    def frozen(self) -> list[nn.Module]:
        return [self.prompt_embeds.text_encoder, *([self.vae] if self.vae is not None else [])]

    def trainable(self) -> dict[str, nn.Parameter]:
        return self.objective.trainable()

    def averaged(self) -> dict[str, nn.Parameter]:
        named = self.trainable()
        return {name: named[name] for name in named if not name.startswith(f"{NOISE_ADAPTER}.")}

    def compute_losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        latents, noise, timesteps, speed = prepare_batch(batch, self.vae, self.device)
        text = self.prompt_embeds([request.text for request in batch["requests"]])
        return self.model(latents, text, noise, timesteps, speed, **self.conditions(batch))

    def conditions(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """What the UNet sees besides noisy latents, timesteps and text, as keywords of its call."""
        return {}

    def export(self, directory: Path | None, final: bool = False) -> None:
        adapter = extract_motion_adapter(self.unet)  # gathers weights that FSDP has split, with all processes
        noise_adapter = whole_model(self.noise_adapter) if final and self.noise_adapter is not None else None
        if directory is None:
            return
        with write_directory(directory / MOTION_ADAPTER) as folder:
            adapter.save_pretrained(folder)
            self.record.write(folder)
        if noise_adapter is not None:
            with write_directory(directory / NOISE_ADAPTER) as folder:
                noise_adapter.save_pretrained(folder)
