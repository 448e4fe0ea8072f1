"""Recipe of an image retention branch (DreamVideo, 4.2), and of the motion modules with it."""

from pathlib import Path
from typing import Any

import torch

from landscape_video.files import write_directory
from landscape_video.training.objectives.motion_recipe import MotionRecipe
from landscape_video.training.settings.models import MOTION_ADAPTER
from motion_adapter.build import save_motion_modules
from motion_adapter.code_files import BRANCH


class RetentionRecipe(MotionRecipe):
    """Train the branch of a `UNetWithImageRetention` by the losses of a motion adapter, with first frames as images.

    Args:
        parts: Arguments of `MotionRecipe`; `unet` is a `UNetWithImageRetention`.
        first_frame_weight: Weight of the first frame in the loss, where each other frame has 1.
    """

    def __init__(self, *parts: Any, first_frame_weight: float) -> None:
        # A slowed-down clip keeps its first frame, because that is the image which the branch sees.
        super().__init__(*parts, first_frame_weight=first_frame_weight, speed_anchor=0.0)

    def conditions(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"image": batch["image"].to(self.inputs.device)}

    def export(self, directory: Path | None, final: bool = False) -> None:
        if directory is None:
            return
        with write_directory(directory / BRANCH) as folder:
            self.unet.image_retention.save_pretrained(folder)
            self.record.write(folder)
        if any(parameter.requires_grad for parameter in self.unet.unet.parameters()):
            with write_directory(directory / MOTION_ADAPTER) as folder:
                save_motion_modules(self.unet.unet, folder)
                self.record.write(folder)
