"""All metrics of a set of clips: each clip is seen once, what is left of it is a few numbers and vectors.

`Measurers.measure` looks at one clip, `summarize` makes the figures of a system from what it found. The definitions
stand in `clip_metrics.py`, `motion_metrics.py` and `distribution_metrics.py`; weights and preprocessing, which decide
the numbers as much, are in `Measurers.protocol`, and the weights' name is in every label, as in
`FVD16[shanshui-clip]`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landscape_video.evaluation.metrics.clip_metrics import (
    ClipScorer,
    clip_temp,
    clip_text,
    fff_clip,
    fff_ssim,
    frame_consistency,
)
from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance, inception_score, polynomial_mmd
from landscape_video.evaluation.metrics.intervals import RESAMPLES, bootstrap, mean
from landscape_video.evaluation.metrics.motion_metrics import measure_flow
from landscape_video.evaluation.metrics.video_features import (
    ClipFeatures,
    FeatureExtractor,
    I3DFeatures,
    VideoClassifier,
)
from landscape_video.evaluation.results import Metric


DEFINITIONS = 1  # goes up when a metric is defined anew, so that figures of before are measured again
SPLITS = 10  # of the inception score
DISTRIBUTION_RESAMPLES = 100  # a Frechet distance takes longer than a mean
SPREAD = 1.96  # standard deviations that hold 95 % of a normal distribution

# What a label begins with, whether higher or lower is better, and the unit.
DIRECTIONS = {
    "CLIP-temp": ("higher", ""),
    "frame consistency": ("higher", ""),
    "CLIP-text": ("higher", ""),
    "CLIP-SIM": ("higher", ""),
    "FFF-CLIP": ("higher", ""),
    "FFF-SSIM": ("higher", ""),
    "dynamic degree": (None, "pixels a frame"),
    "flicker": ("lower", "of 255"),
    "flicker beyond flow": ("lower", "of 255"),
    "FVD": ("lower", ""),
    "KVD": ("lower", ""),
    "IS": ("higher", ""),
}


@dataclass(frozen=True)
class ClipFigures:
    """What is left of a clip: `metrics` by label, and the vectors `features` and, with a classifier, `logits`."""

    metrics: Mapping[str, float]
    vectors: Mapping[str, np.ndarray]

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        labels = np.array(list(self.metrics))
        with path.open("wb") as file:
            np.savez(file, labels=labels, values=np.array(list(self.metrics.values()), np.float64), **self.vectors)

    @classmethod
    def load(cls, path: Path) -> "ClipFigures":
        """What `save` wrote."""
        with np.load(path) as stored:
            metrics = dict(zip(stored["labels"].tolist(), stored["values"].tolist(), strict=True))
            return cls(metrics, {name: stored[name] for name in stored.files if name not in ("labels", "values")})


@dataclass(frozen=True)
class Measurers:
    """The models that look.

    `clip` gives CLIP-temp, frame consistency, CLIP-text and FFF-CLIP, `clip_sim` gives CLIP-SIM, `features` the
    Frechet metrics, `classifier` the inception score. Without `features` those are made of `clip`.
    """

    clip: ClipScorer
    features: FeatureExtractor | None = None
    clip_sim: ClipScorer | None = None
    classifier: VideoClassifier | None = None

    @property
    def extractor(self) -> FeatureExtractor:
        """What gives the features of the Frechet metrics."""
        return self.features or ClipFeatures(self.clip)

    @classmethod
    def load(
        cls,
        clip: str | Path | None = None,
        clip_sim: str | Path | None = None,
        i3d: str | Path | None = None,
        i3d_preset: str = "stylegan-v",
        classifier: str | Path | None = None,
        device: str = "cpu",
    ) -> "Measurers":
        """From folders, files or names on the Hub; see the classes. What is None is left out, or shanshui-tiny's."""
        return cls(
            clip=ClipScorer(clip, device),
            features=None if i3d is None else I3DFeatures(i3d, i3d_preset, device),
            clip_sim=None if clip_sim is None else ClipScorer(clip_sim, device),
            classifier=None if classifier is None else VideoClassifier(classifier, device),
        )

    def measure(self, clip: np.ndarray, prompt: str | None = None, image: np.ndarray | None = None) -> ClipFigures:
        """Look at one clip.

        Args:
            clip: uint8 RGB (num_frames, height, width, 3), at least two frames, or as many as I3D needs.
            prompt: for CLIP-text and CLIP-SIM; without it they are left out.
            image: uint8 RGB (height, width, 3), what the clip was made from, for FFF-CLIP and FFF-SSIM.

        Raises:
            ValueError: too few frames, or an image of another aspect.
        """
        if len(clip) < self.extractor.min_frames:
            raise ValueError(f"has {len(clip)} frames, but {self.extractor.name} needs {self.extractor.min_frames}.")
        frames, motion, name = self.clip.frames(clip), measure_flow(clip), self.clip.name
        metrics = {f"CLIP-temp[{name}]": clip_temp(frames), "dynamic degree": motion.dynamic_degree}
        metrics[f"frame consistency[{name}]"] = frame_consistency(frames)
        if prompt is not None:
            metrics[f"CLIP-text[{name}]"] = clip_text(frames, self.clip.texts([prompt])[0])
        if prompt is not None and self.clip_sim is not None:
            text = self.clip_sim.texts([prompt])[0]
            metrics[f"CLIP-SIM[{self.clip_sim.name}]"] = clip_text(self.clip_sim.frames(clip), text)
        if image is not None:
            metrics[f"FFF-CLIP[{name}]"] = fff_clip(frames, self.clip.frames([image])[0])
            metrics["FFF-SSIM"] = fff_ssim(clip, image)
        metrics |= {"flicker": motion.flicker, "flicker beyond flow": motion.unexplained_flicker}
        extractor = self.extractor
        shared = isinstance(extractor, ClipFeatures) and extractor.scorer is self.clip
        vectors = {"features": extractor.of_embeddings(frames) if shared else extractor.features(clip)}
        if self.classifier is not None:
            vectors["logits"] = self.classifier.logits(clip)
        return ClipFigures(metrics, vectors)

    def protocol(self) -> dict[str, str]:
        """What the figures depend on besides the clips, one line of text for each measurer."""
        lines = {"CLIP": f"{self.clip.name}, sha256 {self.clip.sha256}, {self.clip.preprocessing}"}
        if self.clip_sim is not None:
            lines["CLIP-SIM"] = f"{self.clip_sim.name}, sha256 {self.clip_sim.sha256}, {self.clip_sim.preprocessing}"
        lines["FVD and KVD"] = self.extractor.description
        lines["IS"] = "not measured: needs a video classifier" if not self.classifier else self.classifier.description
        lines["optical flow"] = "OpenCV DIS, preset medium, grey frames at the clips' own size"
        return lines


