"""`--push_to_hub` of `train_motion.py`: its flags, the record that lies beside each adapter, and the push itself."""

import argparse
import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import HfApi

from landscape_video.training.run.run_control import LOG, TrainingFailed
from motion_adapter.hub import check_repo_id, create_repo, hub_errors
from motion_adapter.model_card import RECORD, CardFacts, check_license
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


STRATEGIES = ("end", "every_save")

# What says where files lie rather than how the weights came about.
NO_SETTINGS = {
    "output_dir", "train_data_dir", "pretrained_model_name_or_path", "resume_from_checkpoint", "logging_steps",
    "checkpointing_steps", "checkpoints_total_limit", "dataloader_num_workers", "cache_dir", "report_to",
    "validation_images", "motion_adapter_name_or_path", "image_retention_name_or_path",
}  # fmt: skip

logger = logging.getLogger(__name__)


def add_hub_flags(group: argparse._ArgumentGroup) -> None:
    """The flags that begin with `hub_`, and `push_to_hub`."""
    group.add_argument("--push_to_hub", action="store_true", help="publish the adapter on the Hugging Face Hub")
    group.add_argument("--hub_model_id", metavar="USER/NAME", help="the repository; made if it is new")
    group.add_argument("--hub_license", metavar="ID", help="of the weights, as the Hub names it: apache-2.0, ...")
    group.add_argument("--hub_base_model", metavar="NAME", help="the image model's name on the Hub, if it is a folder")
    group.add_argument("--hub_private", action="store_true", help="only you can read the repository, if it is new")
    group.add_argument(
        "--hub_strategy", choices=STRATEGIES, default="end", help="push when training ends, or with each checkpoint"
    )


def check_hub_flags(args: argparse.Namespace) -> None:
    """Raise a ValueError for flags with which the push at the end would fail."""
    given = [name for name in ("hub_model_id", "hub_license", "hub_base_model") if getattr(args, name) is not None]
    if not args.push_to_hub:
        if given or args.hub_private or args.hub_strategy != "end":
            raise ValueError("--hub_... flags act with --push_to_hub only.")
        return
    if args.hub_model_id is None or args.hub_license is None:
        raise ValueError("--push_to_hub needs --hub_model_id USER/NAME and --hub_license.")
    check_repo_id(args.hub_model_id)
    if args.hub_license == "other":
        raise ValueError(
            "--hub_license other needs a name, too: push later, with `landscape-video push --license-name`."
        )
    check_license(args.hub_license, None)
    if base_model_name(args) is None:
        raise ValueError("--push_to_hub: the image model is a folder; give its name on the Hub with --hub_base_model.")


def check_hub_access(args: argparse.Namespace) -> None:
    """Raise, before hours of training, a ValueError where the push would be refused, a ConnectionError offline."""
    if args.push_to_hub:
        with hub_errors(args.hub_model_id):
            HfApi().whoami()  # knows a missing token from a wrong one
        create_repo(args.hub_model_id, args.hub_private)


def base_model_name(args: argparse.Namespace) -> str | None:
    """The image model as others know it, None for a folder of this machine."""
    folder = Path(args.pretrained_model_name_or_path)
    if args.hub_base_model is not None:
        return args.hub_base_model
    if not folder.exists():
        return args.pretrained_model_name_or_path
    return EMBEDDED_MODEL if folder.samefile(SHANSHUI_TINY) else None


def write_record(directory: Path, args: argparse.Namespace, num_clips: int, num_processes: int) -> None:
    """Write down how the adapter in `directory` was trained, for its card: settings, last figures, machine."""
    settings = {
        name: value if isinstance(value, (bool, int, float, str)) else list(value)
        for name, value in vars(args).items()
        if name not in NO_SETTINGS and not name.startswith(("hub_", "push_")) and value is not None
    }
    on_gpu = PartialState().device.type == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    record: dict[str, Any] = {
        "base_model": base_model_name(args),
        "settings": settings,
        "figures": {"clips": num_clips, **last_figures(args.output_dir)},
        "machine": {"processes": num_processes, "device": device, "trained_with_torch": version("torch")},
    }
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def last_figures(output_dir: Path) -> dict[str, float]:
    """The last line of the log: means over the steps since the one before."""
    log = output_dir / LOG
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return json.loads(lines[-1]) if lines else {}


def push_adapter(args: argparse.Namespace, directory: Path) -> None:
    """Publish the adapter in `directory` as `landscape-video push` does. Errors as `publish`."""
    from motion_adapter.publish import publish  # imports the pipeline, for which training need not wait

    facts = CardFacts(args.hub_model_id, args.hub_license, base_model_name(args))
    release = publish(directory, facts, private=args.hub_private, report=logger.info)
    logger.info("%s is at commit %s.", args.hub_model_id, release.commit)


def push_checkpoint(args: argparse.Namespace, directory: Path) -> None:
    """As `push_adapter`, but a push that fails is no reason to stop training."""
    try:
        push_adapter(args, directory)
    except (ValueError, OSError) as error:
        logger.warning("Not pushed, training goes on: %s", error)


def push_result(args: argparse.Namespace, directory: Path) -> None:
    """As `push_adapter`; where it fails, the error says how to push what was trained."""
    try:
        push_adapter(args, directory)
    except (ValueError, OSError) as error:
        command = f"landscape-video push {directory} {args.hub_model_id} --license {args.hub_license}"
        raise TrainingFailed(
            f"Trained, and all is in {directory}, but not pushed: {error} Later: {command}"
        ) from error
