"""Measure clips with the models that metrics use, and summarize a system's measurements with 95 % intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from landscape_video.evaluation.metrics.intervals import RESAMPLES, bootstrap, mean
from landscape_video.evaluation.metrics.motion_metrics import (
    CAMERA_DIRECTIONS,
    CameraMotion,
    MotionMeasurements,
    fit_camera,
    measure_flow,
)
from landscape_video.evaluation.metrics.registry import Metric, SetMetric, metric_value, select_metrics
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, label_index
from landscape_video.evaluation.metrics.video_features import ClipFeatures, ClipScorer, I3DFeatures, VideoClassifier
from landscape_video.evaluation.results import MetricValue


SET_RESAMPLES = 100  # a Fréchet distance takes longer than a mean
DEVIATIONS = 1.96  # standard deviations on both sides that hold 95 % of a normal distribution


@dataclass(frozen=True)
class MetricModels:
    """The models that metrics use; None for those that were not asked for.

    Args:
        clip: For CLIP-temp, frame consistency, CLIP-text and FFF-CLIP.
        extractor: Gives the features of FVD and KVD; those of `clip` by default.
        clip_sim: For CLIP-SIM.
        classifier: For the inception score.
        scene_classifier: For the accuracy of palette and motifs.
    """

    clip: ClipScorer
    extractor: ClipFeatures | I3DFeatures | None = None
    clip_sim: ClipScorer | None = None
    classifier: VideoClassifier | None = None
    scene_classifier: SceneClassifier | None = None

    def __post_init__(self) -> None:
        if self.extractor is None:
            object.__setattr__(self, "extractor", ClipFeatures(self.clip))

    @classmethod
    def load(
        cls,
        clip: str | Path | None = None,
        clip_sim: str | Path | None = None,
        i3d: str | Path | None = None,
        i3d_preset: str = "stylegan-v",
        classifier: str | Path | None = None,
        scene_classifier: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> "MetricModels":
        """Load models from folders, files or names on the Hub. See the classes for what each source may be and for the
        errors. Without `clip`, shanshui-tiny's own is used; the others are left out."""
        return cls(
            clip=ClipScorer(clip, device),
            extractor=None if i3d is None else I3DFeatures(i3d, i3d_preset, device),
            clip_sim=None if clip_sim is None else ClipScorer(clip_sim, device),
            classifier=None if classifier is None else VideoClassifier(classifier, device),
            scene_classifier=None if scene_classifier is None else SceneClassifier.load(scene_classifier, device),
        )

    def protocol(self) -> dict[str, str]:
        """Describe what the values depend on besides the clips: one line of text per model."""
        models = {
            "CLIP": self.clip,
            "CLIP-SIM": self.clip_sim,
            "FVD and KVD": self.extractor,
            "IS": self.classifier,
            "scene classifier": self.scene_classifier,
        }
        flow = {"optical flow": "OpenCV DIS, preset medium, gray frames at the clips' own size"}
        return {name: model.description for name, model in models.items() if model is not None} | flow


@dataclass(frozen=True, eq=False)
class MeasuredClip:
    """One clip with what is known about it. What models see in it is computed when the first metric asks for it.

    Args:
        frames: uint8 RGB, (num_frames, height, width, 3), at least two frames.
        models: The models that metrics use.
        prompt: What it should show.
        image: uint8 RGB, (height, width, 3): the image that it was made from.
        labels: What it should show, by attribute: "camera", and the attributes of the scene classifier.
    """

    frames: np.ndarray
    models: MetricModels
    prompt: str | None = None
    image: np.ndarray | None = None
    labels: Mapping[str, object] = field(default_factory=dict)

    def has(self, need: str) -> bool:
        """Whether it has one of `registry.NEEDS`. A reference is needed by sets of clips, never by a single one."""
        if need == "camera label":
            return "camera" in self.labels
        if need == "palette label":
            return "palette" in self.labels and "palette" in self.models.scene_classifier.valid
        if need == "motif labels":
            return self.labels.keys() >= set(self.models.scene_classifier.motifs)
        return need == "reference" or getattr(self, need, getattr(self.models, need, None)) is not None

    def label_index(self, attribute: str) -> int:
        """The label of an attribute as an index among its classes. Raises `ValueError` for an unknown label."""
        classifier = self.models.scene_classifier
        classes = CAMERA_DIRECTIONS if attribute == "camera" else classifier.attributes[attribute]
        return label_index(classes, self.labels[attribute])

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """CLIP embeddings of the frames, (num_frames, dim) float64 of unit length."""
        return self.models.clip.frames(self.frames)

    @cached_property
    def motion(self) -> MotionMeasurements:
        """How much moves and flickers."""
        return measure_flow(self.frames)

    @cached_property
    def camera(self) -> CameraMotion:
        """Where the camera goes."""
        return fit_camera(self.frames)

    @cached_property
    def features(self) -> np.ndarray:
        """Features of FVD and KVD, (dim,) float64."""
        extractor = self.models.extractor
        shares_clip = isinstance(extractor, ClipFeatures) and extractor.scorer is self.models.clip
        return extractor.of_embeddings(self.embeddings) if shares_clip else extractor.features(self.frames)

    @cached_property
    def scene(self) -> dict[str, np.ndarray]:
        """Probabilities of the scene classifier, (classes,) for each attribute."""
        return self.models.scene_classifier.classify(self.frames)


