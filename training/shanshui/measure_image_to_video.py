"""Measure how shanshui-tiny animates images: held-out rendered first frames, with texts that say what moves.

    python training/shanshui/measure_image_to_video.py --output runs/shanshui/measure_pictures

writes `results.json`, `results.md` and contact sheets into the output folder; `--card` puts the tables into the model
card as well. `--pictures 10` gives a quick look. A run can be stopped at any time: generated clips are kept, and the
same command makes only the missing ones. Clips of another model or with other settings are kept apart.

The texts are captions of the scenes that the images show, except for the camera, which goes another way: only the
text tells where it goes. The rendered clips to compare with begin with the same images.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from landscape_video.evaluation.metrics.clip_metrics import fff_ssim
from landscape_video.evaluation.metrics.distribution_metrics import polynomial_mmd
from landscape_video.evaluation.metrics.motion_metrics import CAMERA_DIRECTIONS, fit_camera
from landscape_video.evaluation.metrics.video_features import ClipFeatures, ClipScorer
from landscape_video.files import write_json
from landscape_video.generation.settings import ImageToVideoSettings
from motion_adapter.code_files import BRANCH
from pipeline_landscape_video.embedded_model import embedded_sampling
from pipeline_landscape_video.landscape_guidance import GUIDANCE_ORDERS
from shanshui.measure import add_shared_arguments, finish_arguments, make_maker, settings_of, write_tables
from shanshui.measuring.animation_checks import (
    AnimationResults,
    beginning_check,
    camera_check,
    card_section,
    drift_checks,
    fidelity_checks,
    held_check,
    markdown,
    predict_animations,
    same_palette_scores,
    stages_check,
    text_check,
)
from shanshui.measuring.classifier_training import reconstruct
from shanshui.measuring.measured_clips import (
    AnimationMaker,
    Request,
    Variant,
    prompts_of,
    write_contact_sheets,
)
from shanshui.measuring.report import without_nan
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import FPS, HELD_OUT_SEED, LANGUAGES, PICTURES_SEED, PROMPTS_SEED, TRAINING_SEED, Scene
from shanshui.stages.export_family import IMAGE_TO_VIDEO


OPPOSITE = {"left": "right", "right": "left", "closer": "away", "away": "closer", "still": "left"}
USED_SEEDS = (TRAINING_SEED, HELD_OUT_SEED, PROMPTS_SEED, PICTURES_SEED)
SETTINGS = (
    "pictures", "pairs", "seed", "language", "steps", "guidance_scale", "image_guidance_scale", "guidance_order",
    "eta", "num_frames", "stage_frames", "dtype",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> AnimationResults:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args(arguments)
    cv2.setNumThreads(1)  # frames are small: starting threads takes longer than the work itself
    args.output.mkdir(parents=True, exist_ok=True)
    shown = [scene_of(index, args.seed, fine_motifs=False) for index in range(args.pictures)]
    maker = make_maker(args, AnimationMaker, scenes=shown)
    results = measure(args, maker, shown)
    write_json(args.output / "results.json", without_nan(asdict(results)))
    write_tables(args, markdown(results), card_section(args.model, args.run_dir, results), IMAGE_TO_VIDEO)
    return results


def measure(args: argparse.Namespace, maker: AnimationMaker, shown: Sequence[Scene]) -> AnimationResults:
    """Make all clips and measure them."""
    # 1. Generate the clips, and render those to compare with
    wanted = [replace(scene, camera=another_camera(scene, index)) for index, scene in enumerate(shown)]
    opposite = [replace(scene, camera=OPPOSITE[scene.camera]) for scene in wanted]
    prompts, other_prompts = (prompts_of(scenes, args.seed, args.language) for scenes in (wanted, opposite))
    requests, other_requests = ([Request(*pair) for pair in enumerate(texts)] for texts in (prompts, other_prompts))
    seconds = [frame / FPS for frame in range(args.num_frames)]
    rendered = [
        render_clip(scene, seconds, maker.size, maker.size, begins_like=image)
        for scene, image in zip(tqdm(wanted, desc="rendered clips"), shown, strict=True)
    ]
    given = {"image_guidance_scale": args.image_guidance_scale, "guidance_order": args.guidance_order}
    given |= {"steps": args.steps, "guidance_scale": args.guidance_scale, "eta": args.eta}
    variant = Variant(ImageToVideoSettings(num_frames=args.num_frames, interpolate=False, **given))
    clips = {
        "pictured": maker.clips(requests, variant),
        "free": maker.clips(requests, variant.changed(hold_first_frame=False)),
        "text_only": maker.clips(requests, variant.changed(retention_scale=0.0)),
        "rendered": rendered,
    }
    some = slice(args.pairs)
    staged = maker.clips(requests[some], replace(variant.changed(num_frames=args.stage_frames), stages=2))
    others = maker.clips(other_requests[some], variant), maker.clips(requests[some], replace(variant, noise=1))
    write_contact_sheets(args.output / "sheets", args.language, prompts, rendered, clips["pictured"])

    # 2. Measure them
    scorer = ClipScorer(args.model / "clip", args.device)
    cameras = np.array([scene.camera for scene in wanted])
    seen = {kind: predict_animations(made, maker.images, prompts, scorer) for kind, made in clips.items()}
    rebuilt = reconstruct(maker.pipe.vae, maker.images)[:, None]
    rebuilt_ssim = np.array([fff_ssim(*pair) for pair in zip(rebuilt, maker.images, strict=True)])
    chance = same_palette_scores(scorer.frames(list(maker.images)), [scene.palette for scene in shown])
    pictured = seen["pictured"]
    other_cameras = (np.array([fit_camera(clip).direction for clip in made]) for made in others)
    checks = [
        *fidelity_checks(seen["free"], rebuilt_ssim, chance),
        held_check(pictured, rebuilt_ssim),
        beginning_check(clips["pictured"]),
        camera_check(pictured, seen["rendered"], cameras),
        text_check(pictured.cameras[some], *other_cameras),
        *drift_checks(pictured, seen["rendered"]),
        *stages_check(staged, args.stage_frames),
    ]
    extractor = ClipFeatures(scorer)
    features = {kind: np.stack([extractor.features(clip) for clip in made]) for kind, made in clips.items()}
    truth = features.pop("rendered")
    distances = {kind: polynomial_mmd(rows, truth, paired=True) for kind, rows in features.items()}
    return AnimationResults(
        settings_of(args, maker, SETTINGS),
        {kind: one.scores(cameras) for kind, one in seen.items()},
        distances,
        checks,
    )


def another_camera(scene: Scene, index: int) -> str:
    """A camera other than the scene's own; over all indices, each comes up equally often."""
    others = [camera for camera in CAMERA_DIRECTIONS if camera != scene.camera]
    return others[index % len(others)]


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared_arguments(parser, Path("runs/shanshui/measure_pictures"))
    defaults, best = ImageToVideoSettings(), embedded_sampling("image")
    parser.add_argument(
        "--pictures", type=int, default=100, help="held-out first frames, with one text each (default: 100)"
    )
    parser.add_argument(
        "--pairs", type=int, default=40, help="of them, for checks that need more clips of each image (default: 40)"
    )
    used = ", ".join(map(str, USED_SEEDS))
    parser.add_argument("--seed", type=int, default=4, help=f"of scenes, words and noise; none of {used} (default: 4)")
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of the texts (default: en)")
    parser.add_argument("--num_frames", type=int, default=16, help="frames of a clip (default: 16)")
    parser.add_argument("--stage_frames", type=int, default=8, help="frames of each of two stages (default: 8)")
    parser.add_argument(
        "--guidance_scale",
        type=float,
        default=best["guidance_scale"],
        help="text guidance scale, s_t (default: %(default)g)",
    )
    parser.add_argument(
        "--eta",
        type=float,
        default=best["eta"],
        help="fresh noise in each step, 0 to 1 (default: %(default)g)",
    )
    parser.add_argument(
        "--image_guidance_scale",
        type=float,
        default=best["image_guidance_scale"],
        help="image guidance scale, s_i (default: %(default)g)",
    )
    parser.add_argument(
        "--guidance_order",
        choices=GUIDANCE_ORDERS,
        default=defaults.guidance_order,
        help="guidance term that comes first (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    if args.seed in USED_SEEDS:
        parser.error(f"--seed must be none of {used}, got {args.seed}: models and settings were chosen with those")
    for name, least in (("pictures", 2), ("pairs", 1), ("num_frames", 3), ("stage_frames", 2)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
    args.pairs = min(args.pairs, args.pictures)
    finish_arguments(parser, args, "clip/config.json", f"{BRANCH}/config.json")
    return args


if __name__ == "__main__":
    main()
