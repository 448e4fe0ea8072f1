"""Recipe of combined tuning: a motion UNet learns a clip, with losses of foreground and background."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AnimateDiffPipeline, SchedulerMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

from landscape_video.files import write_directory, write_json
from landscape_video.generation.average_fusion import fuse_average, sample_votes
from landscape_video.training.data.batches import prepare_batch
from landscape_video.training.data.masked_clips import BACKGROUND
from landscape_video.training.objectives.motion_models import (
    check_fit,
    checkpoint_layers,
    compile_unet,
    load_motion_unet,
    lower_precision,
)
from landscape_video.training.objectives.motion_recipe import MotionRecipe
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.objectives.short_attention import use_fast_attention
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.settings.consistency import ConsistencySettings, ConsistencyTraining
from landscape_video.training.settings.inputs import MOTION_ADAPTER
from motion_adapter.build import extract_motion_adapter, freeze_image_layers
from motion_adapter.weights_files import save_adapter


LORA = "lora"  # folder in OUTPUT_DIR
FUSION_WEIGHTS = "fusion_weights.json"
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def masked_losses(error: torch.Tensor, background: torch.Tensor, normalization: str) -> dict[str, torch.Tensor]:
    """Consistency tuning Eqs. 6, 15-16: L_diff, L_fg and L_bg of a batch.

    Args:
        error: Squared error of the prediction, (batch, channels, num_frames, height, width).
        background: Share of each pixel, (batch, 1, num_frames, height, width); the rest is foreground.
        normalization: "area": means over the pixels of each area. "none": over all pixels, so L_fg + L_bg = L_diff.

    Returns:
        "diffusion", "foreground" and "background", scalars; an area without pixels has the loss 0.
    """
    losses = {"diffusion": error.mean()}
    for name, mask in (("foreground", 1 - background), ("background", background)):
        share = mask.mean().clamp(min=1e-6) if normalization == "area" else 1
        losses[name] = (error * mask).mean() / share
    return losses


class ConsistencyObjective(nn.Module):
    """UNet and fusion weights as one module whose forward pass computes the losses.

    Args:
        unet: Motion UNet; the parameters that train require gradients.
        scheduler: Noise schedule and prediction type, "epsilon" or "v_prediction".
        settings: Weights of the losses.
        seed: Seed of the frames that are fused.
    """

    def __init__(
        self, unet: nn.Module, scheduler: SchedulerMixin, settings: ConsistencySettings, seed: int = 0
    ) -> None:
        super().__init__()
        self.unet, self.scheduler, self.settings, self.seed = unet, scheduler, settings, seed
        self.fusion_weights = nn.Parameter(torch.ones(2), requires_grad=settings.learn_fusion_weights)

    def forward(
        self,
        latents: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        background: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Consistency tuning Eq. 20: L = l1 L_diff + l2 L_fg + l3 L_bg of a batch of clips.

        Args:
            latents: Clean clips, (batch, channels, num_frames, height, width); with `learn_fusion_weights`, unfused.
            encoder_hidden_states: Prompt embeddings, (batch, tokens, dim).
            noise: Standard normal noise of the latents' shape.
            timesteps: One timestep for each clip, (batch,).
            background: Share of each pixel, (batch, 1, num_frames, height, width).

        Returns:
            "total", which is minimized, "diffusion", "foreground" and "background": float32 scalars.
        """
        if self.settings.learn_fusion_weights:
            latents = self.fuse(latents, background)
        noisy_latents = self.scheduler.add_noise(latents, noise, timesteps)
        text = encoder_hidden_states.repeat_interleave(latents.shape[2], dim=0)  # one copy for each frame
        prediction = self.unet(noisy_latents, timesteps, encoder_hidden_states=text).sample.float()
        is_velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
        error = F.mse_loss(prediction, target.float(), reduction="none")
        losses = masked_losses(error, background, self.settings.mask_normalization)
        weights = {
            "diffusion": self.settings.diffusion_weight,
            "foreground": self.settings.foreground_loss_weight,
            "background": self.settings.background_loss_weight,
        }
        total = sum(weight * losses[name] for name, weight in weights.items())
        return {"total": total, **{name: loss.detach() for name, loss in losses.items()}}

    def fuse(self, latents: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        """Fuse each clip of a batch by Consistency tuning Eq. 11, with the weights that train."""
        generator = torch.Generator().manual_seed(self.seed)
        votes = sample_votes(latents.shape[2], self.settings.fusion_frames, generator).to(latents.device)
        clips = zip(latents.transpose(1, 2), background.transpose(1, 2), strict=True)
        fused = [fuse_average(clip, mask, votes, *self.fusion_weights) for clip, mask in clips]
        return torch.stack(fused).transpose(1, 2)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return trainable parameters by name, the UNet's first."""
        named = {**dict(self.unet.named_parameters()), "fusion_weights": self.fusion_weights}
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def build_tuned_unet(
    settings: ConsistencyTraining,
    latent_shape: tuple[int, int, int],
    frozen_dtype: torch.dtype,
    device: torch.device,
) -> nn.Module:
    """Build the motion UNet on the device; of its parameters, those that train require gradients.

    Arguments and errors are those of `motion_models.build_motion_unet`.
    """
    model, optimization = settings.model, settings.optimization
    unet = load_motion_unet(model.pretrained_model_name_or_path, model.revision, model.motion_adapter_name_or_path)
    check_fit(unet, latent_shape, settings.data.num_frames_range[1])
    if model.tuned_layers == "temporal":
        freeze_image_layers(unet)
    else:
        unet.requires_grad_(False)
        rank = model.lora_rank
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS), LORA)
    lower_precision(unet, frozen_dtype, device)
    use_fast_attention(unet, device, frozen_dtype)
    if optimization.gradient_checkpointing is not None:
        checkpoint_layers(unet, optimization.gradient_checkpointing)
    if optimization.torch_compile:
        compile_unet(unet)
    return unet


