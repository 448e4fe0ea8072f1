"""Generate validation clips, which show early that nothing moves or that the loss diverges."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler

from landscape_video.evaluation.metrics.clip_metrics import fff_ssim
from landscape_video.evaluation.metrics.motion_metrics import dynamic_degree
from landscape_video.generation.few_steps import few_step_scheduler
from landscape_video.generation.generate_clip import run_pipeline
from landscape_video.generation.images import read_image
from landscape_video.generation.settings import TextToVideoSettings
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latent_store import encode_frames, load_vae
from landscape_video.training.objectives.motion_recipe import MotionRecipe
from landscape_video.training.objectives.recipe import log_terms
from landscape_video.training.settings.training import TrainingSettings
from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_pictures import images_to_tensor
from pipeline_landscape_video.video_writing import SAMPLED_FPS, write_video


VALIDATIONS = "validation.jsonl"
STILL_BELOW = 0.001  # image widths per frame: what optical flow finds in a still clip
DIVERGED_ABOVE = 1.25  # times the lowest mean loss between two validations; means of few steps differ by less

logger = logging.getLogger("training")


class Validation:
    """Generates the validation prompts every `validation_steps` steps, measures the clips and warns of trouble.

    OUTPUT_DIR gets `validation/step-STEP.mp4` and a line in `validation.jsonl`. Trackers get the same numbers and the
    frames as images.

    Args:
        settings: Settings of the run.
        recipe: What trains; its UNet and frozen models generate the clips.
        accelerator: Processes of the run.
    """

    def __init__(self, settings: TrainingSettings, recipe: MotionRecipe, accelerator: Accelerator) -> None:
        inputs = recipe.inputs
        self.settings = settings
        self.unet = recipe.unet
        self.vae = inputs.vae or load_vae(*settings.model.source, inputs.device)
        self.accelerator = accelerator
        self.prompts = settings.validation.validation_prompts or (inputs.clips.captions[0][0],)
        scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = (scale * side for side in inputs.latent_shape[1:])
        self.sampling = TextToVideoSettings(
            num_frames=settings.data.num_frames_range[1],
            height=height,
            width=width,
            steps=settings.validation.validation_inference_steps,
            guidance_scale=settings.validation.validation_guidance_scale,
        )
        self.pipe = self.build_pipeline(
            vae=self.vae,
            text_encoder=inputs.prompt_embeds.text_encoder,
            tokenizer=inputs.prompt_embeds.tokenizer,
            scheduler=DDIMScheduler.from_config(inputs.noise_scheduler.config, clip_sample=False, steps_offset=1),
        )
        self.pipe.set_progress_bar_config(desc="Validating", leave=False)
        self._losses: list[torch.Tensor] = []
        self._lowest_loss: float | None = None

    def build_pipeline(self, **components: Any) -> LandscapeVideoPipeline:
        """Build the pipeline around the UNet in training."""
        return LandscapeVideoPipeline(unet=self.unet, motion_adapter=None, **components)

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Add the losses of a batch."""
        self._loss_name, loss = next(iter(log_terms(losses).items()))
        self._losses.append(loss)

    def run(self, step: int) -> None:
        """Generate, write and measure clips with the weights as they are, and warn of trouble.

        All processes must call this where FSDP has split the UNet; the main one writes and measures.
        """
        clips = [self.generate(prompt, seed) for seed, prompt in enumerate(self.prompts)]
        losses, self._losses = self._losses, []
        if not self.accelerator.is_main_process:
            return
        paths = []
        for number, clip in enumerate(clips):
            name = f"step-{step:06d}.mp4" if len(clips) == 1 else f"step-{step:06d}-{number + 1}.mp4"
            path = self.settings.run.output_dir / "validation" / name
            path.parent.mkdir(exist_ok=True)
            write_video(path, clip, fps=SAMPLED_FPS)
            paths.append(path)
        values = self.measure(clips)
        degree, loss = values.get("dynamic_degree"), None
        if losses:
            loss = values[f"mean_{self._loss_name}_loss"] = torch.stack(losses).mean().item()
        with (self.settings.run.output_dir / VALIDATIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values, "prompts": self.prompts}, ensure_ascii=False) + "\n")
        self.accelerator.log(values, step=step)
        log_clips(self.accelerator, dict(zip(self.prompts, zip(clips, paths, strict=True), strict=True)), step)

        measured = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
        logger.info("Step %d: %s (%d clips).", step, measured, len(clips))
        for warning in describe_trouble(degree and degree / self.sampling.width, loss, self._lowest_loss):
            logger.warning("Step %d: %s", step, warning)
        if loss is not None:
            self._lowest_loss = min(loss, self._lowest_loss or loss)

    def measure(self, clips: list[np.ndarray]) -> dict[str, float]:
        """Measure the clips of the prompts, by name of the metric; the motion of clips with more than one frame."""
        if self.settings.data.num_frames_range[1] == 1:
            return {}
        return {"dynamic_degree": float(np.mean([dynamic_degree(clip) for clip in clips]))}

    def conditions(self, number: int) -> dict[str, Any]:
        """Keywords of the pipeline's call for clip `number`, besides its prompt."""
        return {}

    @torch.no_grad()
    def generate(self, prompt: str, seed: int) -> np.ndarray:
        """Generate a clip, uint8 (num_frames, height, width, 3), without touching any other random state."""
        was_training = self.unet.training
        self.unet.eval()
        try:
            content = {"prompt": prompt, **self.conditions(seed)}
            latents = run_pipeline(self.pipe, self.sampling, [seed], output_type="latent", **content)[0]
        finally:
            self.unet.train(was_training)
        return self.decode(latents.transpose(0, 1))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Decode scaled latents, (num_frames, channels, ...), to frames, uint8 (num_frames, height, width, 3)."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0
        frames = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + shift
        pixels = torch.cat([self.vae.decode(chunk).sample for chunk in frames.split(4)])  # (frames, 3, height, width)
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def describe_trouble(widths_a_frame: float | None, loss: float | None, lowest_loss: float | None) -> list[str]:
    """Warnings about a validation, none if all is well.

    Args:
        widths_a_frame: Dynamic degree in image widths per frame; None for single images.
        loss: Mean diffusion loss since the last validation.
        lowest_loss: Lowest such mean before.
    """
    warnings = []
    if widths_a_frame is not None and widths_a_frame < STILL_BELOW:
        warnings.append(
            "the clip does not move. This is normal for a new adapter; if it lasts, train longer or with a higher "
            "--learning_rate, and check that the training clips move at this --sample_stride."
        )
    if loss is not None and lowest_loss is not None and loss > DIVERGED_ABOVE * lowest_loss:
        warnings.append(
            f"the diffusion loss is {loss:.4f} on average since the last validation, {loss / lowest_loss:.1f} times "
            "its lowest: training diverges. Resume from an earlier checkpoint with a lower --learning_rate."
        )
    return warnings


def log_clips(accelerator: Accelerator, clips: dict[str, tuple[np.ndarray, Path]], step: int) -> None:
    """Pass clips, by prompt as frames and file, to the trackers: the file, or every frame as an image."""
    frames = {f"validation/{prompt}": clip for prompt, (clip, _) in clips.items()}
    for tracker in accelerator.trackers:
        if tracker.name == "trackio":
            from trackio import Video

            videos = {f"validation/{prompt}": Video(path, caption=prompt) for prompt, (_, path) in clips.items()}
            tracker.log(videos, step=step)
        elif tracker.name == "tensorboard":
            tracker.log_images(frames, step, dataformats="NHWC")
        elif hasattr(tracker, "log_images"):
            tracker.log_images({name: list(clip) for name, clip in frames.items()}, step)


class FewStepValidation(Validation):
    """Generates the validation prompts in the student's steps."""

    def __init__(self, *common: Any) -> None:
        super().__init__(*common)
        self.pipe.scheduler = few_step_scheduler(self.pipe.scheduler)


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
