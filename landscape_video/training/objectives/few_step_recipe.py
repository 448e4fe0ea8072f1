"""Recipe of a few-step adapter: LoRA weights that sample in a few steps, without guidance, what a teacher samples.

The teacher is the frozen model itself with guidance and more steps. In each training step, the student samples clips
from noise. Each of its steps starts where its last one ended, and must reach the point that the teacher reaches from
there (Progressive Distillation, Salimans and Ho, 2022, Eqs. 7-8, with the guidance of Meng et al., 2023). So the
student trains on the states that it meets in sampling, as in DAgger (Ross et al., 2011), and needs no clips: only
their captions.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin, UNetMotionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from landscape_video.files import write_directory
from landscape_video.generation.few_steps import FEW_STEPS, FewStepFacts
from landscape_video.training.data.batches import prepare_batch
from landscape_video.training.objectives.motion_models import (
    check_fit,
    checkpoint_layers,
    compile_unet,
    load_motion_unet,
    lower_precision,
)
from landscape_video.training.objectives.motion_objective import PREDICTION_TYPES
from landscape_video.training.objectives.recipe import Recipe, TrainingRecord
from landscape_video.training.objectives.short_attention import use_fast_attention
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.settings.training import FewStepTraining
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_acceleration import Acceleration
from pipeline_landscape_video.landscape_fast_layers import FastLayers


# Layers that get LoRA weights: all attention, feed-forward and convolution layers but the first and the last one.
LORA_LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "time_emb_proj", "linear_1", "linear_2",
)  # fmt: skip
# diffusers calls these with a keyword that peft's layers do not have (`proj_in(input=...)`, 0.42).
EXCLUDED_LAYERS = r".*motion_modules\.\d+\.proj_(in|out)"
# These never act in mode `previous`, where attention has a single key.
IDLE_LAYERS = r".*motion_modules.*\.attn2\.to_[qk]"


def trailing_timesteps(num_steps: int, num_train_timesteps: int) -> list[int]:
    """Return the `trailing` timesteps of diffusers' schedulers, from the last one on, and -1 for clean latents."""
    gap = num_train_timesteps / num_steps
    return [round(num_train_timesteps - step * gap) - 1 for step in range(num_steps)] + [-1]


