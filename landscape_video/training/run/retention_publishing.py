"""`--push_to_hub` of `train_image_retention.py`: a branch is of use in its pipeline only, so all of that is pushed."""

import argparse
import logging
import shutil
import tempfile
from pathlib import Path

from landscape_video.training.objectives.motion_models import load_motion_adapter
from landscape_video.training.run.hub_publishing import base_model_name
from landscape_video.training.run.run_control import TrainingFailed
from landscape_video.training.run.train_image_retention_args import ADAPTER
from motion_adapter.code_files import BRANCH
from motion_adapter.model_card import RECORD, CardFacts


logger = logging.getLogger(__name__)


def push_model(args: argparse.Namespace, directory: Path, must_succeed: bool = True) -> None:
    """Publish the pipeline with the models that lie in `directory`, as `landscape-video push` does.

    Raises:
        TrainingFailed: it could not be pushed; where `must_succeed` is False, that is a warning.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _push(args, directory, Path(scratch, "pipeline"))
    except (ValueError, OSError) as error:
        if must_succeed:
            raise TrainingFailed(f"Trained, and all is in {directory}, but not pushed: {error}") from error
        logger.warning("Not pushed, training goes on: %s", error)


def _push(args: argparse.Namespace, directory: Path, folder: Path) -> None:
    # They import the pipelines, for which training need not wait.
    from motion_adapter.export import export_pipeline
    from motion_adapter.publish import publish
    from pipeline_landscape_video import ImageRetention, LandscapeImageToVideoPipeline

    adapter = args.motion_adapter_name_or_path if args.freeze_motion else str(directory / ADAPTER)
    pipe = LandscapeImageToVideoPipeline.from_pretrained(
        args.pretrained_model_name_or_path,
        revision=args.revision,
        motion_adapter=load_motion_adapter(adapter),
        image_retention=ImageRetention.from_pretrained(directory / BRANCH),
    )
    export_pipeline(pipe, folder, include_code=False)
    shutil.copyfile(directory / BRANCH / RECORD, folder / RECORD)
    facts = CardFacts(args.hub_model_id, args.hub_license, base_model_name(args), full=True)
    release = publish(folder, facts, private=args.hub_private, report=logger.info)
    logger.info("%s is at commit %s.", args.hub_model_id, release.commit)
