"""Publish what a run has trained: a motion adapter, or a pipeline with its image retention branch."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi

from landscape_video.generation.models import load_lora, load_motion_adapter
from landscape_video.training.objectives.consistency_recipe import LORA
from landscape_video.training.run.signals import TrainingFailed
from landscape_video.training.settings.consistency import ConsistencyTraining
from landscape_video.training.settings.inputs import MOTION_ADAPTER
from landscape_video.training.settings.run import HubSettings
from landscape_video.training.settings.training import MotionTraining, RetentionTraining
from motion_adapter.code_files import BRANCH
from motion_adapter.export import export_pipeline
from motion_adapter.hub import create_repo, hub_errors
from motion_adapter.model_card import RECORD, CardFacts
from motion_adapter.publish import publish
from pipeline_landscape_video import ImageRetention, LandscapeImageToVideoPipeline, LandscapeVideoPipeline


logger = logging.getLogger("training")


def check_hub_access(hub: HubSettings) -> None:
    """Raise, before hours of training, a `ValueError` if the push would be refused, a `ConnectionError` offline."""
    if hub.push_to_hub:
        with hub_errors(hub.hub_model_id):
            HfApi().whoami()  # tells a missing token from a wrong one
        create_repo(hub.hub_model_id, hub.hub_private)


def push_adapter(settings: MotionTraining, directory: Path, must_succeed: bool) -> None:
    """Publish the motion adapter that a recipe has exported into `directory`.

    Raises:
        TrainingFailed: The push failed; a warning instead unless `must_succeed`.
    """
    hub, folder = settings.hub, directory / MOTION_ADAPTER
    later = f" Later: landscape-video push {folder} {hub.hub_model_id} --license {hub.hub_license}"
    with _push_errors(must_succeed, folder, later):
        _publish(hub, folder, CardFacts(hub.hub_model_id, hub.hub_license, settings.base_model))


def push_pipeline(settings: RetentionTraining, directory: Path, must_succeed: bool) -> None:
    """Publish the whole pipeline with the models in `directory`, because a branch is useful only in its pipeline.

    Raises:
        TrainingFailed: The push failed; a warning instead unless `must_succeed`.
    """
    model, hub = settings.model, settings.hub
    with _push_errors(must_succeed, directory), tempfile.TemporaryDirectory() as scratch:
        adapter = model.motion_adapter_name_or_path if model.freeze_motion else str(directory / MOTION_ADAPTER)
        pipe = LandscapeImageToVideoPipeline.from_pretrained(
            model.pretrained_model_name_or_path,
            revision=model.revision,
            motion_adapter=load_motion_adapter(adapter, torch.float32),
            image_retention=ImageRetention.from_pretrained(directory / BRANCH),
        )
        folder = Path(scratch, "pipeline")
        export_pipeline(pipe, folder, include_code=False)
        shutil.copyfile(directory / BRANCH / RECORD, folder / RECORD)
        facts = CardFacts(hub.hub_model_id, hub.hub_license, settings.base_model, full=True)
        _publish(hub, folder, facts)


def push_tuned(settings: ConsistencyTraining, directory: Path, must_succeed: bool) -> None:
    """Publish what combined tuning has trained in `directory`: motion modules, or the pipeline with its LoRA merged.

    Raises:
        TrainingFailed: The push failed; a warning instead unless `must_succeed`.
    """
    model, hub = settings.model, settings.hub
    if model.tuned_layers == "temporal":
        push_adapter(settings, directory, must_succeed)
        return
    with _push_errors(must_succeed, directory), tempfile.TemporaryDirectory() as scratch:
        pipe = LandscapeVideoPipeline.from_pretrained(
            model.pretrained_model_name_or_path,
            revision=model.revision,
            motion_adapter=load_motion_adapter(model.motion_adapter_name_or_path, torch.float32),
        )
        load_lora(pipe, directory / LORA, LORA)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        folder = Path(scratch, "pipeline")
        export_pipeline(pipe, folder, include_code=False)
        shutil.copyfile(directory / LORA / RECORD, folder / RECORD)
        facts = CardFacts(hub.hub_model_id, hub.hub_license, settings.base_model, full=True)
        _publish(hub, folder, facts)


def _publish(hub: HubSettings, folder: Path, facts: CardFacts) -> None:
    release = publish(folder, facts, private=hub.hub_private, report=logger.info)
    logger.info("%s is at commit %s.", hub.hub_model_id, release.commit)


@contextmanager
def _push_errors(must_succeed: bool, trained: Path, later: str = "") -> Iterator[None]:
    """Turn errors of a push into `TrainingFailed` that says where the result is, or into a warning."""
    try:
        yield
    except (ValueError, OSError) as error:
        if must_succeed:
            raise TrainingFailed(f"Trained: the result is in {trained}; the push failed: {error}{later}") from error
        logger.warning("Not pushed, training continues: %s", error)