def summarize(
    figures: Sequence[ClipFigures],
    measurers: Measurers,
    num_frames: int,
    groups: Sequence[int] | None = None,
    reference: Sequence[ClipFigures] | None = None,
    seed: int = 0,
) -> dict[str, Metric]:
    """The figures of a system, with their 95 % spread.

    Means of clips have a percentile bootstrap. Distances of distributions are biased by drawing with replacement, so
    theirs is the value and 1.96 standard deviations of the draws on both sides; the reference is drawn, too.

    Args:
        figures: of the system's clips, in order.
        measurers: that found them.
        num_frames: of a clip; stands in the names of FVD and KVD.
        groups: the prompt (any number) of each clip: clips of one prompt are drawn together, because they are alike;
            by default each clip stands for itself.
        reference: of true clips, for FVD and KVD, which need two clips a side.
        seed: of the draws.

    Returns:
        Metrics by label. Labels that some clips lack (no prompt, no picture) are left out, and so is the inception
        score of fewer clips than `SPLITS`.
    """
    rows = _rows_of_groups(range(len(figures)) if groups is None else groups)
    metrics = {}
    for label in (label for label in figures[0].metrics if all(label in one.metrics for one in figures)):
        values = np.array([one.metrics[label] for one in figures])
        interval = bootstrap(mean, np.array([values[group].mean() for group in rows]), seed=seed)
        low, high = (interval.low, interval.high) if len(rows) > 1 else (None, None)
        metrics[label] = _metric(label, float(values.mean()), low, high)
    features = np.stack([one.vectors["features"] for one in figures])
    if reference is not None and min(len(reference), len(figures)) > 1:
        name = measurers.extractor.name
        true = np.stack([one.vectors["features"] for one in reference])
        for label, distance, least in (
            ("FVD", lambda one, other: frechet_distance(one, other, measurers.extractor.ddof), 0.0),
            ("KVD", polynomial_mmd, None),
        ):
            value, spread = _spread(distance, rows, features, true, seed)
            low = value - spread if least is None else max(least, value - spread)
            metrics[f"{label}{num_frames}[{name}]"] = _metric(label, value, low, value + spread)
    if measurers.classifier is not None and len(figures) >= SPLITS:
        logits = np.stack([one.vectors["logits"] for one in figures])
        value, spread = _spread(lambda one, _: inception_score(one, SPLITS), rows, logits, logits, seed)
        label = f"IS[{measurers.classifier.name}]"
        metrics[label] = _metric(label, value, max(1.0, value - spread), value + spread)
    return metrics


def _metric(label: str, value: float, low: float | None, high: float | None) -> Metric:
    better, unit = DIRECTIONS[label.partition("[")[0].rstrip("0123456789")]
    return Metric(value, low, high, better, unit)


def _rows_of_groups(groups: Sequence[int]) -> list[np.ndarray]:
    groups = np.asarray(list(groups))
    return [np.flatnonzero(groups == group) for group in dict.fromkeys(groups.tolist())]


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
    for _ in range(DISTRIBUTION_RESAMPLES):
        drawn = np.concatenate([rows[group] for group in random.integers(len(rows), size=len(rows))])
        draws.append(statistic(columns[drawn], reference[random.integers(len(reference), size=len(reference))]))
    return statistic(columns, reference), SPREAD * float(np.std(draws, ddof=1))


def spread_in_words() -> str:
    """How `summarize` gets its spread, for the protocol."""
    return (
        f"95 %: percentile bootstrap over prompts ({RESAMPLES} draws) for means; the value and {SPREAD} standard "
        f"deviations of {DISTRIBUTION_RESAMPLES} draws of clips and reference for FVD, KVD and IS"
    )
