"""Check animated images: fidelity to the image, steering by the text, stable colors, joints between stages.

The results become Markdown for the model card.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape_video.evaluation.metrics.clip_metrics import fff_ssim
from landscape_video.evaluation.metrics.intervals import Interval, bootstrap, mean, median, ratio_of_means
from landscape_video.evaluation.metrics.video_features import ClipScorer
from motion_adapter.code_files import BRANCH
from motion_adapter.markdown import markdown_table
from shanshui.measuring.argument_checks import ArgumentCheck
from shanshui.measuring.predictions import Predictions, predict
from shanshui.measuring.report import CHECK_HEADER, check_row, versions_text
from shanshui.renderer.scene import PICTURES_SEED
from shanshui.stages.export_family import training_table, weights_table


OF_AUTOENCODER = 0.95  # FFF-SSIM, relative to the autoencoder's own reconstruction
OF_RENDERED_CAMERA = 0.85  # camera accuracy, relative to the rendered clips
MOST_DRIFT = 0.05  # of the mean of a channel, whose range is 0 to 1
MOST_JUMP = 1.5  # between two stages, relative to the largest step from frame to frame within a stage
CHANNELS = ("red", "green", "blue")

ROWS = {
    "pictured": "text and image, first frame held",
    "free": "text and image, first frame free",
    "text_only": "text only",
    "rendered": "rendered clips",
}


@dataclass(frozen=True, kw_only=True)
class AnimationPredictions(Predictions):
    """What is seen in clips that were made from images, one row per clip.

    Args:
        first_ssim: FFF-SSIM.
        first_clip: FFF-CLIP.
        drifts: Change of each channel's mean, (clips, 3).
    """

    first_ssim: np.ndarray
    first_clip: np.ndarray
    drifts: np.ndarray

    def scores(self, cameras: np.ndarray) -> dict[str, Interval]:
        """The row of a table, for clips whose texts ask for `cameras`."""
        return {
            "FFF-SSIM": bootstrap(mean, self.first_ssim),
            "FFF-CLIP": bootstrap(mean, self.first_clip),
            "camera": bootstrap(mean, self.cameras == cameras),
            "CLIP-text": bootstrap(mean, self.clip_text),
            "motion": bootstrap(median, self.magnitudes),
            "flicker": bootstrap(mean, self.flickers),
        }


def predict_animations(
    clips: Sequence[np.ndarray], images: Sequence[np.ndarray], texts: Sequence[str], scorer: ClipScorer
) -> AnimationPredictions:
    """Look at clips, uint8 (num_frames, height, width, 3), made from images (height, width, 3) and texts."""
    firsts, embeddings = scorer.frames([clip[0] for clip in clips]), scorer.frames(list(images))
    return AnimationPredictions(
        **vars(predict(clips, scorer=scorer, texts=texts)),
        first_ssim=np.array([fff_ssim(*pair) for pair in zip(clips, images, strict=True)]),
        first_clip=(firsts * embeddings).sum(dim=1).numpy(),
        drifts=np.stack([color_drift(clip) for clip in clips]),
    )


def color_drift(clip: np.ndarray) -> np.ndarray:
    """Change of each channel's mean from the first to the last frame, (3,) in [0, 1]."""
    means = clip[[0, -1]].mean(axis=(1, 2)) / 255
    return np.abs(means[1] - means[0])


def stage_jump(clip: np.ndarray, num_frames: int) -> float:
    """The step between two stages of `num_frames`, relative to the largest step within one of them.

    A step is the mean absolute difference of two frames. Where nothing moves within the stages, the result is
    infinite, or 0 if nothing changes between them either.
    """
    steps = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    between, within = steps[num_frames - 1], np.delete(steps, num_frames - 1).max()
    if within == 0:
        return 0.0 if between == 0 else np.inf
    return float(between / within)


