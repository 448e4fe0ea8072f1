"""Measure how shanshui-tiny brings pictures to life: held-out rendered first frames, and texts that tell what moves.

    python training/shanshui/measure_image_to_video.py --output runs/shanshui/measure_pictures

writes `results.json`, `results.md` and contact sheets into the output folder; `--card` puts the tables into the
model's card as well. `--pictures 10` gives a quick look. Stop it whenever you like: clips are kept there, and the same
command makes only those that are missing. Clips of another model, or with other settings, are kept apart.

The texts are those of the pictures' own scenes but for the camera, which goes another way: nothing but the text tells
where it goes. The rendered clips beside them begin with the same pictures.
"""

import argparse
import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from landscape_video.evaluation.metrics.clip_metrics import ClipScorer, fff_ssim
from landscape_video.evaluation.metrics.distribution_metrics import polynomial_mmd
from landscape_video.evaluation.metrics.intervals import Interval
from landscape_video.evaluation.metrics.video_features import ClipFeatures
from motion_adapter.code_files import BRANCH
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.embedded_model import EMBEDDED_WITH_PICTURES
from pipeline_landscape_video.landscape_guidance import GUIDANCE_ORDERS
from shanshui.measure import PACKAGES
from shanshui.measuring.animated_clips import Animation, AnimationMaker
from shanshui.measuring.animation_figures import (
    beginning_check,
    camera_check,
    drift_checks,
    fidelity_checks,
    held_check,
    look_at,
    same_palette_scores,
    stages_check,
    text_check,
)
from shanshui.measuring.clip_motion import camera_direction
from shanshui.measuring.measure_controls import Control
from shanshui.measuring.measure_report import control_row, versions_text, without_nan, write_contact_sheets
from shanshui.measuring.measured_clips import Request, model_hash, prompts_of
from shanshui.measuring.model_fidelity import reconstruct
from shanshui.renderer.constants import (
    FPS,
    HELD_OUT_SEED,
    LANGUAGES,
    PICTURES_SEED,
    PROMPTS_SEED,
    TRAINING_SEED,
)
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, Scene
from shanshui.stages.model_card import IMAGE_TO_VIDEO, put_measured, training_row, weights_row


logger = logging.getLogger("measure_image_to_video")

REPOSITORY = Path(__file__).resolve().parents[2]
OPPOSITE = {"left": "right", "right": "left", "closer": "away", "away": "closer", "still": "left"}
USED_SEEDS = (TRAINING_SEED, HELD_OUT_SEED, PROMPTS_SEED, PICTURES_SEED)
ROWS = {
    "pictured": "text and picture",
    "free": "nothing held",
    "text_only": "text alone",
    "rendered": "rendered clips",
}


@dataclass(frozen=True)
class Results:
    """What was found: figures by the kind of clips and by name, the distance to the rendered clips, and the checks."""

    settings: dict[str, Any]
    figures: dict[str, dict[str, Interval]]
    distances: dict[str, float]
    checks: list[Control]


def main(arguments: Sequence[str] | None = None) -> Results:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args(arguments)
    cv2.setNumThreads(1)  # frames are small: starting threads takes longer than what they do
    args.output.mkdir(parents=True, exist_ok=True)
    shown = [scene_of(index, args.seed, fine_motifs=False) for index in range(args.pictures)]
    maker = AnimationMaker.from_args(args, shown)
    results = measure(args, maker, shown)
    text = json.dumps(without_nan(asdict(results)), ensure_ascii=False, indent=2)
    (args.output / "results.json").write_text(text + "\n", encoding="utf-8")
    (args.output / "results.md").write_text(markdown(results), encoding="utf-8")
    logger.info("written to %s", args.output / "results.md")
    if args.card:
        put_measured(args.model / "README.md", card_section(args, results), IMAGE_TO_VIDEO)
        logger.info("put into %s", args.model / "README.md")
    return results


