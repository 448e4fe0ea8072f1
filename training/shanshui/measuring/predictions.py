"""Predict what clips show and how they move, and score the predictions against labels or rendered clips.

The measurements themselves, and the autoencoder, are checked on held-out rendered clips, whose content is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from diffusers import AutoencoderKL

from landscape_video.evaluation.metrics.clip_metrics import clip_text
from landscape_video.evaluation.metrics.intervals import (
    Interval,
    balanced_accuracy,
    bootstrap,
    mean,
    median,
    ratio_of_means,
    ratio_of_medians,
)
from landscape_video.evaluation.metrics.motion_metrics import CAMERA_DIRECTIONS, fit_camera, measure_flow
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, sampled_frames
from landscape_video.evaluation.metrics.video_features import ClipScorer
from shanshui.measuring.classifier_training import MOTIFS, labels_of, reconstruct
from shanshui.renderer.scene import Scene


VALID_FROM = 0.9  # share of held-out rendered clips that a measurement must be right about to count
RECONSTRUCTED, RECONSTRUCTED_WHOLE = 80, 24  # clips: a few frames of the first ones, and all frames


@dataclass(frozen=True)
class Predictions:
    """What is seen in some clips, one row per clip.

    Args:
        cameras: Directions of the camera.
        pans, zooms: See `CameraMotion`.
        magnitudes: Mean length of the optical flow, pixels a frame.
        flickers: Mean difference between frames that flow does not explain, gray levels out of 255.
        clip_text: CLIP-text with the clips' texts; None without them.
        probabilities: (clips, classes) for each attribute of the scene classifier.
        valid: Attributes that the classifier is right about often enough.
    """

    cameras: np.ndarray
    pans: np.ndarray
    zooms: np.ndarray
    magnitudes: np.ndarray
    flickers: np.ndarray
    clip_text: np.ndarray | None = None
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    valid: tuple[str, ...] = ()

    @property
    def motifs(self) -> list[str]:
        """The motifs that the classifier is right about often enough."""
        return [name for name in MOTIFS if name in self.valid]

    def shows(self, motif: str) -> np.ndarray:
        """Whether the motif is there, bool (clips,)."""
        return self.probabilities[motif][:, 0] < 0.5


@dataclass(frozen=True)
class Labels:
    """What the prompts of the same clips ask for: indices of the classes by attribute, and the camera's direction."""

    attributes: dict[str, np.ndarray]
    cameras: np.ndarray

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Self:
        """The labels of rendered scenes."""
        return cls(labels_of(scenes), np.array([scene.camera for scene in scenes]))

    def asks(self, motif: str) -> np.ndarray:
        """Whether the motif is asked for, bool (clips,)."""
        return self.attributes[motif] > 0


def predict(
    clips: Sequence[np.ndarray],
    classifier: SceneClassifier | None = None,
    scorer: ClipScorer | None = None,
    texts: Sequence[str] = (),
) -> Predictions:
    """Look at clips, uint8 (num_frames, height, width, 3) each; with `scorer`, compare them with `texts`."""
    cameras, flows = [fit_camera(clip) for clip in clips], [measure_flow(clip) for clip in clips]
    return Predictions(
        cameras=np.array([camera.direction for camera in cameras]),
        pans=np.array([camera.pan for camera in cameras]),
        zooms=np.array([camera.zoom for camera in cameras]),
        magnitudes=np.array([flow.magnitude for flow in flows]),
        flickers=np.array([flow.unexplained_flicker for flow in flows]),
        clip_text=text_scores(scorer, clips, texts) if scorer else None,
        probabilities=classify_clips(classifier, clips) if classifier else {},
        valid=classifier.valid if classifier else (),
    )