class NoiseSchedule:
    """DDIM steps between any two timesteps, for models that predict noise or velocity.

    Args:
        scheduler: Scheduler with the betas and the prediction type of the model.

    Raises:
        ValueError: The model predicts something else.
    """

    def __init__(self, scheduler: SchedulerMixin) -> None:
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"The scheduler's `prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, "
                f"got {self.prediction_type!r}."
            )
        self.alphas_cumprod = scheduler.alphas_cumprod.float().cpu()
        self.num_timesteps = scheduler.config.num_train_timesteps

    def at(self, timestep: int) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma at a timestep; -1 is clean."""
        alpha_bar = self.alphas_cumprod[timestep] if timestep >= 0 else torch.tensor(1.0)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def velocity(self, prediction: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """Return the velocity that a prediction of the model means: v = alpha noise - sigma x_0."""
        if self.prediction_type == "v_prediction":
            return prediction
        alpha, sigma = self.at(timestep)
        return (prediction - sigma * latents) / alpha  # x_0 = (x - sigma noise) / alpha

    def step(self, velocity: Tensor, latents: Tensor, timestep: int, next_timestep: int) -> Tensor:
        """DDIM Eq. 12 without noise: move latents to another timestep."""
        (alpha, sigma), (next_alpha, next_sigma) = self.at(timestep), self.at(next_timestep)
        clean = alpha * latents - sigma * velocity
        noise = sigma * latents + alpha * velocity
        return next_alpha * clean + next_sigma * noise

    def velocity_between(self, latents: Tensor, timestep: int, reached: Tensor, next_timestep: int) -> Tensor:
        """Progressive Distillation Eq. 8: return the velocity with which one DDIM step from `latents` reaches others.

        A step is a rotation in the plane of latents and
        velocity, by the angle between both noise levels: reached = cos latents - sin velocity.
        """
        (alpha, sigma), (next_alpha, next_sigma) = self.at(timestep), self.at(next_timestep)
        cos = alpha * next_alpha + sigma * next_sigma
        sin = sigma * next_alpha - alpha * next_sigma
        return (cos * latents - reached) / sin


class Teacher:
    """Samples with guidance between two timesteps, without gradients.

    Args:
        unet: Frozen motion UNet.
        schedule: Its noise schedule.
        guidance_scale: Guidance scale; at 1 or below, the null text is not run.
    """

    def __init__(self, unet: UNetMotionModel, schedule: NoiseSchedule, guidance_scale: float) -> None:
        self.unet = unet
        self.schedule = schedule
        self.guidance_scale = guidance_scale

    @torch.no_grad()
    def sample(self, latents: Tensor, timesteps: Sequence[int], text: Tensor, null_text: Tensor) -> Tensor:
        """Return the latents at the last of the timesteps, from those at the first.

        Args:
            latents: (batch, channels, num_frames, height, width).
            timesteps: At least two timesteps, descending.
            text, null_text: Prompt embeddings of all frames, (batch * num_frames, tokens, dim).
        """
        guides = self.guidance_scale > 1
        with Acceleration(self.unet, FastLayers()):
            for timestep, next_timestep in zip(timesteps[:-1], timesteps[1:], strict=True):
                batch = torch.cat([latents] * (2 if guides else 1)).to(self.unet.dtype)
                embeds = torch.cat([null_text, text]) if guides else text
                prediction = self.unet(batch, timestep, embeds.to(self.unet.dtype)).sample.float()
                if guides:  # CFG Eq. 6
                    uncond, prediction = prediction.chunk(2)
                    prediction = uncond + self.guidance_scale * (prediction - uncond)
                velocity = self.schedule.velocity(prediction, latents, timestep)
                latents = self.schedule.step(velocity, latents, timestep, next_timestep)
        return latents


class FewStepObjective(nn.Module):
    """Student and teacher as one module whose forward pass samples clips and returns the losses.

    Args:
        unet: Student, a motion UNet with LoRA weights.
        teacher: See `Teacher`.
        student_steps: Steps of the student.
        teacher_steps: Steps of the teacher over the whole schedule, a multiple of `student_steps`.
    """

    def __init__(self, unet: UNetMotionModel, teacher: Teacher, student_steps: int, teacher_steps: int) -> None:
        super().__init__()
        self.unet = unet
        self.teacher = teacher
        self.schedule = teacher.schedule
        self.timesteps = trailing_timesteps(teacher_steps, self.schedule.num_timesteps)
        self.substeps = teacher_steps // student_steps

    def forward(self, noise: Tensor, text: Tensor, null_text: Tensor) -> dict[str, Tensor]:
        """Sample clips, and compare each step with the teacher's.

        Args:
            noise: (batch, channels, num_frames, height, width).
            text: Prompt embeddings (batch, tokens, dim).
            null_text: Embeddings of the empty prompt, (1, tokens, dim).

        Returns:
            "total", the mean error of the velocity, and "step_1", "step_2", ..., that of each step.
        """
        frames = noise.shape[2]
        text = text.repeat_interleave(frames, dim=0)
        null_text = null_text.expand(len(text), -1, -1)
        losses, latents = {}, noise.float()
        for number, start in enumerate(range(0, len(self.timesteps) - 1, self.substeps), start=1):
            segment = self.timesteps[start : start + self.substeps + 1]
            reached = self.teacher.sample(latents, segment, text, null_text)
            target = self.schedule.velocity_between(latents, segment[0], reached, segment[-1])
            timesteps = torch.full((len(latents),), segment[0], device=latents.device)
            prediction = self.unet(latents, timesteps, encoder_hidden_states=text).sample.float()
            velocity = self.schedule.velocity(prediction, latents, segment[0])
            losses[f"step_{number}"] = F.mse_loss(velocity, target)
            latents = self.schedule.step(velocity.detach(), latents, segment[0], segment[-1])
        total = torch.stack(list(losses.values())).mean()
        return {"total": total} | {name: loss.detach() for name, loss in losses.items()}


class FewStepRecipe(Recipe):
    """Train LoRA weights that sample in a few steps.

    Args:
        objective: Student and teacher, on the device.
        inputs: Clips, for their captions and shapes, and frozen models.
        lora: Config of the LoRA weights.
        facts: Written beside the weights.
        record: Written beside each exported adapter.
    """

    def __init__(
        self,
        objective: FewStepObjective,
        inputs: TrainingInputs,
        lora: LoraConfig,
        facts: FewStepFacts,
        record: TrainingRecord,
    ) -> None:
        self.unet, self.inputs, self.lora = objective.unet, inputs, lora
        self.facts, self.record = facts, record
        self.objective = objective
        self.model = objective.train()

    @property
    def frozen(self) -> list[nn.Module]:
        return [self.inputs.prompt_embeds.text_encoder, self.objective.teacher.unet]

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.unet.named_parameters() if weight.requires_grad}

    def compute_losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        _, noise, _, _ = prepare_batch(batch, self.inputs.vae, self.inputs.device)
        text = self.inputs.prompt_embeds([request.text for request in batch["requests"]])
        return self.model(noise, text, self.inputs.prompt_embeds([""]))

    def export(self, directory: Path | None, final: bool = False) -> None:
        if directory is None:
            return
        weights = {name: weight.half() for name, weight in get_peft_model_state_dict(self.unet).items()}
        with write_directory(directory / FEW_STEPS) as folder:
            LandscapeVideoPipeline.save_lora_weights(
                folder,
                unet_lora_layers=weights,
                unet_lora_adapter_metadata=self.lora.to_dict() | {"exclude_modules": None},
            )
            self.facts.write(folder)
            self.record.write(folder)


def build_few_step_objective(
    settings: FewStepTraining, inputs: TrainingInputs, guidance_scale: float, frozen_dtype: torch.dtype
) -> tuple[FewStepObjective, LoraConfig]:
    """Build student and teacher on the device; only the LoRA weights require gradients, and are float32.

    Raises:
        ValueError: The models, or the clips, do not fit each other.
    """
    model, optimization, distillation = settings.model, settings.optimization, settings.objective
    device = inputs.device
    unet = load_motion_unet(model.pretrained_model_name_or_path, model.revision, model.motion_adapter_name_or_path)
    check_fit(unet, inputs.latent_shape, settings.data.num_frames_range[1])
    unet.requires_grad_(False)
    teacher = Teacher(
        deepcopy(unet).eval().to(device, frozen_dtype), NoiseSchedule(inputs.noise_scheduler), guidance_scale
    )
    lower_precision(unet, frozen_dtype, device)
    use_fast_attention(unet, device, frozen_dtype)
    is_previous = unet.config.get("sparse_causal_mode") == "previous"
    excluded = f"{EXCLUDED_LAYERS}|{IDLE_LAYERS}" if is_previous else EXCLUDED_LAYERS
    rank = distillation.rank
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_LAYERS), exclude_modules=excluded)
    unet.add_adapter(lora)
    if optimization.gradient_checkpointing is not None:
        checkpoint_layers(unet, optimization.gradient_checkpointing)
    if optimization.torch_compile:
        compile_unet(unet)
    objective = FewStepObjective(unet.to(device), teacher, distillation.student_steps, distillation.teacher_steps)
    return objective, lora
