"""Measure a family of shanshui models on held-out prompts.

    python training/shanshui/measure.py --model pipeline_landscape_video/shanshui_tiny --output runs/shanshui/measure

writes `results.json`, `results.md` and contact sheets into the output folder, and the scene classifier that it trains,
`classifier/classifier.safetensors`, for `landscape-video evaluate --scene-classifier`. `--card` puts the tables into
the model card as well. `--prompts 20` gives a quick look; `--dtype bfloat16` takes half the time on a CPU with AMX.

A run can be stopped at any time: generated clips, rendered clips and the classifier are kept, and the same command
resumes. Clips of another model or with other settings are kept apart. After a change of the renderer or of the
pipeline's code, begin with an empty output folder.
"""

import argparse
import json
import logging
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from landscape_video.evaluation.metrics.video_features import ClipScorer
from landscape_video.files import write_text
from landscape_video.generation.settings import TextToVideoSettings
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.embedded_model import embedded_sampling
from shanshui.measuring.argument_checks import ArgumentChecks
from shanshui.measuring.classifier_training import ATTRIBUTES, get_classifier
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant, model_hash, prompts_of, write_contact_sheets
from shanshui.measuring.predictions import (
    Labels,
    camera_counts,
    check_measurements,
    clip_scores,
    predict,
    scores_beside,
    still_clips,
)
from shanshui.measuring.report import LanguageResults, Results, markdown, write_results
from shanshui.renderer.dataset import render_dataset
from shanshui.renderer.scene import FPS, HELD_OUT_SEED, LANGUAGES, PROMPTS_SEED, TRAINING_SEED, Scene
from shanshui.stages.export_family import MEASURED, put_measured


logger = logging.getLogger("measure")

SETTINGS = ("prompts", "control_prompts", "seed", "steps", "guidance_scale", "eta", "dtype")
PACKAGES = ("torch", "diffusers", "transformers", "opencv-python", "scikit-image", "numpy")


def main(arguments: Sequence[str] | None = None) -> Results:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args(arguments)
    cv2.setNumThreads(1)  # frames are small: starting threads takes longer than the work itself
    training_clips = args.run_dir / "clips.npy"
    if not training_clips.exists():
        raise SystemExit(f"measure: {training_clips}: no such file; `train_tiny.py --stages render` writes it.")
    args.output.mkdir(parents=True, exist_ok=True)

    # 1. Load the model and the held-out clips
    maker = make_maker(args, ClipMaker)
    rendering = {"fps": FPS, "size": maker.size, "fine_motifs": False, "workers": args.workers}
    try:
        held_out_clips = render_dataset(args.run_dir / "held_out.npy", args.held_out_clips, HELD_OUT_SEED, **rendering)
    except ValueError as error:  # rendered with another number of clips
        raise SystemExit(f"measure: {error}") from None

    # 2. Train the classifier, and check all measurements where the answers are known
    lines = training_clips.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    scenes = [Scene(**json.loads(line)["scene"]) for line in lines]
    clips, folder = np.load(training_clips, mmap_mode="r"), args.output / "classifier"
    classifier = get_classifier(clips, scenes, maker.pipe.vae, folder, args.classifier_steps, args.device)
    held_out = check_measurements(classifier, maker.pipe.vae, *held_out_clips)
    for name, figure in held_out.held_out.items():
        logger.info("%s on held-out clips: %s", name, figure.text())
    valid = tuple(name for name in ATTRIBUTES if name in held_out.valid)
    if classifier.valid != valid:
        classifier.valid = valid
        classifier.save(folder / "classifier.safetensors")

    # 3. Generate clips and measure them beside the rendered clips of the same scenes
    path = args.output / f"rendered-seed{args.seed}-{args.prompts}.npy"
    rendered, scenes = render_dataset(path, args.prompts, args.seed, **rendering)
    found = {}
    for language in args.languages:
        # The arguments of a call mean the same in every language, so they are checked in one.
        checked = args.control_prompts if language == args.languages[0] else 0
        found[language] = measure_language(args, maker, classifier, rendered, scenes, language, checked)

    # 4. Write the results
    settings = settings_of(args, maker, SETTINGS) | {"num_frames": sampling_of(args).num_frames}
    results = Results(settings, held_out, found)
    write_results(results, args.output / "results.json")
    write_tables(args, markdown(results), markdown(results), MEASURED)
    return results


def measure_language(
    args: argparse.Namespace,
    maker: ClipMaker,
    classifier: SceneClassifier,
    rendered: np.ndarray,
    scenes: Sequence[Scene],
    language: str,
    checked: int,
) -> LanguageResults:
    """Generate the clips of one language and measure them; check the arguments on `checked` of the prompts."""
    prompts = prompts_of(scenes, args.seed, language)
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts)]
    variant = Variant(sampling_of(args))
    clips = maker.clips(requests, variant)
    write_contact_sheets(args.output / "sheets", language, prompts, rendered, clips)
    scorer = ClipScorer(args.model / "clip", args.device) if (args.model / "clip").exists() else None
    labels = Labels.of(scenes)
    sources = {"generated": clips, "rendered": rendered, "still": still_clips(clips)}
    seen = {name: predict(some, classifier, scorer, prompts) for name, some in sources.items()}
    checks = []
    if checked:
        runner = ArgumentChecks(maker, classifier, variant)
        checks = runner.run(scenes[:checked], requests[:checked], language)
    rendered = seen["rendered"]
    scores = {name: clip_scores(one, labels) | scores_beside(one, rendered, labels) for name, one in seen.items()}
    return LanguageResults(**scores, cameras=camera_counts(seen["generated"], labels), checks=checks)


