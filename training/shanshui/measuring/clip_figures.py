"""What the measurers say about clips, and the figures made of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from landscape_video.evaluation.metrics.clip_metrics import ClipScorer, clip_text
from landscape_video.evaluation.metrics.intervals import (
    Interval,
    balanced_accuracy,
    bootstrap,
    mean,
    median,
    ratio_of_means,
    ratio_of_medians,
)
from shanshui.measuring.clip_motion import measure_motion
from shanshui.measuring.scene_classifiers import (
    HEADS,
    MOTIFS,
    SceneClassifier,
    classify_clips,
    labels_of,
    sampled_frames,
)
from shanshui.renderer.scene import CAMERAS, Scene


@dataclass(frozen=True)
class Judgement:
    """What was seen in some clips, row by row: probabilities (clips, choices) of each head, camera names, pan and zoom
    as in `ClipMotion`, motion."""

    probabilities: dict[str, np.ndarray]
    cameras: np.ndarray
    pans: np.ndarray
    zooms: np.ndarray
    magnitudes: np.ndarray
    flickers: np.ndarray
    clip_text: np.ndarray | None = None

    def says(self, motif: str) -> np.ndarray:
        """Whether the motif is there, bool (clips,)."""
        return self.probabilities[motif][:, 0] < 0.5


@dataclass(frozen=True)
class Truth:
    """What the prompts of the same clips ask for."""

    labels: dict[str, np.ndarray]
    cameras: np.ndarray

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> "Truth":
        return cls(labels_of(scenes), np.array([scene.camera for scene in scenes]))

    def asks(self, motif: str) -> np.ndarray:
        return self.labels[motif] > 0


def judge(
    clips: Sequence[np.ndarray],
    classifier: SceneClassifier,
    scorer: ClipScorer | None = None,
    texts: Sequence[str] = (),
) -> Judgement:
    """Look at clips, uint8 (num_frames, height, width, 3) each; with `scorer`, at the `texts` that they go with."""
    motions = [measure_motion(clip) for clip in clips]
    return Judgement(
        classify_clips(classifier, clips),
        np.array([motion.camera for motion in motions]),
        np.array([motion.pan for motion in motions]),
        np.array([motion.zoom for motion in motions]),
        np.array([motion.magnitude for motion in motions]),
        np.array([motion.flicker for motion in motions]),
        text_scores(scorer, clips, texts) if scorer else None,
    )


def text_scores(scorer: ClipScorer, clips: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """CLIP-text of each clip and its text, (clips,)."""
    pairs = zip(clips, scorer.texts(texts), strict=True)
    return np.array([clip_text(scorer.frames(sampled_frames(clip)), text) for clip, text in pairs])


def still_clips(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first frame of each clip, repeated: what a model that moves nothing would reach."""
    return [np.repeat(clip[:1], 4, axis=0) for clip in clips]


def clip_figures(seen: Judgement, truth: Truth, valid: Collection[str]) -> dict[str, Interval]:
    """Figures of clips by themselves; the mean over motifs takes in the `valid` ones."""
    motifs = [name for name in MOTIFS if name in valid]
    figures = {
        "palette": bootstrap(mean, palette_right(seen, truth)),
        "camera": bootstrap(mean, camera_right(seen, truth)),
    }
    if motifs:
        columns = (np.stack([column(name) for name in motifs], axis=1) for column in (truth.asks, seen.says))
        figures["motifs, mean"] = bootstrap(balanced_accuracy, *columns)
    for name in MOTIFS:
        figures[name] = bootstrap(balanced_accuracy, truth.asks(name), seen.says(name))
    for name, question in (("water", "lake or river"), ("light", "sun or moon")):
        asked = truth.asks(name)
        which = 1 + seen.probabilities[name][asked, 1:].argmax(1)
        figures[question] = bootstrap(mean, which == truth.labels[name][asked])
    figures["motion"] = bootstrap(median, seen.magnitudes)
    figures["flicker"] = bootstrap(mean, seen.flickers)
    if seen.clip_text is not None:
        figures["CLIP-text"] = bootstrap(mean, seen.clip_text)
    return figures


def figures_beside(seen: Judgement, rendered: Judgement, truth: Truth) -> dict[str, Interval]:
    """Figures of clips against the rendered clips of the same prompts."""
    figures = {
        "motion, times rendered": bootstrap(ratio_of_medians, seen.magnitudes, rendered.magnitudes),
        "flicker, times rendered": bootstrap(ratio_of_means, seen.flickers, rendered.flickers),
    }
    still = truth.cameras == "still"
    for rows, which in ((still, "still camera"), (~still, "moving camera")):
        columns = seen.magnitudes[rows], rendered.magnitudes[rows]
        figures[f"motion, times rendered, {which}"] = bootstrap(ratio_of_medians, *columns)
    # How far the camera goes the way that it was asked to; content moves to the right when it pans left.
    for which, there, back in (("pans", "left", "right"), ("zooms", "closer", "away")):
        ways = (truth.cameras == there).astype(float) - (truth.cameras == back)
        rows = ways != 0
        columns = (getattr(one, which)[rows] * ways[rows] for one in (seen, rendered))
        figures[f"way of the camera, times rendered, {which}"] = bootstrap(ratio_of_means, *columns)
    return figures


def camera_counts(seen: Judgement, truth: Truth) -> dict[str, dict[str, int]]:
    """By the camera asked for, how often each was seen."""
    return {
        asked: {name: int(np.sum((truth.cameras == asked) & (seen.cameras == name))) for name in CAMERAS}
        for asked in CAMERAS
    }


def palette_right(seen: Judgement, truth: Truth) -> np.ndarray:
    return seen.probabilities["palette"].argmax(1) == truth.labels["palette"]


def camera_right(seen: Judgement, truth: Truth) -> np.ndarray:
    return seen.cameras == truth.cameras


def answers(seen: Judgement, truth: Truth, valid: Collection[str]) -> dict[str, np.ndarray]:
    """What a prompt is judged by, (clips,) in [0, 1] each: palette right, camera right, share of its motifs right."""
    right = {"palette": palette_right(seen, truth).astype(float), "camera": camera_right(seen, truth).astype(float)}
    motifs = [seen.says(name) == truth.asks(name) for name in MOTIFS if name in valid]
    return right | ({"motifs": np.mean(motifs, axis=0)} if motifs else {})


def agreement(probabilities: dict[str, np.ndarray], truth: Truth, valid: Collection[str]) -> np.ndarray:
    """(clips,) probability of the right palette and of each motif's presence or absence, mean of the `valid` heads."""
    shares = []
    for name in (head for head in HEADS if head in valid):
        labels = truth.labels[name]
        right = probabilities[name][np.arange(len(labels)), labels]
        absent = probabilities[name][:, 0]
        shares.append(right if name == "palette" else np.where(labels > 0, 1 - absent, absent))
    return np.mean(shares, axis=0)
