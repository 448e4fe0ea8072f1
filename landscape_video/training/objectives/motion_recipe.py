"""Recipe of a motion adapter: motion modules on a frozen image model, and a noise adapter for their loss."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape_video.files import write_directory
from landscape_video.training.data.batches import prepare_batch
from landscape_video.training.objectives.motion_objective import MotionObjective
from landscape_video.training.objectives.recipe import Recipe, TrainingRecord
from landscape_video.training.objectives.sharded_weights import whole_model
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.settings.inputs import MOTION_ADAPTER
from landscape_video.training.settings.run import ObjectiveSettings
from motion_adapter.build import extract_motion_adapter
from motion_adapter.noise_adapter import NoiseAdapter
from motion_adapter.weights_files import save_adapter


NOISE_ADAPTER = "noise_adapter"  # folder in OUTPUT_DIR, and prefix of its parameters in checkpoints


class MotionRecipe(Recipe):
    """Train motion modules and noise adapter by NADM, Alg. 1.

    Args:
        unet: Motion UNet on the device; the parameters that train require gradients.
        inputs: Clips and frozen models.
        settings: Settings of the losses.
        record: Written beside each exported model.
        more_settings: Further keywords of `motion_losses`.
    """

    def __init__(
        self,
        unet: nn.Module,
        inputs: TrainingInputs,
        settings: ObjectiveSettings,
        record: TrainingRecord,
        **more_settings: Any,
    ) -> None:
        self.unet = unet
        self.inputs = inputs
        self.record = record
        self.noise_adapter = None
        if settings.contrastive_weight > 0:
            channels, *size = inputs.latent_shape
            self.noise_adapter = NoiseAdapter(channels, pool_size=min(32, max(size)))  # at most 32 x 32
        self.objective = MotionObjective(
            unet,
            self.noise_adapter,
            inputs.noise_scheduler,
            contrastive_weight=settings.contrastive_weight,
            temperature=settings.contrastive_temperature,
            threshold=settings.negative_threshold,
            negatives=settings.negatives,
            positives=settings.positives,
            snr_gamma=settings.snr_gamma,
            **more_settings,
        )
        self.model = self.objective.to(inputs.device).train()

    @property
    def frozen(self) -> list[nn.Module]:
        return [model for model in (self.inputs.prompt_embeds.text_encoder, self.inputs.vae) if model is not None]

    def trainable(self) -> dict[str, nn.Parameter]:
        return self.objective.trainable()

    def averaged(self) -> dict[str, nn.Parameter]:
        named = self.trainable()
        return {name: named[name] for name in named if not name.startswith(f"{NOISE_ADAPTER}.")}

    def compute_losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        latents, noise, timesteps, speed = prepare_batch(batch, self.inputs.vae, self.inputs.device)
        text = self.inputs.prompt_embeds([request.text for request in batch["requests"]])
        return self.model(latents, text, noise, timesteps, speed, **self.conditions(batch))

    def conditions(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return inputs of the UNet besides noisy latents, timesteps and text, as keywords of its call."""
        return {}

    def export(self, directory: Path | None, final: bool = False) -> None:
        adapter = extract_motion_adapter(self.unet)  # gathers weights that FSDP has split, with all processes
        noise_adapter = whole_model(self.noise_adapter) if final and self.noise_adapter is not None else None
        if directory is None:
            return
        with write_directory(directory / MOTION_ADAPTER) as folder:
            save_adapter(adapter, folder)
            self.record.write(folder)
        if noise_adapter is not None:
            with write_directory(directory / NOISE_ADAPTER) as folder:
                noise_adapter.save_pretrained(folder)