def same_palette_scores(embeddings: torch.Tensor, palettes: Sequence[str]) -> np.ndarray:
    """Mean cosine of each image with the others of its palette; images without any others are left out."""
    palettes = np.array(palettes)
    cosines = (embeddings @ embeddings.T).numpy()
    scores = []
    for row, palette in enumerate(palettes):
        others = palettes == palette
        others[row] = False
        if others.any():
            scores.append(cosines[row, others].mean())
    return np.array(scores)


def fidelity_checks(
    seen: AnimationPredictions, rebuilt_ssim: np.ndarray, palette_scores: np.ndarray
) -> list[ArgumentCheck]:
    """Is the first frame the image where only the retention branch determines it?

    Args:
        seen: Clips without a held first frame.
        rebuilt_ssim: SSIM of the autoencoder's reconstructions of the images.
        palette_scores: Cosines with other images of the palette.
    """
    share = bootstrap(ratio_of_means, seen.first_ssim, rebuilt_ssim)
    fidelity, by_chance = bootstrap(mean, seen.first_clip), bootstrap(mean, palette_scores)
    wanted = f"above {by_chance.text(3)}, that of other images of the palette"
    return [
        ArgumentCheck(
            "FFF-SSIM, relative to the autoencoder's", share, f">= {OF_AUTOENCODER}", share.value >= OF_AUTOENCODER
        ),
        ArgumentCheck("FFF-CLIP", fidelity, wanted, fidelity.low > by_chance.high),
    ]


def held_check(held: AnimationPredictions, rebuilt_ssim: np.ndarray) -> ArgumentCheck:
    """How faithful a held first frame is. By construction it is as faithful as the autoencoder: nothing is wanted."""
    share = bootstrap(ratio_of_means, held.first_ssim, rebuilt_ssim)
    return ArgumentCheck("FFF-SSIM with the first frame held, relative to the autoencoder's", share)


def beginning_check(clips: Sequence[np.ndarray]) -> ArgumentCheck:
    """Does a clip leave its held first frame without a jump?"""
    share = bootstrap(mean, np.array([stage_jump(clip, 1) for clip in clips]) <= MOST_JUMP)
    name = f"clips whose first step is at most {MOST_JUMP} times the largest later one"
    return ArgumentCheck(name, share, ">= 0.9", share.value >= 0.9)


def camera_check(seen: AnimationPredictions, rendered: AnimationPredictions, cameras: np.ndarray) -> ArgumentCheck:
    """Does the camera go where only the text says that it goes?"""
    share = bootstrap(ratio_of_means, seen.cameras == cameras, rendered.cameras == cameras)
    passed = share.value >= OF_RENDERED_CAMERA
    return ArgumentCheck("camera accuracy, relative to rendered clips", share, f">= {OF_RENDERED_CAMERA}", passed)


def text_check(cameras: np.ndarray, of_other_text: np.ndarray, of_other_noise: np.ndarray) -> ArgumentCheck:
    """Do two texts make one image move differently, more than two noises with one text do?"""
    gain = bootstrap(mean, (cameras != of_other_text).astype(float) - (cameras != of_other_noise).astype(float))
    name = "clips whose camera changes with the opposite text, minus with other noise"
    return ArgumentCheck(name, gain, "interval above 0", gain.low > 0)


def drift_checks(seen: AnimationPredictions, rendered: AnimationPredictions) -> list[ArgumentCheck]:
    """Check that the mean of each channel changes little, or no more than in the rendered clips."""
    checks = []
    for channel, name in enumerate(CHANNELS):
        figure, allowed = bootstrap(mean, seen.drifts[:, channel]), float(rendered.drifts[:, channel].mean())
        limit = max(MOST_DRIFT, allowed)
        wanted = f"<= {limit:.3f} (rendered: {allowed:.3f})"
        name = f"change of mean {name}, first to last frame"
        checks.append(ArgumentCheck(name, figure, wanted, figure.value <= limit))
    within = seen.drifts <= np.maximum(MOST_DRIFT, rendered.drifts)
    return [*checks, ArgumentCheck("clips within these limits in all channels", bootstrap(mean, within.all(axis=1)))]


