"""The command line of `train_motion.py`. Names are those of diffusers' training examples where they have one."""

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from landscape_video.training.objectives.training_layers import CHECKPOINTED
from landscape_video.training.run.hub_publishing import add_hub_flags, check_hub_flags
from landscape_video.training.settings.options import saved_name
from landscape_video.training.settings.training import TrainingSettings
from motion_adapter.noise_adapter import NEGATIVES, POSITIVES, minimum_frames
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES


# What a preset changes; flags on the command line come first.
PRESETS = {
    "paper": {},
    "fast": {
        "train_batch_size": 4, "learning_rate": 1e-4, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 200,
        "max_train_steps": 5000, "mixed_precision": "bf16", "gradient_checkpointing": "attention", "use_ema": True,
        "ema_decay": 0.999, "validation_steps": 500,
    },
    "tiny": {
        "pretrained_model_name_or_path": str(SHANSHUI_TINY), "resolution": 128, "num_frames_range": [8, 16],
        "sample_stride": [1], "train_batch_size": 4, "learning_rate": 5e-4, "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 100, "max_train_steps": 2000, "use_ema": True, "ema_decay": 0.998,
        "checkpointing_steps": 100, "checkpoints_total_limit": 2, "validation_steps": 500,
    },
}  # fmt: skip
TRACKERS = ("tensorboard", "wandb")
OPTIMIZERS = ("adamw", "muon")
LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags; wrong ones end the process with code 2 and one line."""
    parser = make_parser(
        "Train a motion adapter (NADM) on top of a frozen image model. The defaults are the paper's.",
        "defaults of all other flags: paper; fast (one GPU with 24 GB, bfloat16, 5000 steps of 4 clips); tiny "
        "(shanshui-tiny on a CPU, for clips of 128 x 128 pixels)",
    )
    preset = preset_of(argv, PRESETS)
    _add_model_flags(parser.add_argument_group("models"), "pretrained_model_name_or_path" not in preset)
    add_training_flags(parser)
    parser.set_defaults(**preset)
    args = parser.parse_args(argv)
    try:
        if args.motion_max_seq_length is not None and args.motion_max_seq_length < 1:
            raise ValueError(f"--motion_max_seq_length is {args.motion_max_seq_length}, but has to be at least 1.")
        if args.no_versatile and args.no_sparse_causal:
            raise ValueError("--no_versatile and --no_sparse_causal together leave no attention over time.")
        check_training_flags(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def settings_of_flags(settings: type[TrainingSettings], args: argparse.Namespace) -> TrainingSettings:
    """Settings with the values of all flags."""
    values = {}
    for _, group in settings.groups():
        for field in fields(group):
            value = getattr(args, saved_name(field))
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return settings.from_options(args.preset, **values)


def make_parser(description: str, presets: str) -> argparse.ArgumentParser:
    """A parser of a training script with nothing but --preset, whose choices the text `presets` explains."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # a misspelt flag should be an error, not another flag
        description=description,
        epilog="Exit codes: 0 finished, or the time of --max_train_minutes is over (a checkpoint is saved); "
        "75 stopped by SIGTERM, SIGUSR1 or SIGINT, at once before the first step, later after saving a checkpoint, go "
        "on with --resume_from_checkpoint latest; 1 failed; 2 wrong flags. OUTPUT_DIR/status.json says the same, for "
        "launchers that hide the code.",
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="paper", help=presets)
    return parser


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every training script: data, objective, optimization, run and publishing."""
    _add_data_flags(parser.add_argument_group("data"))
    _add_objective_flags(parser.add_argument_group("objective"))
    _add_optimization_flags(parser.add_argument_group("optimization"))
    _add_run_flags(parser.add_argument_group("run"))
    add_hub_flags(parser.add_argument_group("publishing"))


def check_training_flags(args: argparse.Namespace) -> None:
    """Check the flags of `add_training_flags` and put them in order. Raises a ValueError that names the flag."""
    args.num_frames_range = _as_range("--num_frames_range", args.num_frames_range)
    args.sample_stride = args.sample_stride and _as_range("--sample_stride", args.sample_stride)
    _check(args)
    if args.pretrained_model_name_or_path == EMBEDDED_MODEL:
        args.pretrained_model_name_or_path = str(SHANSHUI_TINY)
    check_hub_flags(args)


def preset_of(argv: list[str] | None, presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the preset that the command line names changes, nothing for one that does not exist."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--preset", default="paper")
    return presets.get(parser.parse_known_args(argv)[0].preset, {})


def _add_model_flags(group: argparse._ArgumentGroup, model_required: bool) -> None:
    group.add_argument(
        "--pretrained_model_name_or_path",
        required=model_required,
        help="the image model: shanshui-tiny (in the package), or a folder or hub id with unet, text_encoder, "
        "tokenizer, scheduler (and vae, for videos)",
    )
    group.add_argument("--revision", help="commit, tag or branch of a hub id")
    group.add_argument(
        "--motion_adapter_name_or_path",
        help="go on from this motion adapter: a folder, a hub id, or a file of AnimateDiff's (.safetensors, .ckpt); "
        "a new one without it",
    )
    group.add_argument(
        "--sparse_causal_mode",
        choices=SPARSE_CAUSAL_MODES,
        help="which frames Sparse-Causal attention sees (Eq. 8); previous, or what the given adapter says",
    )
    group.add_argument("--no_versatile", action="store_true", help="ablation: Versatile attention fixed at zero")
    group.add_argument("--no_sparse_causal", action="store_true", help="ablation: Sparse-Causal fixed at zero")
    group.add_argument("--motion_max_seq_length", type=int, help="most frames of a clip; 32, or the given adapter's")
    group.add_argument("--use_motion_mid_block", action="store_true", help="the mid block moves, too")


def _add_data_flags(group: argparse._ArgumentGroup) -> None:
    where = group.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--train_data_dir",
        type=Path,
        help="videos with a metadata.jsonl or metadata.csv (file_name, text), a CSV file of WebVid's columns, "
        "WebDataset shards (*.tar), or a latent cache (see cache_latents.py)",
    )
    where.add_argument("--dataset_name", help="the hub id of a data set in one of these layouts")
    group.add_argument("--dataset_revision", help="commit, tag or branch of --dataset_name")
    group.add_argument("--caption_column", default="text", help="what holds the caption in a table or shard; text")
    group.add_argument("--trigger_word", help="put before every caption, to call in a prompt what was learned")
    group.add_argument(
        "--skip_bad",
        action="store_true",
        help="train without the clips that cannot be used (OUTPUT_DIR/clips_report.jsonl has the reasons), where "
        "training would not start",
    )
    group.add_argument("--resolution", type=int, help="height and width of video frames, in pixels; 256")
    group.add_argument(
        "--num_frames_range",
        type=int,
        nargs="+",
        default=[8],
        metavar=("MIN", "MAX"),
        help="frames of a clip; with two numbers, each step draws a length between them",
    )
    group.add_argument(
        "--sample_stride",
        type=int,
        nargs="+",
        metavar=("MIN", "MAX"),
        help="every how manyth frame; with two numbers, drawn for each clip; 4 for videos, 1 for a latent cache",
    )
    group.add_argument("--caption_dropout_prob", type=float, default=0.1, help="how often a clip gets no caption")
    group.add_argument("--dataloader_num_workers", type=int, default=0)
    group.add_argument(
        "--cache_dir",
        type=Path,
        default=Path(os.environ.get("LANDSCAPE_VIDEO_CACHE", Path.home() / ".cache" / "landscape-video")),
        help="videos and captions are encoded once, into this folder, and again where they or the models change; "
        "several machines need one that they share; %(default)s",
    )
    group.add_argument("--no_cache", action="store_true", help="decode and encode the videos in every step instead")


def _add_objective_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--contrastive_weight", type=float, default=0.07, help="lambda of Eq. 13; 0: without this loss")
    group.add_argument("--contrastive_temperature", type=float, default=0.07, help="tau of Eq. 10")
    group.add_argument("--negative_threshold", type=int, default=4, help="m of Eq. 10, in frames")
    group.add_argument(
        "--negatives", choices=NEGATIVES, default="all", help="frames to draw negatives from; eq10: not the last one"
    )
    group.add_argument("--positives", choices=POSITIVES, default="next", help="positives of an anchor (Table IV)")
    group.add_argument("--snr_gamma", type=float, help="min-SNR weighting of the diffusion loss; off")
    group.add_argument(
        "--slow_motion_prob",
        type=float,
        default=0.0,
        help="how often the noisy clip that the model sees moves more slowly than the one that it has to find, down "
        "to standing still: in sampling, what begins still then need not stay so; only clips with a caption, and "
        "where alpha_bar is at most 0.8; 0",
    )
    group.add_argument(
        "--standstill_prob", type=float, default=0.0, help="how many of those slow clips stand quite still; 0"
    )
    group.add_argument(
        "--timestep_bias_strategy",
        choices=("none", "later", "earlier"),
        default="none",
        help="train the noisiest (later) or the cleanest steps more often; what moves where is settled in noise",
    )
    group.add_argument(
        "--timestep_bias_portion", type=float, default=0.25, help="which part of the schedule such steps are; 0.25"
    )
    group.add_argument(
        "--timestep_bias_multiplier", type=float, default=2.0, help="how many times as often they come; 2"
    )


def _add_optimization_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--train_batch_size", type=int, default=1, help="clips for each process and forward pass")
    group.add_argument("--gradient_accumulation_steps", type=int, default=1)
    group.add_argument("--max_train_steps", type=int, default=40_000)
    group.add_argument("--max_train_minutes", type=float, help="stop after so much time, with a checkpoint and code 0")
    group.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="adamw",
        help="muon: for the matrices, adamw for the rest; half of AdamW's memory, and it takes a larger learning rate",
    )
    group.add_argument("--learning_rate", type=float, default=1e-5)
    group.add_argument("--lr_scheduler", choices=LR_SCHEDULERS, default="constant")
    group.add_argument("--lr_warmup_steps", type=int, default=0, help="all schedules but `constant` rise so long")
    group.add_argument("--adam_beta1", type=float, default=0.9)
    group.add_argument("--adam_beta2", type=float, default=0.999)
    group.add_argument("--adam_weight_decay", type=float, default=1e-2)
    group.add_argument("--adam_epsilon", type=float, default=1e-8)
    group.add_argument("--max_grad_norm", type=float, default=1.0)
    group.add_argument("--use_ema", action="store_true", help="export an exponential moving average of the weights")
    group.add_argument("--ema_decay", type=float, default=0.9999, help="reached by way of (1 + n) / (10 + n)")
    group.add_argument("--use_8bit_adam", action="store_true", help="a quarter of AdamW's memory; needs bitsandbytes")
    group.add_argument(
        "--gradient_checkpointing",
        nargs="?",
        const="all",
        choices=tuple(CHECKPOINTED),
        help="less memory for more time: compute attention and motion modules (attention), or the residual blocks as "
        "well (all, what the flag alone means), again in the backward pass",
    )
    group.add_argument(
        "--torch_compile", action="store_true", help="minutes once for each number of frames, then faster steps"
    )
    group.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="as `accelerate config` says")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output_dir", type=Path, default=Path("motion-adapter"))
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--logging_steps", type=int, default=10, help="steps that one line of log.jsonl averages")
    group.add_argument("--checkpointing_steps", type=int, default=500)
    group.add_argument("--checkpoints_total_limit", type=int, help="delete older checkpoints beyond so many")
    group.add_argument(
        "--resume_from_checkpoint",
        metavar="latest|PATH",
        help="go on from a checkpoint; later ones in OUTPUT_DIR are renamed abandoned-...",
    )
    group.add_argument(
        "--report_to",
        nargs="+",
        choices=TRACKERS,
        default=[],
        help="losses, learning rate, speed and validation clips go there, and to files in OUTPUT_DIR anyway",
    )
    group.add_argument(
        "--validation_steps", type=int, help="paint a clip every so many steps and say how much moves; never"
    )
    group.add_argument(
        "--validation_prompts", nargs="+", metavar="PROMPT", help="of these clips; the first training caption"
    )
    group.add_argument("--validation_inference_steps", type=int, default=25, help="denoising steps of these clips")
    group.add_argument(
        "--validation_guidance_scale", type=float, help="of these clips; 8, of shanshui-tiny and its like 4"
    )


def _as_range(flag: str, values: list[int]) -> tuple[int, int]:
    low, high = values[0], values[-1]
    if len(values) > 2 or not 1 <= low <= high:
        raise ValueError(f"{flag} takes one number or MIN MAX, with 1 <= MIN <= MAX, got {values}.")
    return low, high


def _check(args: argparse.Namespace) -> None:
    at_least_one = (
        "train_batch_size", "gradient_accumulation_steps", "max_train_steps", "logging_steps", "checkpointing_steps",
        "checkpoints_total_limit", "negative_threshold", "resolution",
        "validation_steps", "validation_inference_steps",
    )  # fmt: skip
    above_zero = (
        "learning_rate",
        "max_grad_norm",
        "contrastive_temperature",
        "snr_gamma",
        "max_train_minutes",
        "timestep_bias_multiplier",
    )
    not_negative = ("lr_warmup_steps", "contrastive_weight", "adam_weight_decay", "dataloader_num_workers", "seed")
    shares = ("caption_dropout_prob", "slow_motion_prob", "standstill_prob", "ema_decay")
    for names, holds, what in (
        (at_least_one, lambda value: value >= 1, "at least 1"),
        (above_zero, lambda value: value > 0, "above 0"),
        (not_negative, lambda value: value >= 0, "0 or more"),
        (shares, lambda value: 0 <= value <= 1, "between 0 and 1"),
    ):
        for name in names:
            value = getattr(args, name)
            if value is not None and not holds(value):
                raise ValueError(f"--{name} is {value}, but has to be {what}.")
    if args.standstill_prob > 0 and args.slow_motion_prob == 0:
        raise ValueError("--standstill_prob says how many slow clips stand still, but --slow_motion_prob is 0.")
    if not 0 < args.timestep_bias_portion < 1:
        raise ValueError(f"--timestep_bias_portion is {args.timestep_bias_portion}, but has to be between 0 and 1.")
    if args.contrastive_weight > 0:
        shortest = minimum_frames(args.negative_threshold, args.negatives)
        if args.num_frames_range[0] < shortest:
            raise ValueError(
                f"--negative_threshold {args.negative_threshold} with --negatives {args.negatives} leaves clips of "
                f"{args.num_frames_range[0]} frames without a negative: it takes at least {shortest} frames."
            )
    if args.dataset_revision is not None and args.dataset_name is None:
        raise ValueError("--dataset_revision says which version of a --dataset_name to take, but there is none.")
    if args.validation_steps is None and args.validation_prompts:
        raise ValueError("--validation_prompts need --validation_steps.")
    if args.use_8bit_adam and args.optimizer != "adamw":
        raise ValueError(f"--use_8bit_adam is AdamW's, but --optimizer is {args.optimizer}.")