def measure(args: argparse.Namespace, maker: AnimationMaker, shown: Sequence[Scene]) -> Results:
    """Make all clips and look at them."""
    wanted = [replace(scene, camera=another_camera(scene, index)) for index, scene in enumerate(shown)]
    cameras = np.array([scene.camera for scene in wanted])
    prompts = prompts_of(wanted, args.seed, args.language)
    seconds = [frame / FPS for frame in range(args.num_frames)]
    rendered = [
        render_clip(scene, seconds, maker.size, maker.size, begins_like=picture)
        for scene, picture in zip(tqdm(wanted, desc="rendered clips"), shown, strict=True)
    ]

    variant = Animation(
        args.guidance_scale,
        args.num_frames,
        eta=args.eta,
        image_guidance_scale=args.image_guidance_scale,
        guidance_order=args.guidance_order,
        hold_first_frame=True,
    )
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts)]
    clips = {
        "pictured": maker.clips(requests, variant),
        "free": maker.clips(requests, replace(variant, hold_first_frame=False)),
        "text_only": maker.clips(requests, replace(variant, retention_scale=0.0)),
        "rendered": rendered,
    }
    some = slice(args.pairs)
    staged = maker.clips(requests[some], replace(variant, num_frames=args.stage_frames, stages=2))
    opposite = [replace(scene, camera=OPPOSITE[scene.camera]) for scene in wanted]
    other_prompts = prompts_of(opposite, args.seed, args.language)
    other_requests = [Request(index, prompt) for index, prompt in enumerate(other_prompts)]
    of_other_text = maker.clips(other_requests[some], variant)
    of_other_noise = maker.clips(requests[some], replace(variant, noise=1))
    write_contact_sheets(args.output / "sheets", args.language, prompts, rendered, clips["pictured"])

    scorer = ClipScorer(args.model / "clip", args.device)
    seen = {kind: look_at(some_clips, maker.pictures, prompts, scorer) for kind, some_clips in clips.items()}
    rebuilt = reconstruct(maker.pipe.vae, maker.pictures)[:, None]
    rebuilt_ssim = np.array([fff_ssim(*pair) for pair in zip(rebuilt, maker.pictures, strict=True)])
    chance = same_palette_scores(scorer.frames(list(maker.pictures)), [scene.palette for scene in shown])
    pictured = seen["pictured"]
    checks = [
        *fidelity_checks(seen["free"], rebuilt_ssim, chance),
        held_check(pictured, rebuilt_ssim),
        beginning_check(clips["pictured"]),
        camera_check(pictured, seen["rendered"], cameras),
        text_check(
            pictured.cameras[some],
            np.array([camera_direction(clip) for clip in of_other_text]),
            np.array([camera_direction(clip) for clip in of_other_noise]),
        ),
        *drift_checks(pictured, seen["rendered"]),
        *stages_check(staged, args.stage_frames),
    ]
    measurer = ClipFeatures(scorer)
    features = {kind: np.stack([measurer.features(clip) for clip in some_clips]) for kind, some_clips in clips.items()}
    distances = {
        kind: polynomial_mmd(features[kind], features["rendered"], paired=True)
        for kind in ("pictured", "free", "text_only")
    }
    figures = {kind: one.figures(cameras) for kind, one in seen.items()}
    return Results(settings_of(args, maker), figures, distances, checks)


def another_camera(scene: Scene, index: int) -> str:
    """A camera other than the scene's own; over all indices each comes up as often."""
    others = [camera for camera in CAMERAS if camera != scene.camera]
    return others[index % len(others)]


