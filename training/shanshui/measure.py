"""Measure a family of shanshui models on prompts that it has not seen.

    python training/shanshui/measure.py --model pipeline_landscape_video/shanshui_tiny --output runs/shanshui/measure

writes `results.json`, `results.md` and contact sheets into the output folder; `--card` puts the tables into the
model's card as well. `--prompts 20` gives a quick look, `--dtype bfloat16` takes half the time on a CPU with AMX.
Stop it whenever you like: clips, rendered clips and classifier are kept there, and the same command goes on where it
was. Clips of another model, or with other settings, are kept apart; after a change of the renderer or of the
pipeline's code begin with an empty output folder.
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
from diffusers import AutoencoderKL

from landscape_video.evaluation.metrics.clip_metrics import ClipScorer
from landscape_video.evaluation.metrics.intervals import Interval, balanced_accuracy, bootstrap, mean, ratio_of_means
from landscape_video.files import hash_chunks
from pipeline_landscape_video.embedded_model import EMBEDDED
from shanshui.measuring.clip_figures import Truth, camera_counts, clip_figures, figures_beside, judge, still_clips
from shanshui.measuring.clip_motion import camera_direction, measure_motion
from shanshui.measuring.measure_controls import ControlChecks
from shanshui.measuring.measure_report import (
    LanguageResults,
    MeasurerResults,
    Results,
    markdown,
    write_contact_sheets,
    write_json,
)
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant, model_hash, prompts_of
from shanshui.measuring.model_fidelity import reconstruct, ssim_and_psnr
from shanshui.measuring.scene_classifiers import (
    HEADS,
    SceneClassifier,
    classify_clips,
    labels_of,
    load_classifier,
    sampled_frames,
    save_classifier,
    shrink,
    train_classifier,
)
from shanshui.renderer.constants import FPS, HELD_OUT_SEED, LANGUAGES, PROMPTS_SEED, TRAINING_SEED
from shanshui.renderer.dataset import render_dataset
from shanshui.renderer.scene import Scene
from shanshui.stages.model_card import put_measured


logger = logging.getLogger("measure")

REPOSITORY = Path(__file__).resolve().parents[2]
RECONSTRUCTED_FOR_TRAINING, RECONSTRUCTED_FOR_VALIDITY, RECONSTRUCTED_WHOLE = 600, 80, 24  # clips
PACKAGES = ("torch", "diffusers", "transformers", "opencv-python", "scikit-image", "numpy")


def main(arguments: Sequence[str] | None = None) -> Results:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args(arguments)
    cv2.setNumThreads(1)  # frames are small: starting threads takes longer than what they do
    clips = args.run_dir / "clips.npy"
    if not clips.exists():
        raise SystemExit(f"measure: {clips} is not there; `train_tiny.py --stages render` renders the training clips.")
    args.output.mkdir(parents=True, exist_ok=True)
    maker = ClipMaker.from_args(args)
    try:
        held_out, scenes = render_dataset(
            args.run_dir / "held_out.npy",
            args.held_out_clips,
            HELD_OUT_SEED,
            fps=FPS,
            size=maker.size,
            fine_motifs=False,
            workers=args.workers,
        )
    except ValueError as error:  # another number of clips
        raise SystemExit(f"measure: {error}") from None
    classifier = get_classifier(args, maker.pipe.vae)
    measurers = check_measurers(classifier, maker.pipe.vae, held_out, scenes)
    for name in (*HEADS, "camera"):
        logger.info("%s on held-out clips: %s", name, measurers.held_out[name].text())
    found = {
        language: measure_language(args, maker, classifier, measurers.valid, language)
        for language in languages_of(args)
    }
    results = Results(settings_of(args, maker), measurers, found)
    write_json(results, args.output / "results.json")
    (args.output / "results.md").write_text(markdown(results), encoding="utf-8")
    logger.info("written to %s", args.output / "results.md")
    if args.card:
        put_measured(args.model / "README.md", markdown(results))
        logger.info("put into %s", args.model / "README.md")
    return results


def get_classifier(args: argparse.Namespace, vae: AutoencoderKL) -> SceneClassifier:
    """The classifier in the output folder, trained anew if its training clips or the autoencoder have changed."""
    folder = args.output / "classifier"
    folder.mkdir(exist_ok=True)
    clips, scenes = read_clips(args.run_dir / "clips.npy")
    ends = hash_chunks([clips[0].tobytes(), clips[len(scenes) - 1].tobytes()])
    key = {"clips": len(scenes), "their_ends": ends, "steps": args.classifier_steps}
    key |= {"autoencoder": weights_hash(vae)}
    made_of = folder / "made_of.json"
    if made_of.exists() and json.loads(made_of.read_text()) == key:
        return load_classifier(folder / "classifier.safetensors", args.device)
    logger.info("training the classifier on frames of %d rendered clips", len(scenes))
    frames, rows = training_frames(clips, vae, len(scenes))
    labels = {name: values[rows] for name, values in labels_of(scenes).items()}
    classifier = train_classifier(
        frames, labels, folder / "log.jsonl", steps=args.classifier_steps, device=args.device
    )
    save_classifier(classifier, folder / "classifier.safetensors")
    made_of.write_text(json.dumps(key))
    return classifier


def weights_hash(model: torch.nn.Module) -> str:
    """Of the weights in half precision: the same before and after they are exported."""
    weights = model.state_dict().items()
    return hash_chunks(name.encode() + tensor.half().cpu().numpy().tobytes() for name, tensor in weights)[:12]


def read_clips(path: Path) -> tuple[np.ndarray, list[Scene]]:
    """Clips rendered so far by `clip_files.render_dataset`, and their scenes."""
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return np.load(path, mmap_mode="r"), [Scene(**json.loads(line)["scene"]) for line in lines]


def training_frames(clips: np.ndarray, vae: AutoencoderKL, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of each clip and some reconstructions, shrunk, (frames, SIZE, SIZE, 3), and the clip of each."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(clips.shape[1], size=count)
    pairs = [shrink(clips[row, [first, first - clips.shape[1] // 2]]) for row, first in enumerate(firsts)]
    rebuilt = rng.permutation(count)[:RECONSTRUCTED_FOR_TRAINING]
    frames = np.stack([clips[row, rng.integers(clips.shape[1])] for row in rebuilt])
    rows = np.concatenate([np.arange(count).repeat(2), rebuilt])
    return np.concatenate([*pairs, shrink(reconstruct(vae, frames))]), rows


def check_measurers(
    classifier: SceneClassifier, vae: AutoencoderKL, clips: np.ndarray, scenes: Sequence[Scene]
) -> MeasurerResults:
    """How right all measurers are on clips that nothing was trained on, and how well the autoencoder keeps them."""
    held_out = answers_right(classifier, clips, scenes)
    cameras = np.array([camera_direction(clip) == scene.camera for clip, scene in zip(clips, scenes, strict=True)])
    held_out["camera"] = bootstrap(mean, cameras)
    some = scenes[:RECONSTRUCTED_FOR_VALIDITY]
    rebuilt = [reconstruct(vae, sampled_frames(clip)) for clip in clips[: len(some)]]
    frames = clips[:, clips.shape[1] // 2]
    fidelity = ssim_and_psnr(frames, reconstruct(vae, frames))
    whole = clips[:RECONSTRUCTED_WHOLE]
    flickers = [
        np.array([measure_motion(clip).flicker for clip in some])
        for some in ([reconstruct(vae, c) for c in whole], whole)
    ]
    return MeasurerResults(
        held_out,
        answers_right(classifier, rebuilt, some),
        ssim=bootstrap(mean, fidelity[:, 0]),
        psnr=bootstrap(mean, fidelity[:, 1]),
        flicker=bootstrap(ratio_of_means, *flickers),
    )


def answers_right(
    classifier: SceneClassifier, clips: Sequence[np.ndarray], scenes: Sequence[Scene]
) -> dict[str, Interval]:
    """Accuracy of the palette, balanced accuracy of each motif's presence."""
    probabilities, truth = classify_clips(classifier, clips), Truth.of(scenes)
    figures = {"palette": bootstrap(mean, probabilities["palette"].argmax(1) == truth.labels["palette"])}
    for name in HEADS[1:]:
        figures[name] = bootstrap(balanced_accuracy, truth.asks(name), probabilities[name][:, 0] < 0.5)
    return figures