def stages_check(clips: Sequence[np.ndarray], num_frames: int) -> list[ArgumentCheck]:
    """Do two stages of `num_frames` join without a jump?"""
    jumps = np.array([stage_jump(clip, num_frames) for clip in clips])
    smooth, stages = bootstrap(mean, jumps <= MOST_JUMP), f"two stages of {num_frames} frames"
    return [
        ArgumentCheck(
            f"{stages}: clips whose step between the stages is <= {MOST_JUMP}", smooth, "1", smooth.value == 1
        ),
        ArgumentCheck(
            f"{stages}: step between the stages, relative to the largest within one, median", bootstrap(median, jumps)
        ),
    ]


@dataclass(frozen=True)
class AnimationResults:
    """Everything that one run of `measure_image_to_video.py` measured.

    Args:
        settings: What the results depend on.
        figures: Values by the kind of clips (`ROWS`) and by name.
        distances: Distance to the rendered clips, by the kind of clips.
        checks: What the model must reach.
    """

    settings: dict[str, Any]
    figures: dict[str, dict[str, Interval]]
    distances: dict[str, float]
    checks: list[ArgumentCheck]


def markdown(results: AnimationResults) -> str:
    """Format the tables for a model card."""
    settings = results.settings
    order = settings["guidance_order"].replace("_", " ").replace("picture", "image")
    names = list(results.figures["pictured"])
    rows = []
    for kind, title in ROWS.items():
        distance = f"{results.distances[kind]:.3f}" if kind in results.distances else ""
        rows.append((title, *(results.figures[kind][name].text() for name in names), distance))
    parts = [
        f"Measured by `training/shanshui/measure_image_to_video.py` on the first frames of {settings['pictures']} "
        f"held-out rendered scenes (seed {settings['seed']}). Each text ({settings['language']}) asks for another "
        f"camera direction than that of the image's own scene. Sampling takes {settings['steps']} steps with text "
        f"guidance {settings['guidance_scale']:g}, image guidance {settings['image_guidance_scale']:g} ({order}) and "
        f"eta {settings['eta']:g}, for {settings['num_frames']} frames of {settings['size']} x {settings['size']}, in "
        f"{settings['dtype']} and without interpolation. The first frame is held, as by `animate`, except in the "
        f"first two checks. Checks with another text, other noise or two stages use {settings['pairs']} of the "
        "images. Brackets are 95 % bootstrap intervals. "
        f"{versions_text(settings)}",
        markdown_table(CHECK_HEADER, map(check_row, results.checks)),
        "The same prompts with and without the image (DreamVideo Table 2), and rendered clips of the same image and "
        "text. FFF compares the first frame with the image. Motion is the flow of the median clip in pixels per "
        "frame. Flicker is what flow does not explain, in gray levels out of 255. Distance is the polynomial MMD of "
        "CLIP embeddings to the rendered clips, without the pairs of one scene.",
        markdown_table(("Clips from", *names, "distance"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def card_section(model: Path, run_dir: Path, results: AnimationResults) -> str:
    """The tables, after what the retention branch is and, where its logs are in `run_dir`, how it was trained."""
    parts = [
        "The image retention branch (DreamVideo) in `image_retention/` animates an image: "
        '`landscape-video animate painting.png "mist drifting right"`. It was trained by '
        "`training/shanshui/train_tiny.py --stages pictures retention`, first on single frames, then on whole clips, "
        f"while all other weights were frozen. Its training clips, rendered with seed {PICTURES_SEED}, begin at any "
        "position, so that a first frame does not show where the camera and boats go.",
        weights_table({BRANCH: model / BRANCH / "diffusion_pytorch_model.safetensors"}),
    ]
    stages = [stage for stage in ("pictures", "retention") if (run_dir / stage / "log.jsonl").exists()]
    if stages:
        parts.append(training_table(run_dir, stages))
    return "\n\n".join([*parts, markdown(results)])