@dataclass(frozen=True)
class ClipMeasurements:
    """What is kept of a clip: values of metrics by label, and the vectors that metrics of a set are computed from."""

    metrics: dict[str, float]
    vectors: dict[str, np.ndarray]

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        values = np.array(list(self.metrics.values()), np.float64)
        with path.open("wb") as file:
            np.savez(file, labels=np.array(list(self.metrics)), values=values, **self.vectors)

    @classmethod
    def load(cls, path: Path) -> "ClipMeasurements":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            vectors = dict(stored)
        metrics = dict(zip(vectors.pop("labels").tolist(), vectors.pop("values").tolist(), strict=True))
        return cls(metrics, vectors)


def measure_clip(clip: MeasuredClip, metrics: Sequence[Metric] | None = None) -> ClipMeasurements:
    """Compute the metrics of one clip; those that need something it lacks are left out.

    Args:
        clip: Frames with the models, and what is known about them.
        metrics: Metrics to measure; the default ones if None.

    Raises:
        ValueError: Too few frames, an image of another aspect ratio, or an unknown label.
    """
    extractor = clip.models.extractor
    if len(clip.frames) < extractor.min_frames:
        raise ValueError(
            f"a clip must have at least {extractor.min_frames} frames for {extractor.name}, got {len(clip.frames)}."
        )
    found = ClipMeasurements({}, {})
    for metric in select_metrics() if metrics is None else metrics:
        if metric.of_clip is None or not all(map(clip.has, metric.needs)):
            continue
        if not isinstance(metric, SetMetric):
            found.metrics[metric.label(clip.models)] = float(metric.of_clip(clip))
        elif metric.vector not in found.vectors:
            found.vectors[metric.vector] = metric.of_clip(clip)
    return found


def summarize(
    measurements: Sequence[ClipMeasurements],
    models: MetricModels,
    num_frames: int,
    groups: Sequence[int] | None = None,
    reference: Sequence[ClipMeasurements] | None = None,
    seed: int = 0,
    metrics: Sequence[Metric] | None = None,
) -> dict[str, MetricValue]:
    """Summarize the measurements of a system, with 95 % intervals.

    A mean has a percentile bootstrap. Distances between distributions are biased by drawing with replacement, so
    theirs is the value plus and minus 1.96 standard deviations of the draws; the reference is drawn as well.

    Args:
        measurements: One for each clip of the system, in order.
        models: The models that they were made with.
        num_frames: Frames of a clip; part of the labels of FVD and KVD.
        groups: Any number for the prompt of each clip. Clips of one prompt resemble each other, so they are drawn
            together; by default each clip is a group of its own.
        reference: Measurements of true clips, for FVD and KVD.
        seed: Seed of the draws.
        metrics: Metrics of a set to compute; the default metrics if None.

    Returns:
        Values by label. A metric that some clips lack, or that there are too few clips for, is left out.
    """
    numbers = np.arange(len(measurements)) if groups is None else np.asarray(groups)
    rows = [np.flatnonzero(numbers == group) for group in dict.fromkeys(numbers.tolist())]
    values = {}
    for label in measurements[0].metrics:
        if all(label in one.metrics for one in measurements):
            column = np.array([one.metrics[label] for one in measurements])
            interval = bootstrap(mean, np.array([column[group].mean() for group in rows]), seed=seed)
            ends = (interval.low, interval.high) if len(rows) > 1 else (None, None)
            values[label] = metric_value(label, float(column.mean()), *ends)
    for metric in select_metrics() if metrics is None else metrics:
        # A metric without a reference draws from its own clips in its place, and ignores them.
        sides = (measurements, reference if "reference" in metric.needs else measurements)
        if not isinstance(metric, SetMetric) or not all(_has_enough(side, metric) for side in sides):
            continue
        vectors = [np.stack([one.vectors[metric.vector] for one in side]) for side in sides]
        value, margin = _spread(partial(metric.of_set, models=models), rows, *vectors, seed)
        low, high = np.clip((value - margin, value + margin), *metric.bounds)
        label = metric.label(models, num_frames)
        values[label] = metric_value(label, value, float(low), float(high))
    return values


def spread_in_words() -> str:
    """Say how `summarize` computes intervals, for the protocol."""
    return (
        f"95 %: percentile bootstrap over prompts ({RESAMPLES} draws) for means; the value plus and minus "
        f"{DEVIATIONS} standard deviations of {SET_RESAMPLES} draws of clips and reference for metrics of a set"
    )


def _has_enough(side: Sequence[ClipMeasurements] | None, metric: SetMetric) -> bool:
    return side is not None and len(side) >= metric.min_clips and all(metric.vector in one.vectors for one in side)


def _spread(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    rows: Sequence[np.ndarray],
    columns: np.ndarray,
    reference: np.ndarray,
    seed: int,
) -> tuple[float, float]:
    """The statistic, and 1.96 standard deviations of it under resampling of groups and of the reference."""
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(SET_RESAMPLES):
        drawn = np.concatenate([rows[group] for group in random.integers(len(rows), size=len(rows))])
        draws.append(statistic(columns[drawn], reference[random.integers(len(reference), size=len(reference))]))
    return statistic(columns, reference), DEVIATIONS * float(np.std(draws, ddof=1))