def measure_language(
    args: argparse.Namespace, maker: ClipMaker, classifier: SceneClassifier, valid: Sequence[str], language: str
) -> LanguageResults:
    """Make the clips of one language and measure them, beside the rendered ones."""
    path = args.output / f"rendered-seed{args.seed}-{args.prompts}.npy"
    rendered, scenes = render_dataset(
        path, args.prompts, args.seed, fps=FPS, size=maker.size, fine_motifs=False, workers=args.workers
    )
    prompts = prompts_of(scenes, args.seed, language)
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts)]
    variant = Variant(args.guidance_scale, eta=args.eta)
    clips = maker.clips(requests, variant)
    write_contact_sheets(args.output / "sheets", language, prompts, rendered, clips)
    scorer = ClipScorer(args.model / "clip", args.device) if (args.model / "clip").exists() else None
    truth = Truth.of(scenes)
    sources = {"generated": clips, "rendered": rendered, "still": still_clips(clips)}
    seen = {name: judge(some, classifier, scorer, prompts) for name, some in sources.items()}
    figures = {name: clip_figures(one, truth, valid) for name, one in seen.items()}
    for name, one in seen.items():
        figures[name] |= figures_beside(one, seen["rendered"], truth)
    figures["cameras"] = camera_counts(seen["generated"], truth)
    count = args.control_prompts
    if language != languages_of(args)[0] or count == 0:
        return LanguageResults(**figures, controls=[])
    checks = ControlChecks(maker, classifier, valid, variant)
    return LanguageResults(**figures, controls=checks.run(scenes[:count], requests[:count], language))


