"""The command line of `train_motion.py`. Names are those of diffusers' training examples where they have one."""

import argparse
from pathlib import Path

from motion_adapter.noise_adapter import NEGATIVES, POSITIVES, minimum_frames
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES


LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags; wrong ones end the process with code 2 and one line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # a misspelt flag should be an error, not another flag
        description="Train a motion adapter (NADM) on top of a frozen image model. The defaults are the paper's.",
        epilog="Exit codes: 0 finished, or the time of --max_train_minutes is over (a checkpoint is saved); "
        "75 stopped by SIGTERM, SIGUSR1 or SIGINT after saving a checkpoint, go on with --resume_from_checkpoint "
        "latest; 1 failed; 2 wrong flags. OUTPUT_DIR/status.json says the same, for launchers that hide the code.",
    )
    _add_model_flags(parser.add_argument_group("models"))
    _add_data_flags(parser.add_argument_group("data"))
    _add_objective_flags(parser.add_argument_group("objective"))
    _add_optimization_flags(parser.add_argument_group("optimization"))
    _add_run_flags(parser.add_argument_group("run"))
    args = parser.parse_args(argv)
    try:
        args.num_frames_range = _as_range("--num_frames_range", args.num_frames_range)
        args.sample_stride = args.sample_stride and _as_range("--sample_stride", args.sample_stride)
        _check(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--pretrained_model_name_or_path",
        required=True,
        help="the image model: a folder or hub id with unet, text_encoder, tokenizer, scheduler (and vae, for videos)",
    )
    group.add_argument("--revision", help="commit, tag or branch of a hub id")
    group.add_argument(
        "--motion_adapter_name_or_path",
        help="go on from this motion adapter, a folder or hub id; a new one without it",
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
    group.add_argument(
        "--train_data_dir",
        type=Path,
        required=True,
        help="videos with a metadata.jsonl (file_name, text), or a latent cache (see latent_cache.py)",
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


def _add_objective_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--contrastive_weight", type=float, default=0.07, help="lambda of Eq. 13; 0: without this loss")
    group.add_argument("--contrastive_temperature", type=float, default=0.07, help="tau of Eq. 10")
    group.add_argument("--negative_threshold", type=int, default=4, help="m of Eq. 10, in frames")
    group.add_argument(
        "--negatives", choices=NEGATIVES, default="all", help="frames to draw negatives from; eq10: not the last one"
    )
    group.add_argument("--positives", choices=POSITIVES, default="next", help="positives of an anchor (Table IV)")
    group.add_argument("--snr_gamma", type=float, help="min-SNR weighting of the diffusion loss; off")


def _add_optimization_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--train_batch_size", type=int, default=1, help="clips for each process and forward pass")
    group.add_argument("--gradient_accumulation_steps", type=int, default=1)
    group.add_argument("--max_train_steps", type=int, default=40_000)
    group.add_argument("--max_train_minutes", type=float, help="stop after so much time, with a checkpoint and code 0")
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
    group.add_argument("--gradient_checkpointing", action="store_true", help="less memory for more time")
    group.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="as `accelerate config` says")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output_dir", type=Path, default=Path("motion-adapter"))
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--logging_steps", type=int, default=10, help="steps that one line of log.jsonl averages")
    group.add_argument("--checkpointing_steps", type=int, default=500)
    group.add_argument("--checkpoints_total_limit", type=int, help="delete older checkpoints beyond so many")
    group.add_argument("--resume_from_checkpoint", metavar="latest|PATH", help="go on from a checkpoint")


def _as_range(flag: str, values: list[int]) -> tuple[int, int]:
    low, high = values[0], values[-1]
    if len(values) > 2 or not 1 <= low <= high:
        raise ValueError(f"{flag} takes one number or MIN MAX, with 1 <= MIN <= MAX, got {values}.")
    return low, high


def _check(args: argparse.Namespace) -> None:
    at_least_one = (
        "train_batch_size", "gradient_accumulation_steps", "max_train_steps", "logging_steps", "checkpointing_steps",
        "checkpoints_total_limit", "negative_threshold", "motion_max_seq_length", "resolution",
    )  # fmt: skip
    above_zero = ("learning_rate", "max_grad_norm", "contrastive_temperature", "snr_gamma", "max_train_minutes")
    not_negative = ("lr_warmup_steps", "contrastive_weight", "adam_weight_decay", "dataloader_num_workers", "seed")
    for names, holds, what in (
        (at_least_one, lambda value: value >= 1, "at least 1"),
        (above_zero, lambda value: value > 0, "above 0"),
        (not_negative, lambda value: value >= 0, "0 or more"),
        (("caption_dropout_prob", "ema_decay"), lambda value: 0 <= value <= 1, "between 0 and 1"),
    ):
        for name in names:
            value = getattr(args, name)
            if value is not None and not holds(value):
                raise ValueError(f"--{name} is {value}, but has to be {what}.")
    if args.contrastive_weight > 0:
        shortest = minimum_frames(args.negative_threshold, args.negatives)
        if args.num_frames_range[0] < shortest:
            raise ValueError(
                f"--negative_threshold {args.negative_threshold} with --negatives {args.negatives} leaves clips of "
                f"{args.num_frames_range[0]} frames without a negative: it takes at least {shortest} frames."
            )
    if args.no_versatile and args.no_sparse_causal:
        raise ValueError("--no_versatile and --no_sparse_causal together leave no attention over time.")
