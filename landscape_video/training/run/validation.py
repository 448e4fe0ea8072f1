"""Clips painted while training goes on, to see early that nothing moves, or that the loss has turned."""

import argparse
import json
import logging
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, SchedulerMixin, UNetMotionModel

from landscape_video.evaluation.metrics.motion_metrics import dynamic_degree
from landscape_video.training.data.prompt_embeds_cache import PromptEmbedsCache
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.embedded_model import choose_sampling
from pipeline_landscape_video.video_writing import SAMPLED_FPS, write_video


VALIDATIONS = "validation.jsonl"
STILL_BELOW = 0.001  # picture widths a frame: what optical flow finds in a clip that stands still
DIVERGED_ABOVE = 1.25  # times the lowest mean loss between two validations; means of few steps differ by less

logger = logging.getLogger("validation")


class Validation:
    """Paints the validation prompts every --validation_steps steps, and says what it sees.

    OUTPUT_DIR gets `validation/step-STEP.mp4` and a line in `validation.jsonl`; trackers get the same numbers and the
    frames as images.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        unet: UNetMotionModel,
        noise_scheduler: SchedulerMixin,
        vae: AutoencoderKL,
        text_states: PromptEmbedsCache,
        default_prompt: str,
        latent_shape: tuple[int, int, int],
        accelerator: Accelerator,
    ) -> None:
        self.args = args
        self.unet = unet
        self.vae = vae
        self.accelerator = accelerator
        self.prompts = args.validation_prompts or [default_prompt]
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self.height, self.width = latent_shape[1] * scale, latent_shape[2] * scale
        scheduler = DDIMScheduler.from_config(noise_scheduler.config, clip_sample=False, steps_offset=1)
        self.pipe = LandscapeVideoPipeline(
            vae=vae,
            text_encoder=text_states.text_encoder,
            tokenizer=text_states.tokenizer,
            unet=unet,
            motion_adapter=None,
            scheduler=scheduler,
        )
        self.pipe.set_progress_bar_config(desc="Validating", leave=False)
        self._losses: list[torch.Tensor] = []
        self._lowest_loss: float | None = None

    def add(self, diffusion_loss: torch.Tensor) -> None:
        """Take in the loss of one batch."""
        self._losses.append(diffusion_loss)

    def run(self, step: int) -> dict[str, float]:
        """Paint with the weights as they are, write, log, warn in words; returns what was measured.

        A UNet that FSDP has split paints where all processes call it; the main one does the rest.
        """
        clips = [self.paint(prompt, seed) for seed, prompt in enumerate(self.prompts)]
        if not self.accelerator.is_main_process:
            self._losses.clear()
            return {}
        for number, clip in enumerate(clips):
            name = f"step-{step:06d}.mp4" if len(clips) == 1 else f"step-{step:06d}-{number + 1}.mp4"
            path = self.args.output_dir / "validation" / name
            path.parent.mkdir(exist_ok=True)
            write_video(path, clip, fps=SAMPLED_FPS)
        degree = None  # of clips that are one picture
        if self.args.num_frames_range[1] > 1:
            degree = float(np.mean([dynamic_degree(clip) for clip in clips]))
        loss = torch.stack(self._losses).mean().item() if self._losses else None
        values = {"dynamic_degree": degree, "mean_diffusion_loss": loss, **self.measure(clips)}
        values = {name: value for name, value in values.items() if value is not None}
        with (self.args.output_dir / VALIDATIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values, "prompts": self.prompts}, ensure_ascii=False) + "\n")
        self.accelerator.log(values, step=step)
        log_frames(self.accelerator, dict(zip(self.prompts, clips, strict=True)), step)

        if degree is not None:
            logger.info("Step %d: dynamic degree %.2f pixels a frame (%d clips).", step, degree, len(clips))
        for warning in describe_trouble(degree and degree / self.width, loss, self._lowest_loss):
            logger.warning("Step %d: %s", step, warning)
        if loss is not None:
            self._lowest_loss = min(loss, self._lowest_loss or loss)
        self._losses.clear()
        return values

    def measure(self, clips: list[np.ndarray]) -> dict[str, float]:
        """What else there is to measure on the clips of the prompts, by name."""
        return {}

    def conditions(self, number: int) -> dict[str, Any]:
        """What the pipeline is given for clip `number` besides its prompt."""
        return {}

    @torch.no_grad()
    def paint(self, prompt: str, seed: int) -> np.ndarray:
        """A clip, uint8 (num_frames, height, width, 3). No random state outside of it is touched."""
        was_training = self.unet.training
        self.unet.eval()
        try:
            latents = self.pipe(
                prompt,
                num_frames=self.args.num_frames_range[1],
                height=self.height,
                width=self.width,
                num_inference_steps=self.args.validation_inference_steps,
                **choose_sampling(self.pipe, self.args.validation_guidance_scale),
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
                **self.conditions(seed),
            ).frames[0]
        finally:
            self.unet.train(was_training)
        return self.decode(latents.transpose(0, 1))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Frames, uint8 (num_frames, height, width, 3), of scaled latents (num_frames, channels, ...)."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0
        frames = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + shift
        pixels = torch.cat([self.vae.decode(chunk).sample for chunk in frames.split(4)])  # (frames, 3, height, width)
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def describe_trouble(widths_a_frame: float | None, loss: float | None, lowest_loss: float | None) -> list[str]:
    """What to say of a validation, nothing if all is well.

    Args:
        widths_a_frame: the dynamic degree, in picture widths; None for single pictures.
        loss: the mean diffusion loss since the last validation; `lowest_loss` the lowest such mean before.
    """
    warnings = []
    if widths_a_frame is not None and widths_a_frame < STILL_BELOW:
        warnings.append(
            "the clip stands still. A new adapter does so at first; if it goes on, train longer or with a higher "
            "--learning_rate, and look whether the training clips move at this --sample_stride."
        )
    if loss is not None and lowest_loss is not None and loss > DIVERGED_ABOVE * lowest_loss:
        warnings.append(
            f"the diffusion loss is {loss:.4f} on average since the last validation, {loss / lowest_loss:.1f} times "
            "its lowest: training diverges. Resume from an earlier checkpoint with a lower --learning_rate."
        )
    return warnings


def log_frames(accelerator: Accelerator, clips: dict[str, np.ndarray], step: int) -> None:
    """Hand every frame to the trackers that take images."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images(
                {f"validation/{prompt}": clip for prompt, clip in clips.items()}, step, dataformats="NHWC"
            )
        elif hasattr(tracker, "log_images"):
            tracker.log_images({f"validation/{prompt}": list(clip) for prompt, clip in clips.items()}, step)