def classify_clips(classifier: SceneClassifier, clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities (clips, classes) for each attribute."""
    rows = [classifier.classify(clip) for clip in clips]
    return {name: np.stack([row[name] for row in rows]) for name in classifier.attributes}


def text_scores(scorer: ClipScorer, clips: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """CLIP-text of each clip and its text, (clips,), on a few frames of each."""
    pairs = zip(clips, scorer.texts(texts), strict=True)
    return np.array([clip_text(scorer.frames(sampled_frames(clip)), text) for clip, text in pairs])


def still_clips(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Repeat the first frame of each clip: what a model without any motion would reach."""
    return [np.repeat(clip[:1], 4, axis=0) for clip in clips]


def clip_scores(seen: Predictions, labels: Labels) -> dict[str, Interval]:
    """Score clips by themselves. The mean over motifs takes only the valid ones."""
    scores = {
        "palette": bootstrap(mean, palette_right(seen, labels)),
        "camera": bootstrap(mean, seen.cameras == labels.cameras),
    }
    if seen.motifs:
        columns = (np.stack([column(name) for name in seen.motifs], axis=1) for column in (labels.asks, seen.shows))
        scores["motifs, mean"] = bootstrap(balanced_accuracy, *columns)
    for name in MOTIFS:
        scores[name] = bootstrap(balanced_accuracy, labels.asks(name), seen.shows(name))
    for name, question in (("water", "lake or river"), ("light", "sun or moon")):
        asked = labels.asks(name)
        which = 1 + seen.probabilities[name][asked, 1:].argmax(1)
        scores[question] = bootstrap(mean, which == labels.attributes[name][asked])
    scores["motion"] = bootstrap(median, seen.magnitudes)
    scores["flicker"] = bootstrap(mean, seen.flickers)
    if seen.clip_text is not None:
        scores["CLIP-text"] = bootstrap(mean, seen.clip_text)
    return scores


def scores_beside(seen: Predictions, rendered: Predictions, labels: Labels) -> dict[str, Interval]:
    """Score clips against the rendered clips of the same prompts."""
    scores = {
        "motion, relative to rendered": bootstrap(ratio_of_medians, seen.magnitudes, rendered.magnitudes),
        "flicker, relative to rendered": bootstrap(ratio_of_means, seen.flickers, rendered.flickers),
    }
    still = labels.cameras == "still"
    for rows, which in ((still, "still camera"), (~still, "moving camera")):
        columns = seen.magnitudes[rows], rendered.magnitudes[rows]
        scores[f"motion, relative to rendered, {which}"] = bootstrap(ratio_of_medians, *columns)
    # How far the camera goes in the direction that it was asked to; content moves to the right when it pans left.
    for which, there, back in (("pans", "left", "right"), ("zooms", "closer", "away")):
        ways = (labels.cameras == there).astype(float) - (labels.cameras == back)
        rows = ways != 0
        columns = (getattr(one, which)[rows] * ways[rows] for one in (seen, rendered))
        scores[f"camera travel, relative to rendered, {which}"] = bootstrap(ratio_of_means, *columns)
    return scores


def camera_counts(seen: Predictions, labels: Labels) -> dict[str, dict[str, int]]:
    """Count how often each camera was seen, by the camera that was asked for."""
    return {
        asked: {name: int(np.sum((labels.cameras == asked) & (seen.cameras == name))) for name in CAMERA_DIRECTIONS}
        for asked in CAMERA_DIRECTIONS
    }


def palette_right(seen: Predictions, labels: Labels) -> np.ndarray:
    """Whether the palette is the one that was asked for, bool (clips,)."""
    return seen.probabilities["palette"].argmax(1) == labels.attributes["palette"]


def answers(seen: Predictions, labels: Labels) -> dict[str, np.ndarray]:
    """What a prompt is judged by, (clips,) in [0, 1] each: palette, camera, and the share of valid motifs right."""
    right = {"palette": palette_right(seen, labels), "camera": seen.cameras == labels.cameras}
    if seen.motifs:
        right["motifs"] = np.mean([seen.shows(name) == labels.asks(name) for name in seen.motifs], axis=0)
    return {name: values.astype(float) for name, values in right.items()}


def agreement(seen: Predictions, labels: Labels) -> np.ndarray:
    """Probability of the right palette and of each motif's presence or absence, mean over valid attributes, (clips,).

    At least one attribute must be valid.
    """
    shares = []
    for name in seen.valid:
        classes, absent = labels.attributes[name], seen.probabilities[name][:, 0]
        right = seen.probabilities[name][np.arange(len(classes)), classes]
        shares.append(right if name == "palette" else np.where(classes > 0, 1 - absent, absent))
    return np.mean(shares, axis=0)


@dataclass(frozen=True)
class HeldOutResults:
    """How often the measurements are right on held-out rendered clips, and how faithful the autoencoder is.

    Args:
        held_out: Accuracy on the clips.
        reconstructed: Accuracy on reconstructions of the clips.
        ssim, psnr: Fidelity of the reconstructed frames; PSNR in dB.
        flicker: Flicker of the reconstructed clips, relative to the clips.
    """

    held_out: dict[str, Interval]
    reconstructed: dict[str, Interval]
    ssim: Interval
    psnr: Interval
    flicker: Interval

    @property
    def valid(self) -> tuple[str, ...]:
        """The measurements that are right often enough to count."""
        return tuple(name for name, figure in self.held_out.items() if figure.value >= VALID_FROM)


def check_measurements(
    classifier: SceneClassifier, vae: AutoencoderKL, clips: np.ndarray, scenes: Sequence[Scene]
) -> HeldOutResults:
    """Check classifier and camera on clips that nothing was trained on, and how well the autoencoder keeps them."""
    seen, labels = predict(clips), Labels.of(scenes)
    held_out = accuracies(classifier, clips, labels) | {"camera": bootstrap(mean, seen.cameras == labels.cameras)}
    rebuilt = [reconstruct(vae, sampled_frames(clip)) for clip in clips[:RECONSTRUCTED]]
    frames = clips[:, clips.shape[1] // 2]
    fidelity = ssim_and_psnr(frames, reconstruct(vae, frames))
    whole = clips[:RECONSTRUCTED_WHOLE]
    rebuilt_flickers = [measure_flow(reconstruct(vae, clip)).unexplained_flicker for clip in whole]
    return HeldOutResults(
        held_out,
        accuracies(classifier, rebuilt, Labels.of(scenes[: len(rebuilt)])),
        ssim=bootstrap(mean, fidelity[:, 0]),
        psnr=bootstrap(mean, fidelity[:, 1]),
        flicker=bootstrap(ratio_of_means, np.array(rebuilt_flickers), seen.flickers[: len(whole)]),
    )


def accuracies(classifier: SceneClassifier, clips: Sequence[np.ndarray], labels: Labels) -> dict[str, Interval]:
    """Accuracy of the palette, and balanced accuracy of each motif's presence."""
    probabilities = classify_clips(classifier, clips)
    found = {"palette": bootstrap(mean, probabilities["palette"].argmax(1) == labels.attributes["palette"])}
    for name in MOTIFS:
        found[name] = bootstrap(balanced_accuracy, labels.asks(name), probabilities[name][:, 0] < 0.5)
    return found


def ssim_and_psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Structural similarity and peak signal-to-noise ratio (dB) of uint8 (count, height, width, 3): (count, 2)."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    return np.array(
        [
            (
                structural_similarity(frame, other, channel_axis=2, data_range=255),
                peak_signal_noise_ratio(frame, other, data_range=255),
            )
            for frame, other in zip(frames, others, strict=True)
        ]
    )
