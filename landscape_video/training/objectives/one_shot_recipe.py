"""Recipe of one-shot depth tuning: queries and temporal attention of a model, tuned on one clip."""

from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, SchedulerMixin
from torch import nn

from landscape_video.files import write_directory
from landscape_video.training.data.batches import collate, prepare_batch
from landscape_video.training.data.clip_sampling import ClipRequest
from landscape_video.training.data.latent_store import encode_frames
from landscape_video.training.data.tensor_store import PromptEmbedsCache
from landscape_video.training.objectives.motion_objective import PREDICTION_TYPES, alphas_cumprod_at
from landscape_video.training.objectives.recipe import Recipe, TrainingRecord
from landscape_video.training.settings.one_shot import MAX_WINDOW
from pipeline_landscape_video.landscape_spatio_temporal_attention import save_tuned, tuned_parameters


TUNED = "tuned"  # folder in OUTPUT_DIR and in checkpoints
TUNED_FILE = "tuned.safetensors"
MEASURED_TIMESTEPS = (100, 300, 500, 700, 900)
PREVIEW_TIMESTEP = 700  # noise that hides details, so that a preview shows what was learned

CARD = """---
library_name: diffusers
tags: [video-editing, one-shot-tuning]
---

# Weights tuned on one clip

The query projections of a video model, and temporal attention, tuned on one clip by one-shot depth tuning. They edit
this clip, with the model that they were tuned on:

    landscape-video edit CLIP --tuned {file} --source-prompt "{prompt}" --prompt "..."

| | |
|---|---|
| prompt | {prompt} |
| frames | {num_frames} |
| depth | {depth} |
| parameters | {parameters:.2f} M |

`training.json` holds the settings, and the losses of the last steps.
"""


@dataclass
class TuningModels:
    """Parts of a pipeline that tuning uses.

    Attributes:
        unet: Motion UNet.
        vae: Encodes the clip.
        text_encoder: Encodes the prompt.
        tokenizer: Tokenizer of the text encoder.
        scheduler: Noise schedule and prediction type.
    """

    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: SchedulerMixin

    @classmethod
    def of(cls, pipe: Any) -> "TuningModels":
        """Take the parts of a pipeline."""
        return cls(**{field.name: getattr(pipe, field.name) for field in fields(cls)})

    @property
    def reads_depth(self) -> bool:
        """Whether the UNet takes one channel more than the latents have."""
        return self.unet.conv_in.in_channels == self.vae.config.latent_channels + 1


class TunedClip(torch.utils.data.Dataset):
    """The one clip that is tuned on, as a dataset of one clip for `ClipBatchSampler`.

    Args:
        latents: Scaled latents of its frames, float32 (num_frames, channels, height, width).
        depth: Depth of its frames at the size of the latents, (num_frames, 1, height, width), if the model reads it.
        prompt: What it shows.
    """

    default_stride = (1, 1)

    def __init__(self, latents: torch.Tensor, depth: torch.Tensor | None, prompt: str) -> None:
        self.latents, self.depth, self.captions, self.lengths = latents, depth, [[prompt]], [len(latents)]

    @classmethod
    @torch.no_grad()
    def encode(
        cls, models: TuningModels, frames: torch.Tensor, depth: torch.Tensor | None, prompt: str
    ) -> "TunedClip":
        """Encode frames in [-1, 1], (num_frames, 3, height, width), and resize their depth to the latents by area."""
        latents = encode_frames(models.vae, frames).float().cpu()
        if depth is not None:
            depth = F.interpolate(depth.float(), size=latents.shape[-2:], mode="area").cpu()
        return cls(latents, depth, prompt)

    def __len__(self) -> int:
        return 1

    def name(self, clip: int) -> str:
        """Name of the clip, for messages."""
        return "the clip"

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        frames = slice(request.start, request.start + request.num_frames)
        depth = {} if self.depth is None else {"depth": self.depth[frames]}
        return {"request": request, "latents": self.latents[frames], **depth}


