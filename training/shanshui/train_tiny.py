"""Build shanshui-tiny from scratch: render clips, train every model of the family, export.

    python training/shanshui/train_tiny.py --run_dir runs/shanshui

runs all stages in order and writes the family to `RUN_DIR/shanshui_tiny`. It can be stopped at any time; the same
command resumes it. Each stage trains for its minutes (`--minutes vae=40 unet=60`), and more minutes later train it
further. Later stages have then learned from its former weights: after more minutes of `vae`, for example, remove
RUN_DIR/unet, motion, pictures and retention to train those again.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from landscape_video.training.run.signals import EXIT_STOPPED
from shanshui.stages.export_family import export_family
from shanshui.stages.family_run import FamilyRun, computes_bfloat16_fast
from shanshui.stages.stage_scripts import train_motion_adapter, train_on_clips, train_on_frames
from shanshui.stages.train_depth import train_depth_member, train_depth_model
from shanshui.stages.train_image_unet import train_image_unet
from shanshui.stages.train_text import train_clip, train_text
from shanshui.stages.train_vae import train_decoder, train_vae
from shanshui.stages.training_data import encode_training_clips, training_clips


@dataclass(frozen=True)
class Stage:
    """One step of the build.

    Attributes:
        run: Function that carries it out.
        result: Path in the run folder that later stages read, if any.
        needs: Stages whose results it reads.
        minutes: Default training time; None if it does not train.
    """

    run: Callable[[FamilyRun], object]
    result: str | None = None
    needs: tuple[str, ...] = ()
    minutes: float | None = None


STAGES = {
    "render": Stage(training_clips),
    "clip": Stage(train_clip, "clip/model", minutes=10),
    "text": Stage(train_text, "text/model", ("clip",), minutes=15),
    "vae": Stage(train_vae, "vae/model", minutes=40),
    "latents": Stage(encode_training_clips, "latents/made_of.json", ("vae",)),
    "decoder": Stage(train_decoder, "decoder/model", ("vae", "latents"), minutes=60),
    "unet": Stage(train_image_unet, "unet/model", ("clip", "text", "latents"), minutes=60),
    "motion": Stage(
        train_motion_adapter, "motion/motion_adapter", ("clip", "text", "vae", "latents", "unet"), minutes=140
    ),
    "pictures": Stage(
        train_on_frames, "pictures/image_retention", ("clip", "text", "vae", "unet", "motion"), minutes=15
    ),
    "retention": Stage(train_on_clips, needs=("vae", "motion", "pictures"), minutes=220),
    "depth_model": Stage(train_depth_model, "depth_model/model", minutes=10),
    "depth_member": Stage(train_depth_member, "depth_member/model", ("clip", "text", "vae", "unet"), minutes=30),
    "export": Stage(export_family, needs=("clip", "text", "vae", "unet", "motion")),
}
MINUTES = {name: float(stage.minutes) for name, stage in STAGES.items() if stage.minutes is not None}

logger = logging.getLogger("train_tiny")


def check_stages(run_dir: Path, stages: Sequence[str]) -> None:
    """Check that every stage finds what it reads.

    Raises:
        ValueError: The result of another stage, or a package, is missing.
    """
    for name in stages:
        unmade = [need for need in STAGES[name].needs if not (run_dir / STAGES[need].result).exists()]
        missing = [need for need in unmade if need not in stages]
        if missing:
            raise ValueError(
                f"stage {name} needs {run_dir / STAGES[missing[0]].result}, which does not exist; "
                f"run `--stages {' '.join([*missing, *stages])}`."
            )
    if "retention" in stages and find_spec("skimage") is None:
        raise ValueError("stage retention needs scikit-image; install it with `pip install '.[train]'`.")


def parse_minutes(text: str) -> tuple[str, float]:
    """Read `STAGE=MINUTES`."""
    stage, _, minutes = text.partition("=")
    if stage not in MINUTES:
        raise argparse.ArgumentTypeError(f"must be STAGE=MINUTES with one of {', '.join(MINUTES)}, got {text!r}")
    return stage, float(minutes)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--run_dir", type=Path, default=Path("runs/shanshui"), help="folder of the run (default: %(default)s)")
    add(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE",
        help=f"stages to run, of {' '.join(STAGES)} (default: all)",
    )  # fmt: skip
    add(
        "--minutes",
        nargs="+",
        type=parse_minutes,
        default=[],
        metavar="STAGE=N",
        help=f"training time (default: {' '.join(f'{stage}={minutes:g}' for stage, minutes in MINUTES.items())})",
    )
    add(
        "--clips", type=int, default=3600,
        help="clips to render for training, and again as many for the image retention branch (default: %(default)s)",
    )  # fmt: skip
    add("--workers", type=int, help="rendering processes (default: one per core)")
    add(
        "--motion_steps", type=int, default=6000,
        help="steps over which the motion adapter's learning rate falls to zero; then it ends (default: %(default)s)",
    )  # fmt: skip
    add(
        "--picture_steps",
        type=int,
        default=800,
        help="steps of the image retention branch on single frames (default: %(default)s)",
    )
    add(
        "--retention_steps", type=int, default=6000,
        help="like --motion_steps, for the image retention branch on whole clips (default: %(default)s)",
    )  # fmt: skip
    add("--batch_scale", type=int, default=1, help="factor on every batch size; use 8 on a GPU (default: %(default)s)")
    add(
        "--mixed_precision", choices=("no", "bf16"),
        help="precision of training (default: bf16 on a GPU or on a CPU with AMX units, no elsewhere)",
    )  # fmt: skip
    add(
        "--compile",
        action="store_true",
        help="compile UNets and branch: some minutes once, then 25 %% more steps in the same time (default: off)",
    )
    add(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu",
        help="device to train on (default: cuda where available, cpu elsewhere)",
    )  # fmt: skip
    add("--export_dir", type=Path, help="folder for the finished family (default: RUN_DIR/shanshui_tiny)")
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    args.minutes = MINUTES | dict(args.minutes)
    args.export_dir = args.export_dir or args.run_dir / "shanshui_tiny"
    args.mixed_precision = args.mixed_precision or ("bf16" if computes_bfloat16_fast(args.device) else "no")
    args.device = torch.device(args.device)
    args.stages = [name for name in STAGES if name in args.stages]
    if args.export_dir.exists() and not (args.export_dir / "model_index.json").is_file():
        parser.error(f"--export_dir must be a pipeline or a new folder, got {args.export_dir}; choose another one.")
    try:
        check_stages(args.run_dir, args.stages)
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    settings = vars(parse_args())
    stages = settings.pop("stages")
    run = FamilyRun(**settings)
    run.run_dir.mkdir(parents=True, exist_ok=True)
    # A stage stops on SIGTERM as on Ctrl-C, so that a running script is told to save.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in stages:
            logger.info("stage %s", name)
            STAGES[name].run(run)
    except KeyboardInterrupt:
        logger.warning("stopped; the same command resumes")
        sys.exit(EXIT_STOPPED)
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
