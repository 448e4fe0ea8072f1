"""Where a run begins: anew, or at a checkpoint of an earlier one."""

import argparse
import logging
from pathlib import Path

from landscape_video.training.run.checkpoints import (
    CheckpointError,
    OutputDirInUse,
    list_checkpoints,
    newest_valid_checkpoint,
    verify_checkpoint,
)
from landscape_video.training.run.training_state import TrainingState


# What may differ between a run and the one it resumes without changing what a step computes.
FREE_TO_CHANGE = {
    "output_dir", "logging_steps", "checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint",
    "max_train_minutes", "dataloader_num_workers", "gradient_checkpointing", "torch_compile", "preset",
    "cache_dir", "report_to", "validation_steps", "validation_prompts", "validation_inference_steps",
    "validation_guidance_scale", "validation_images", "validation_image_guidance_scale",
    "push_to_hub", "hub_model_id", "hub_license", "hub_base_model", "hub_private", "hub_strategy",
}  # fmt: skip

logger = logging.getLogger("train_motion")


def find_checkpoint(output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """The checkpoint to go on from, None for a new run.

    Raises:
        CheckpointError: the given one, or every one there is, cannot be used.
        OutputDirInUse: a new run would mix its checkpoints with those of an earlier one.
    """
    present = list_checkpoints(output_dir)
    if resume_from_checkpoint is None:
        if present:
            raise OutputDirInUse(
                f"{output_dir} holds checkpoints of an earlier run: go on with --resume_from_checkpoint latest, or "
                "choose another --output_dir."
            )
        return None
    if resume_from_checkpoint != "latest":
        verify_checkpoint(resume_from_checkpoint)
        return Path(resume_from_checkpoint)
    newest = newest_valid_checkpoint(output_dir)
    if newest is None and present:
        raise CheckpointError(f"None of the {len(present)} checkpoints in {output_dir} can be used.")
    if newest is None:
        logger.info("No checkpoint in %s: starting from the beginning.", output_dir)
    return newest


def settings_of(args: argparse.Namespace, num_processes: int, num_clips: int) -> dict[str, str]:
    """What a checkpoint says of the run that saved it."""
    settings = {key: str(value) for key, value in vars(args).items() if key not in FREE_TO_CHANGE}
    return settings | {"num_processes": str(num_processes), "num_clips": str(num_clips)}


def resume(state: TrainingState, checkpoint: Path, settings: dict[str, str]) -> int:
    """Restore the state of a checkpoint, say which settings are no longer what they were, and return its step."""
    values = state.load(checkpoint)
    for key in sorted(settings.keys() | values["settings"].keys()):
        before, now = values["settings"].get(key), settings.get(key)
        if before != now:
            logger.warning("%s was %s when %s was saved, and is %s now.", key, before, checkpoint.name, now)
    logger.info("Resumed from %s.", checkpoint)
    return values["step"]