def languages_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The languages to measure; the arguments of a call mean the same in each, so the first one is enough for them."""
    return LANGUAGES if args.language == "both" else (args.language,)


def settings_of(args: argparse.Namespace, maker: ClipMaker) -> dict[str, Any]:
    """What the figures depend on, and how long a clip took."""
    variant = Variant(args.guidance_scale, eta=args.eta)
    return {
        "model": model_hash(args.model),
        "prompts": args.prompts,
        "control_prompts": args.control_prompts,
        "seed": args.seed,
        "steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "eta": args.eta,
        "num_frames": variant.num_frames,
        "size": maker.size,
        "device": maker.device_name,
        "dtype": args.dtype,
        "seconds_a_clip": maker.seconds / maker.made if maker.made else None,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    package = REPOSITORY / "pipeline_landscape_video" / "shanshui_tiny"
    parser.add_argument("--model", type=Path, default=package, help="folder of the pipeline, with its CLIP in clip/")
    parser.add_argument("--output", type=Path, default=Path("runs/shanshui/measure"))
    parser.add_argument("--run_dir", type=Path, default=Path("runs/shanshui"), help="of train_tiny.py: rendered clips")
    parser.add_argument("--prompts", type=int, default=200, help="held-out scenes; one caption of each a language")
    parser.add_argument("--control_prompts", type=int, help="of them, to check arguments; a sixth, 0 for none")
    parser.add_argument("--seed", type=int, default=PROMPTS_SEED, help="of scenes, words and noise; not 1 or 2")
    parser.add_argument("--language", choices=(*LANGUAGES, "both"), default="both")
    parser.add_argument("--batch", type=int, default=1, help="prompts in one call of the pipeline; 16 on a GPU")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=EMBEDDED.guidance_scale, help="as `generate` has it")
    parser.add_argument("--eta", type=float, default=EMBEDDED.eta, help="share of noise drawn anew in each step")
    parser.add_argument("--held_out_clips", type=int, default=240, help="rendered, to check measurers and autoencoder")
    parser.add_argument("--classifier_steps", type=int, default=600)
    parser.add_argument("--workers", type=int, help="processes that render, on a CPU also make clips; one per core")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the steps")
    parser.add_argument("--card", action="store_true", help="write the tables into README.md of the model's folder")
    args = parser.parse_args(arguments)
    wanted = max(4, args.prompts // 6) if args.control_prompts is None else args.control_prompts
    args.control_prompts = min(args.prompts, wanted)
    args.workers = os.cpu_count() if args.workers is None else args.workers
    if args.seed in (TRAINING_SEED, HELD_OUT_SEED):
        parser.error(f"--seed {args.seed} is the seed of clips that models and measurers were made with")
    for file in ("model_index.json", *(["README.md"] if args.card else [])):
        if not (args.model / file).exists():
            parser.error(f"--model {args.model} has no {file}")
    return args


if __name__ == "__main__":
    main()