def one_shot_losses(
    unet: nn.Module,
    scheduler: SchedulerMixin,
    latents: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    depth: torch.Tensor | None = None,
    temporal_weight: float = 0.1,
    temporal_target: str = "match_source",
) -> dict[str, torch.Tensor]:
    """OneShotDepth Eq. 8: the diffusion loss (Eq. 5) plus lambda times the temporal consistency loss.

    The paper compares neighboring frames of "the latent representations". Ours compares the clean latents that the
    prediction implies, and weighs a timestep by alpha_bar: where noise prevails, they say nothing of the motion. Taken
    literally, the loss asks for equal frames, so `match_source` asks for the changes of the source.

    Args:
        unet: A `UNetMotionModel`, or a callable with its signature.
        scheduler: Noise schedule and prediction type, "epsilon" or "v_prediction".
        latents: Clean clips, (batch, channels, num_frames, height, width).
        encoder_hidden_states: Prompt embeddings, (batch, tokens, dim).
        noise: Standard normal noise of the latents' shape.
        timesteps: One timestep for each clip, (batch,).
        depth: Depth in [-1, 1], (batch, 1, num_frames, height, width), for a UNet that reads it.
        temporal_weight: Weight lambda of the temporal loss.
        temporal_target: "match_source", or "literal" as in the paper.

    Returns:
        "total", which is minimized, "diffusion" and "temporal": float32 scalars.

    Raises:
        ValueError: The scheduler has another prediction type.
    """
    alpha_bar = alphas_cumprod_at(scheduler, timesteps, latents.float())
    prediction, target, clean = predict_clean(unet, scheduler, latents, encoder_hidden_states, noise, timesteps, depth)
    diffusion = F.mse_loss(prediction, target)
    change = clean.diff(dim=2)
    if temporal_target == "match_source":
        change = change - latents.float().diff(dim=2)
    temporal = (alpha_bar * change.square()).mean()
    total = diffusion + temporal_weight * temporal
    return {"total": total, "diffusion": diffusion.detach(), "temporal": temporal.detach()}


