"""Clips that a pipeline makes of pictures and texts, stored as `measured_clips.py` stores those of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tqdm import trange

from shanshui.measuring.measured_clips import MODEL_PARTS, ClipMaker, Request, Variant
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import Scene


@dataclass(frozen=True)
class Animation(Variant):
    """The settings of a call with pictures; `retention_scale` 0 is the text-to-video model, which sees none."""

    image_guidance_scale: float = 1.5
    guidance_order: str = "text_first"
    retention_scale: float = 1.0
    stages: int = 1
    hold_first_frame: bool = False

    @property
    def name(self) -> str:
        if self.retention_scale == 0:
            return f"{super().name}-text_only"
        held = "held" if self.hold_first_frame else "free"
        scales = f"image{self.image_guidance_scale:g}-{self.guidance_order}-retention{self.retention_scale:g}"
        return f"{super().name}-{scales}-x{self.stages}-{held}"


class AnimationMaker(ClipMaker):
    """Animates the first frames of rendered scenes; each `Request.index` is the number of its scene.

    Args:
        scenes: what the pictures show.
        model to workers: see `ClipMaker`.
    """

    pipeline_class = "LandscapeImageToVideoPipeline"
    model_parts = (*MODEL_PARTS, "image_retention")

    def __init__(self, scenes: Sequence[Scene], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scenes = scenes
        self.worker_arguments = (scenes, *self.worker_arguments)

    @cached_property
    def pictures(self) -> np.ndarray:
        """uint8 (scenes, height, width, 3)."""
        return np.stack([self.picture(index) for index in trange(len(self.scenes), desc="pictures")])

    def picture(self, index: int) -> np.ndarray:
        return render_clip(self.scenes[index], [0.0], self.size, self.size)[0]

    def make(self, requests: Sequence[Request], variant: Animation) -> np.ndarray:
        """Run the pipeline: uint8 (requests, stages * num_frames, height, width, 3)."""
        chosen = np.stack([self.picture(request.index) for request in requests])
        texts = [request.prompt for request in requests]
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            frames = self.pipe(
                prompts=[texts] * variant.stages,
                negative_prompt=[request.negative_prompt for request in requests],
                image=None if variant.retention_scale == 0 else chosen.astype(np.float32) / 255,
                num_frames=variant.num_frames,
                num_inference_steps=self.steps,
                guidance_scale=variant.guidance_scale,
                eta=variant.eta,
                image_guidance_scale=variant.image_guidance_scale,
                guidance_order=variant.guidance_order,
                retention_scale=variant.retention_scale,
                hold_first_frame=variant.hold_first_frame,
                generator=self.generators(requests, variant),
                output_type="np",
                interpolate=False,
            ).frames
        return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)
