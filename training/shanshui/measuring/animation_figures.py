"""Is a clip true to its picture, does its text steer it, does it keep its colours, do its stages join?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from landscape_video.evaluation.metrics.clip_metrics import ClipScorer, fff_ssim
from landscape_video.evaluation.metrics.intervals import Interval, bootstrap, mean, median, ratio_of_means
from shanshui.measuring.clip_figures import text_scores
from shanshui.measuring.clip_motion import ClipMotion, measure_motion
from shanshui.measuring.measure_controls import Control


OF_AUTOENCODER = 0.95  # FFF-SSIM, of what the autoencoder's own reconstruction reaches
OF_RENDERED_CAMERA = 0.85
MOST_DRIFT = 0.05  # of the mean of a channel, whose range is 0 to 1
MOST_JUMP = 1.5  # between two stages, times the largest step from frame to frame within a stage
CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Seen:
    """What was seen in some clips, row by row; embeddings are of unit length."""

    first_ssim: np.ndarray
    first_clip: np.ndarray
    motions: list[ClipMotion]
    clip_text: np.ndarray
    drifts: np.ndarray

    @property
    def cameras(self) -> np.ndarray:
        return np.array([motion.camera for motion in self.motions])

    def figures(self, cameras: np.ndarray) -> dict[str, Interval]:
        """The row of a table, for clips whose texts ask for `cameras`."""
        return {
            "FFF-SSIM": bootstrap(mean, self.first_ssim),
            "FFF-CLIP": bootstrap(mean, self.first_clip),
            "camera": bootstrap(mean, self.cameras == cameras),
            "CLIP-text": bootstrap(mean, self.clip_text),
            "motion": bootstrap(median, np.array([motion.magnitude for motion in self.motions])),
            "flicker": bootstrap(mean, np.array([motion.flicker for motion in self.motions])),
        }


def look_at(
    clips: Sequence[np.ndarray], pictures: Sequence[np.ndarray], texts: Sequence[str], scorer: ClipScorer
) -> Seen:
    """Look at clips, uint8 (num_frames, height, width, 3) each, that go with pictures (height, width, 3) and texts."""
    firsts, embeddings = scorer.frames([clip[0] for clip in clips]), scorer.frames(list(pictures))
    return Seen(
        np.array([fff_ssim(clip, picture) for clip, picture in zip(clips, pictures, strict=True)]),
        (firsts * embeddings).sum(dim=1).numpy(),
        [measure_motion(clip) for clip in clips],
        text_scores(scorer, clips, texts),
        np.stack([colour_drift(clip) for clip in clips]),
    )


def colour_drift(clip: np.ndarray) -> np.ndarray:
    """(3,): how far the mean of each channel is at the last frame from where it was at the first, in [0, 1]."""
    means = clip[[0, -1]].mean(axis=(1, 2)) / 255
    return np.abs(means[1] - means[0])


def stage_jump(clip: np.ndarray, num_frames: int) -> float:
    """The step between two stages of `num_frames`, times the largest step from frame to frame within one of them.

    A step is the mean absolute difference of two frames. Where nothing moves within the stages it is infinite, or 0
    if nothing changes between them either.
    """
    steps = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    between, within = steps[num_frames - 1], np.delete(steps, num_frames - 1).max()
    if within == 0:
        return 0.0 if between == 0 else np.inf
    return float(between / within)


def same_palette_scores(embeddings: torch.Tensor, palettes: Sequence[str]) -> np.ndarray:
    """For each picture the mean cosine with the other pictures of its palette, those without any left out."""
    palettes = np.array(palettes)
    cosines = (embeddings @ embeddings.T).numpy()
    scores = []
    for row, palette in enumerate(palettes):
        others = palettes == palette
        others[row] = False
        if others.any():
            scores.append(cosines[row, others].mean())
    return np.array(scores)


def fidelity_checks(seen: Seen, rebuilt_ssim: np.ndarray, palette_scores: np.ndarray) -> list[Control]:
    """Is the first frame the picture if nothing but the branch holds it? `rebuilt_ssim` is what the autoencoder alone
    reaches for the same pictures."""
    share = bootstrap(ratio_of_means, seen.first_ssim, rebuilt_ssim)
    fidelity, by_chance = bootstrap(mean, seen.first_clip), bootstrap(mean, palette_scores)
    return [
        Control(
            "FFF-SSIM, times the autoencoder's", share, f">= {OF_AUTOENCODER}", share.value >= OF_AUTOENCODER
        ),
        Control(
            "FFF-CLIP",
            fidelity,
            f"above {by_chance.text(3)}, that of other pictures of the palette",
            fidelity.low > by_chance.high,
        ),
    ]  # fmt: skip


def held_check(held: Seen, rebuilt_ssim: np.ndarray) -> Control:
    """How true a held first frame is: by construction, as true as the autoencoder makes it, so nothing is wanted."""
    share = bootstrap(ratio_of_means, held.first_ssim, rebuilt_ssim)
    return Control("the same with the first frame held", share, "", None)


def beginning_check(clips: Sequence[np.ndarray]) -> Control:
    """Does a clip leave its held first frame without a jump?"""
    jumps = np.array([stage_jump(clip, 1) for clip in clips])
    share = bootstrap(mean, jumps <= MOST_JUMP)
    name = f"clips whose first step is at most {MOST_JUMP} times the largest later one"
    return Control(name, share, ">= 0.9", share.value >= 0.9)


def camera_check(seen: Seen, rendered: Seen, cameras: np.ndarray) -> Control:
    """Does the camera go where only the text says that it goes?"""
    share = bootstrap(ratio_of_means, seen.cameras == cameras, rendered.cameras == cameras)
    passed = share.value >= OF_RENDERED_CAMERA
    return Control("camera right, times the rendered clips'", share, f">= {OF_RENDERED_CAMERA}", passed)


def text_check(cameras: np.ndarray, of_other_text: np.ndarray, of_other_noise: np.ndarray) -> Control:
    """Do two texts make one picture move differently, more than two noises do with one text?"""
    gain = bootstrap(mean, (cameras != of_other_text).astype(float) - (cameras != of_other_noise).astype(float))
    name = "camera differs by the opposite text, minus by other noise"
    return Control(name, gain, "interval above 0", gain.low > 0)


def drift_checks(seen: Seen, rendered: Seen) -> list[Control]:
    """Does each channel's mean stay where it is, or move no more than that of the rendered clips?"""
    checks = []
    for channel, name in enumerate(CHANNELS):
        figure, allowed = bootstrap(mean, seen.drifts[:, channel]), float(rendered.drifts[:, channel].mean())
        limit = max(MOST_DRIFT, allowed)
        wanted = f"<= {limit:.3f} (rendered: {allowed:.3f})"
        checks.append(Control(f"change of {name}, first to last frame", figure, wanted, figure.value <= limit))
    within = seen.drifts <= np.maximum(MOST_DRIFT, rendered.drifts)
    share = bootstrap(mean, within.all(axis=1))
    checks.append(Control("clips whose every channel keeps to that", share, "", None))
    return checks


def stages_check(clips: Sequence[np.ndarray], num_frames: int) -> list[Control]:
    """Do two stages join without a jump?"""
    jumps = np.array([stage_jump(clip, num_frames) for clip in clips])
    median_jump, smooth = bootstrap(median, jumps), bootstrap(mean, jumps <= MOST_JUMP)
    stages = f"two stages of {num_frames} frames"
    return [
        Control(f"{stages}: clips whose step between them is <= {MOST_JUMP}", smooth, "1", smooth.value == 1),
        Control(f"{stages}: that step, times the largest within, median", median_jump, "", None),
    ]