def predict_clean(
    unet: nn.Module,
    scheduler: SchedulerMixin,
    latents: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    depth: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the UNet predicts, what it should, and the clean latents that its prediction implies, in float32.

    Arguments and errors are those of `one_shot_losses`.
    """
    alpha_bar = alphas_cumprod_at(scheduler, timesteps, latents.float())
    noisy_latents = scheduler.add_noise(latents, noise, timesteps)
    text = encoder_hidden_states.repeat_interleave(latents.shape[2], dim=0)  # one copy for each frame
    sample = noisy_latents if depth is None else torch.cat([noisy_latents, depth], dim=1)
    prediction = unet(sample.to(text.dtype), timesteps, encoder_hidden_states=text).sample.float()
    if scheduler.config.prediction_type == "epsilon":
        clean = (noisy_latents - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt().clamp(min=1e-3)
        return prediction, noise.float(), clean
    if scheduler.config.prediction_type == "v_prediction":
        clean = alpha_bar.sqrt() * noisy_latents - (1 - alpha_bar).sqrt() * prediction
        return prediction, scheduler.get_velocity(latents, noise, timesteps).float(), clean
    raise ValueError(
        f"The scheduler's `prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, "
        f"got {scheduler.config.prediction_type!r}."
    )


class OneShotObjective(nn.Module):
    """The UNet as a module whose forward pass is `one_shot_losses`.

    Args:
        unet, scheduler: See `one_shot_losses`.
        settings: Further keywords of `one_shot_losses`.
    """

    def __init__(self, unet: nn.Module, scheduler: SchedulerMixin, **settings: Any) -> None:
        super().__init__()
        self.unet, self.scheduler, self.settings = unet, scheduler, settings

    def forward(self, *batch: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of clips; arguments as those of `one_shot_losses`."""
        return one_shot_losses(self.unet, self.scheduler, *batch, **self.settings)


def make_trainable(unet: nn.Module) -> None:
    """Let the tuned weights of `unet`, and no others, train in float32.

    Their layers compute under autocast, the frozen ones in the model's type: autocast around the whole UNet would
    convert every norm to float32 and back.
    """
    dtype, parameters = unet.dtype, tuned_parameters(unet)
    unet.requires_grad_(False)
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    if dtype != torch.float32:
        for layer in {name.rpartition(".")[0] for name in parameters}:
            module = unet.get_submodule(layer)
            module.forward = torch.autocast(module.weight.device.type, dtype)(module.forward)


class OneShotRecipe(Recipe):
    """Tune the queries and the temporal attention of a UNet on one clip.

    Args:
        models: Frozen models on the device; the UNet has sparse spatio-temporal attention. Its tuned weights become
            float32 and require gradients, all others do not.
        clip: Clip to tune on.
        record: Written beside the tuned file.
        temporal_weight, temporal_target: See `one_shot_losses`.
    """

    def __init__(
        self,
        models: TuningModels,
        clip: TunedClip,
        record: TrainingRecord,
        temporal_weight: float,
        temporal_target: str,
    ) -> None:
        self.unet, self.clip, self.record = models.unet, clip, record
        self.vae, self.frozen = models.vae, [models.text_encoder, models.vae]
        self.prompt_embeds = PromptEmbedsCache(models.tokenizer, models.text_encoder)
        make_trainable(self.unet)
        self.scheduler = DDPMScheduler.from_config(models.scheduler.config)
        settings = {"temporal_weight": temporal_weight, "temporal_target": temporal_target}
        self.model = OneShotObjective(self.unet, self.scheduler, **settings).train()

    def trainable(self) -> dict[str, nn.Parameter]:
        return tuned_parameters(self.unet)

    def compute_losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return self.model(*self._inputs(batch))

    @torch.no_grad()
    def measure(self, clip: TunedClip | None = None) -> dict[str, float]:
        """Measure predictions at fixed noise and timesteps, for the tuned clip or another one.

        Returns:
            "error", the mean squared error of the prediction, and "motion", the changes between neighboring frames of
            the clean latents that it implies, divided by those of the source.
        """
        errors, motions = [], []
        for timestep in MEASURED_TIMESTEPS:
            latents, prediction, target, clean = self._predict(clip or self.clip, timestep)
            errors.append(F.mse_loss(prediction, target).item())
            motions.append((clean.diff(dim=2).norm() / latents.diff(dim=2).norm().clamp(min=1e-6)).item())
        return {"error": fmean(errors), "motion": fmean(motions)}

    @torch.no_grad()
    def preview(self) -> np.ndarray:
        """Return the clip as the model predicts it from noise, uint8 (num_frames, height, width, 3)."""
        clean = self._predict(self.clip, PREVIEW_TIMESTEP)[-1][0].transpose(0, 1)
        images = [self.vae.decode(frame[None].to(self.vae.dtype) / self.vae.config.scaling_factor) for frame in clean]
        frames = torch.cat([image.sample.float() for image in images]).clamp(-1, 1)
        return ((frames + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def _predict(self, clip: TunedClip, timestep: int) -> tuple[torch.Tensor, ...]:
        """Return latents, prediction, target and clean latents of the first window of a clip, at fixed noise."""
        frames = min(clip.lengths[0], MAX_WINDOW)
        request = ClipRequest(0, 0, 1, frames, clip.captions[0][0], timestep, noise_seed=timestep)
        latents, *others = self._inputs(collate([clip[request]]))
        return latents, *predict_clean(self.unet, self.scheduler, latents, *others)

    def _inputs(self, batch: dict[str, Any]) -> tuple[torch.Tensor | None, ...]:
        """Return latents, prompt embeddings, noise, timesteps and depth of a batch, on the device."""
        latents, noise, timesteps, _ = prepare_batch(batch, None, self.unet.device)
        text = self.prompt_embeds([request.text for request in batch["requests"]])
        depth = batch["depth"].transpose(1, 2).to(latents) if "depth" in batch else None
        return latents, text, noise, timesteps, depth

    def export(self, directory: Path | None, final: bool = False) -> None:
        if directory is None:
            return
        prompt, num_frames = self.clip.captions[0][0], self.clip.lengths[0]
        with write_directory(directory / TUNED) as folder:
            save_tuned(self.unet, folder / TUNED_FILE, {"prompt": prompt, "num_frames": str(num_frames)})
            self.record.write(folder)
            card = CARD.format(
                file=TUNED_FILE,
                prompt=prompt,
                num_frames=num_frames,
                depth="no" if self.clip.depth is None else "yes",
                parameters=sum(parameter.numel() for parameter in self.trainable().values()) / 1e6,
            )
            (folder / "README.md").write_text(card, encoding="utf-8")