class ConsistencyRecipe(MotionRecipe):
    """Consistency tuning Eqs. 13-14: train LoRA layers or motion modules on fused frames and their texts.

    Args:
        unet: Motion UNet, see `build_tuned_unet`.
        inputs: Clips and frozen models.
        settings: Settings of the run.
        record: Written beside each exported model.
    """

    def __init__(
        self, unet: nn.Module, inputs: TrainingInputs, settings: ConsistencyTraining, record: TrainingRecord
    ) -> None:
        self.unet, self.inputs, self.record, self.settings = unet, inputs, record, settings
        self.objective = ConsistencyObjective(
            unet, inputs.noise_scheduler, settings.consistency, seed=settings.run.seed
        )
        self.model = self.objective.to(inputs.device).train()

    def averaged(self) -> dict[str, nn.Parameter]:
        return self.trainable()

    def compute_losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        latents, noise, timesteps, _ = prepare_batch(batch, self.inputs.vae, self.inputs.device)
        text = self.inputs.prompt_embeds([request.text for request in batch["requests"]])
        background = batch[BACKGROUND].to(self.inputs.device).transpose(1, 2)
        return self.model(latents, text, noise, timesteps, background)

    def export(self, directory: Path | None, final: bool = False) -> None:
        if directory is None:
            return
        name = LORA if self.settings.model.tuned_layers == "lora" else MOTION_ADAPTER
        with write_directory(directory / name) as folder:
            if name == LORA:
                save_lora(self.unet, folder)
            else:
                save_adapter(extract_motion_adapter(self.unet), folder)
            self.record.write(folder)
        if self.settings.consistency.learn_fusion_weights:
            background, foreground = self.objective.fusion_weights.tolist()
            weights = {"background_weight": background, "foreground_weight": foreground}
            write_json(directory / FUSION_WEIGHTS, weights)


def save_lora(unet: nn.Module, folder: Path) -> None:
    """Write the LoRA of a UNet as a file that diffusers loads, with its strength."""
    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=LORA))
    metadata = unet.peft_config[LORA].to_dict()
    AnimateDiffPipeline.save_lora_weights(folder, unet_lora_layers=weights, unet_lora_adapter_metadata=metadata)