def make_maker(args: argparse.Namespace, maker: type[ClipMaker], **options: Any) -> ClipMaker:
    """The maker of generated clips. Only on a CPU, processes generate side by side."""
    workers = args.workers if args.device == "cpu" else 1
    folder = args.output / "generated"
    return maker(args.model, folder, args.batch, args.seed, args.device, args.dtype, workers, **options)


def sampling_of(args: argparse.Namespace) -> TextToVideoSettings:
    """How clips are sampled."""
    given = {"steps": args.steps, "guidance_scale": args.guidance_scale, "eta": args.eta}
    return TextToVideoSettings(**given, interpolate=False)


def settings_of(args: argparse.Namespace, maker: ClipMaker, names: Sequence[str]) -> dict[str, Any]:
    """What the results depend on: arguments by `names`, model, device and versions; and how long a clip took."""
    return {name: getattr(args, name) for name in names} | {
        "model": model_hash(args.model, maker.model_parts),
        "size": maker.size,
        "device": maker.device_name,
        "seconds_a_clip": maker.seconds / maker.made if maker.made else None,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def write_tables(args: argparse.Namespace, tables: str, section: str, heading: str) -> None:
    """Write the tables into the output folder and, with `--card`, a section into the model card."""
    write_text(args.output / "results.md", tables)
    logger.info("written to %s", args.output / "results.md")
    if args.card:
        put_measured(args.model / "README.md", section, heading)
        logger.info("put into %s", args.model / "README.md")


def add_shared_arguments(parser: argparse.ArgumentParser, output: Path) -> None:
    """The options that `measure_image_to_video.py` shares."""
    model_help = "folder of the pipeline, with its CLIP in clip/ (default: the bundled shanshui-tiny)"
    parser.add_argument("--model", type=Path, default=SHANSHUI_TINY, help=model_help)
    parser.add_argument("--output", type=Path, default=output, help="folder of all results (default: %(default)s)")
    parser.add_argument(
        "--run_dir", type=Path, default=Path("runs/shanshui"), help="folder of train_tiny.py (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=1, help="clips in one call of the pipeline; 16 suits a GPU (default: 1)"
    )
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (default: 25)")
    parser.add_argument(
        "--workers", type=int, help="processes that render, and on a CPU also generate (default: one per core)"
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="where to compute (default: cuda if available, else cpu)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="precision of the steps (default: float32)",
    )
    parser.add_argument("--card", action="store_true", help="write the tables into README.md of the model's folder")


def finish_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace, *files: str) -> None:
    """Fill in `--workers`, and check that the model has the `files` that are needed."""
    args.workers = os.cpu_count() if args.workers is None else args.workers
    for file in ("model_index.json", *files, *["README.md"] * args.card):
        if not (args.model / file).exists():
            parser.error(f"--model {args.model} has no {file}")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared_arguments(parser, Path("runs/shanshui/measure"))
    best = embedded_sampling("text")
    parser.add_argument(
        "--prompts",
        type=int,
        default=200,
        help="held-out scenes, with one caption of each per language (default: 200)",
    )
    parser.add_argument(
        "--control_prompts", type=int, help="prompts that the arguments are checked on, 0 for none (default: a sixth)"
    )
    parser.add_argument(
        "--seed", type=int, default=PROMPTS_SEED, help="of scenes, words and noise; not 1 or 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--language", choices=(*LANGUAGES, "both"), default="both", help="of the prompts (default: both)"
    )
    parser.add_argument(
        "--guidance_scale",
        type=float,
        default=best["guidance_scale"],
        help="guidance scale (default: %(default)g, as `generate`)",
    )
    parser.add_argument(
        "--eta", type=float, default=best["eta"], help="fresh noise in each step, 0 to 1 (default: %(default)g)"
    )
    parser.add_argument(
        "--held_out_clips", type=int, default=240, help="rendered clips that check the measurements (default: 240)"
    )
    parser.add_argument(
        "--classifier_steps", type=int, default=600, help="training steps of the scene classifier (default: 600)"
    )
    args = parser.parse_args(arguments)
    wanted = max(4, args.prompts // 6) if args.control_prompts is None else args.control_prompts
    args.control_prompts = min(args.prompts, wanted)
    args.languages = LANGUAGES if args.language == "both" else (args.language,)
    if args.seed in (TRAINING_SEED, HELD_OUT_SEED):
        parser.error(f"--seed must not be {args.seed}: models and measurements were made with clips of that seed")
    finish_arguments(parser, args)
    return args


if __name__ == "__main__":
    main()