def settings_of(args: argparse.Namespace, maker: AnimationMaker) -> dict[str, Any]:
    """What the figures depend on, and how long a clip took."""
    names = (
        "pictures", "pairs", "seed", "language", "steps", "guidance_scale", "image_guidance_scale",
        "guidance_order", "eta", "num_frames", "stage_frames", "dtype",
    )  # fmt: skip
    return {name: getattr(args, name) for name in names} | {
        "model": model_hash(args.model, maker.model_parts),
        "size": maker.size,
        "device": maker.device_name,
        "seconds_a_clip": maker.seconds / maker.made if maker.made else None,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def markdown(results: Results) -> str:
    """Tables ready for a model card."""
    settings = results.settings
    lines = [
        f"Measured by `training/shanshui/measure_image_to_video.py` on {settings['pictures']} held-out rendered first"
        f" frames (scenes of seed {settings['seed']}; the texts, {settings['language']}, send the camera another way"
        f" than the pictures' scenes do), {settings['steps']} steps, guidance {settings['guidance_scale']:g} of the"
        f" text and {settings['image_guidance_scale']:g} of the picture"
        f" ({settings['guidance_order'].replace('_', ' ')}), eta {settings['eta']:g},"
        f" {settings['num_frames']} frames of {settings['size']} x {settings['size']},"
        f" {settings['dtype']}, the first frame held as `animate` does, no interpolation; the first two checks"
        " with nothing held; another text, other noise and stages on"
        f" {settings['pairs']} of them; in brackets 95 % bootstrap intervals. {versions_text(settings)}",
        "",
        markdown_table(("Check", "Figure", "Wanted", "Met"), map(control_row, results.checks)),
        "",
        "The same prompts with and without the picture (DreamVideo's Table 2), and what the renderer makes of picture"
        " and text. FFF is the first frame against the picture, motion the median clip's flow in pixels a frame,"
        " flicker what flow does not explain, in levels of 255, distance the polynomial MMD of CLIP embeddings to the"
        " rendered clips (pairs of one scene left out).",
        "",
    ]  # fmt: skip
    names = list(results.figures["pictured"])
    rows = [
        (
            title,
            *(results.figures[kind][name].text() for name in names),
            f"{results.distances[kind]:.3f}" if kind in results.distances else "",
        )
        for kind, title in ROWS.items()
    ]
    return "\n".join([*lines, markdown_table(("Clips from", *names, "distance"), rows)]) + "\n"


def card_section(args: argparse.Namespace, results: Results) -> str:
    """The tables, after what the branch is and how it was trained, where its log is there."""
    weights = args.model / BRANCH / "diffusion_pytorch_model.safetensors"
    lines = [
        "An image retention branch (DreamVideo) in `image_retention/`, trained by `training/shanshui/train_tiny.py"
        f" --stages pictures retention` on rendered clips of its own (seed {PICTURES_SEED}), whose first frames do not"
        " tell where camera and boat go, first on single frames, then on whole clips, while all else stayed as it is,"
        " brings a picture to life:"
        ' `landscape-video animate painting.png "mist drifting right"`.',
        "",
        markdown_table(("part", "parameters", "sha256"), []),
        weights_row(BRANCH, weights),
    ]
    stages = [stage for stage in ("pictures", "retention") if (args.run_dir / stage / "log.jsonl").exists()]
    if stages:
        lines += ["", markdown_table(("stage", "steps", "minutes", "figures"), [])]
        lines += [training_row(args.run_dir, stage) for stage in stages]
    return "\n".join(lines) + "\n\n" + markdown(results)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    package = REPOSITORY / "pipeline_landscape_video" / "shanshui_tiny"
    parser.add_argument("--model", type=Path, default=package, help="folder of the pipeline, with its CLIP in clip/")
    parser.add_argument("--output", type=Path, default=Path("runs/shanshui/measure_pictures"))
    parser.add_argument("--run_dir", type=Path, default=Path("runs/shanshui"), help="of train_tiny.py, for --card")
    parser.add_argument("--pictures", type=int, default=100, help="held-out first frames; one text of each")
    parser.add_argument("--pairs", type=int, default=40, help="of them, for what takes more clips of each picture")
    used = ", ".join(map(str, USED_SEEDS))
    parser.add_argument("--seed", type=int, default=4, help=f"of scenes, words and noise; none of {used}")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--num_frames", type=int, default=16)
    parser.add_argument("--stage_frames", type=int, default=8, help="of each of two stages")
    parser.add_argument("--batch", type=int, default=1, help="pictures in one call of the pipeline; 16 on a GPU")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument(
        "--guidance_scale", type=float, default=EMBEDDED_WITH_PICTURES.guidance_scale, help="of the text, s_t"
    )
    parser.add_argument(
        "--eta", type=float, default=EMBEDDED_WITH_PICTURES.eta, help="share of noise drawn anew in each step"
    )
    parser.add_argument("--image_guidance_scale", type=float, default=1.5, help="of the picture (s_i)")
    parser.add_argument(
        "--guidance_order", choices=GUIDANCE_ORDERS, default="picture_first", help="as `animate` has it"
    )
    parser.add_argument("--workers", type=int, help="processes that make clips, on a CPU; one per core")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the steps")
    parser.add_argument("--card", action="store_true", help="write the tables into README.md of the model's folder")
    args = parser.parse_args(arguments)
    if args.seed in USED_SEEDS:
        parser.error(f"--seed {args.seed} is the seed of clips that models, measurers or settings were chosen with")
    for name, least in (("pictures", 2), ("pairs", 1), ("num_frames", 3), ("stage_frames", 2)):
        if getattr(args, name) < least:
            parser.error(f"--{name} is {getattr(args, name)}, but has to be at least {least}")
    args.pairs = min(args.pairs, args.pictures)
    args.workers = os.cpu_count() if args.workers is None else args.workers
    needed = ("model_index.json", "clip/config.json", f"{BRANCH}/config.json", *["README.md"] * args.card)
    for file in needed:
        if not (args.model / file).exists():
            parser.error(f"--model {args.model} has no {file}")
    return args


if __name__ == "__main__":
    main()
