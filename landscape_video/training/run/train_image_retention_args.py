"""The command line of `train_image_retention.py`: that of `train_motion.py` where both mean the same."""

import argparse
import math
import os
from pathlib import Path

from landscape_video.training.run import train_motion_args
from landscape_video.training.run.train_motion_args import (
    add_training_flags,
    check_training_flags,
    make_parser,
    preset_of,
)


ADAPTER = "motion_adapter"  # a folder in a pipeline's

# Defaults that differ from those of `train_motion.py`, and what a preset changes; the command line comes first.
DEFAULTS = {"contrastive_weight": 0.0, "output_dir": Path("image-retention")}  # the paper has the diffusion loss alone
PRESETS = {
    # 340 000 clips, 5 epochs, batches of 9 on 8 GPUs (DreamVideo, 5.1, which does not say the learning rate).
    "paper": {"train_batch_size": 9, "max_train_steps": 23_611},
    "fast": train_motion_args.PRESETS["fast"],
    # The embedded text-to-video model stays as it is, bit for bit: its motion modules serve both pipelines, the
    # figures in its card go on to hold, and no second adapter has to travel with the package.
    "tiny": train_motion_args.PRESETS["tiny"] | {"freeze_motion": True},
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags; wrong ones end the process with code 2 and one line."""
    parser = make_parser(
        "Train an image retention branch (DreamVideo), with which a motion model brings a picture to life: from clips "
        "whose first frame it sees. Most flags are those of train_motion.py.",
        "defaults of all other flags: paper (8 GPUs); fast (one GPU with 24 GB, bfloat16, 5000 steps of 4 clips); "
        "tiny (shanshui-tiny's branch on a CPU, for clips of 128 x 128 pixels; its text-to-video model stays as it "
        "is)",
    )
    preset = preset_of(argv, PRESETS)
    _add_model_flags(parser.add_argument_group("models"), "pretrained_model_name_or_path" not in preset)
    _add_picture_flags(parser.add_argument_group("pictures"))
    add_training_flags(parser)
    parser.set_defaults(**DEFAULTS | preset)
    args = parser.parse_args(argv)
    try:
        check_training_flags(args)
        _check(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def _add_model_flags(group: argparse._ArgumentGroup, model_required: bool) -> None:
    group.add_argument(
        "--pretrained_model_name_or_path",
        required=model_required,
        help="the image model: shanshui-tiny (in the package), or a folder or hub id with unet, text_encoder, "
        "tokenizer, scheduler (and vae, for videos and --validation_steps)",
    )
    group.add_argument("--revision", help="commit, tag or branch of a hub id")
    group.add_argument(
        "--motion_adapter_name_or_path",
        help="the motion adapter that the branch is for: a folder, a hub id, or a file of AnimateDiff's "
        "(.safetensors, .ckpt); motion_adapter/ in the image model's folder",
    )
    group.add_argument(
        "--image_retention_name_or_path",
        help="go on from this branch: a folder or a hub id; without it, a copy of the UNet's way down",
    )
    group.add_argument(
        "--freeze_motion",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="train the branch alone: without a picture, the model stays what it was. The paper trains the motion "
        "modules, too, and so do the presets paper and fast; OUTPUT_DIR then gets their motion_adapter/",
    )


def _add_picture_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image_dropout_prob",
        type=float,
        default=0.1,
        help="how often a clip gets a white picture, which means none; independent of --caption_dropout_prob",
    )
    group.add_argument(
        "--first_frame_weight",
        type=float,
        default=1.0,
        help="how much the first frame counts in the loss, where each other counts 1: more of it, and the picture is "
        "met more closely, after fewer steps. The paper has 1",
    )
    group.add_argument(
        "--validation_images",
        nargs="+",
        metavar="FILE",
        help="pictures to animate in --validation_steps, one for each of --validation_prompts; best none that is "
        "trained on. The first frame of the first training clip",
    )
    group.add_argument(
        "--validation_image_guidance_scale", type=float, default=1.5, help="of the picture (s_i of Eq. 5) in these"
    )


def _check(args: argparse.Namespace) -> None:
    for way in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{way}", "false").lower() == "true":  # what `accelerate launch` sets
            raise ValueError("A branch is trained whole in every process: launch it without FSDP and DeepSpeed.")
    if not 0 <= args.image_dropout_prob <= 1:
        raise ValueError(f"--image_dropout_prob is {args.image_dropout_prob}, but has to be between 0 and 1.")
    if not 0 < args.first_frame_weight < math.inf:
        raise ValueError(f"--first_frame_weight is {args.first_frame_weight}, but has to be above 0.")
    if args.motion_adapter_name_or_path is None:
        inside = Path(args.pretrained_model_name_or_path, ADAPTER)
        if not inside.is_dir():
            raise ValueError(
                f"{args.pretrained_model_name_or_path} holds no {ADAPTER}/: name one with "
                "--motion_adapter_name_or_path. A branch is trained for a model that moves already."
            )
        args.motion_adapter_name_or_path = str(inside)
    base = Path(args.pretrained_model_name_or_path)
    if args.push_to_hub and base.is_dir() and not (base / "model_index.json").is_file():
        raise ValueError(f"--push_to_hub publishes the whole pipeline, but {base} has no model_index.json.")
    if args.validation_images is None:
        return
    if args.validation_steps is None:
        raise ValueError("--validation_images need --validation_steps.")
    if len(args.validation_prompts or []) != len(args.validation_images):
        raise ValueError(
            f"--validation_images has {len(args.validation_images)} pictures, but --validation_prompts "
            f"{len(args.validation_prompts or [])} texts: each picture needs one."
        )
    for file in args.validation_images:
        if not Path(file).is_file():
            raise ValueError(f"--validation_images: there is no file {file}.")
