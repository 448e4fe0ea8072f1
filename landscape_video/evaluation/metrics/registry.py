"""The list of metrics. To add one, add an entry to `METRICS`:

    Metric(
        "brightness", unit="of 255", note="Mean gray level of all frames.",
        of_clip=lambda clip: clip.frames.mean(),
    ),

`landscape-video evaluate` then measures it on every clip and gives the mean with a 95 % interval. Tables and report
pages show it with its direction, unit and note. `of_clip` receives a `MeasuredClip`, through which all metrics share
CLIP embeddings, optical flow and the fitted camera. A metric of a whole set of clips is a `SetMetric`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from landscape_video.evaluation.metrics.clip_metrics import clip_temp, clip_text, fff_clip, fff_ssim, frame_consistency
from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance, inception_score, polynomial_mmd
from landscape_video.evaluation.metrics.intervals import balanced_accuracy
from landscape_video.evaluation.metrics.motion_metrics import CAMERA_DIRECTIONS
from landscape_video.evaluation.results import MetricValue


# Reports need names and notes only, and must not wait for torch.
if TYPE_CHECKING:
    from landscape_video.evaluation.metrics.measurements import MeasuredClip, MetricModels


REVISION = 1  # increase it when a metric is computed differently, so that stored measurements are not reused
SPLITS = 10  # of the inception score, as in the literature

# Inputs that a metric may need besides frames, in the words of the protocol.
NEEDS = {
    "prompt": "a prompt",
    "image": "the image that it was made from",
    "camera label": "a camera label",
    "palette label": "a palette label, and a classifier that is valid for it",
    "motif labels": "labels of all motifs that the classifier is valid for",
    "reference": "--reference",
    "clip_sim": "--clip-sim",
    "classifier": "--video-classifier",
    "scene_classifier": "--scene-classifier",
}


@dataclass(frozen=True)
class Metric:
    """A metric of one clip: its name, unit and meaning, what it needs, and how it is computed.

    Args:
        name: Name in tables; a label may continue it, as in "CLIP-temp[shanshui-clip]".
        better: "higher", "lower", or None where neither is better in itself.
        unit: Unit of the value, "" for none.
        note: What it means, for readers who do not know it.
        needs: Keys of `NEEDS`. A clip that lacks one of them is not measured.
        weights: Attribute of `MetricModels` that the value depends on; its name follows in brackets.
        of_clip: Computes the value; None for numbers that are measured elsewhere and only shown here.
        is_default: False to measure it only if `--metrics` names it.
    """

    name: str
    better: str | None = None
    unit: str = ""
    note: str = ""
    needs: tuple[str, ...] = ()
    weights: str = ""
    of_clip: "Callable[[MeasuredClip], float | np.ndarray] | None" = None
    is_default: bool = True

    def label(self, models: "MetricModels", num_frames: int = 0) -> str:
        """The name in a table. A distance to a reference depends on the clips' length, so it carries `num_frames`."""
        frames = num_frames if "reference" in self.needs else ""
        return f"{self.name}{frames}" + (f"[{getattr(models, self.weights).name}]" if self.weights else "")


@dataclass(frozen=True)
class SetMetric(Metric):
    """A metric of a whole set of clips. `of_clip` computes the vector that is stored for each clip.

    Args:
        vector: Name of that vector in stored measurements. Metrics with the same name share it.
        of_set: Computes the value from the vectors (clips, ...), those of the reference, and the models.
        min_clips: Fewest clips that it is computed for, in the set and in the reference.
        bounds: Smallest and largest possible value; its interval is clipped to them.
    """

    vector: str = ""
    of_set: "Callable[[np.ndarray, np.ndarray, MetricModels], float] | None" = None
    min_clips: int = 2
    bounds: tuple[float, float] = (-inf, inf)


METRICS: tuple[Metric, ...] = (
    Metric(
        "CLIP-temp",
        better="higher",
        note="How similar neighboring frames are: the mean cosine of their CLIP image embeddings. A still image "
        "scores 1, so read it together with the dynamic degree.",
        weights="clip",
        of_clip=lambda clip: clip_temp(clip.embeddings),
    ),
    Metric(
        "dynamic degree",
        unit="pixels a frame",
        note="How much moves: the mean length of the longest 5 % of optical flow vectors between neighboring frames. "
        "Neither more nor less is better in itself; a still image has 0.",
        of_clip=lambda clip: clip.motion.dynamic_degree,
    ),
    Metric(
        "frame consistency",
        better="higher",
        note="How similar all frames of a clip are, not only neighbors: the mean cosine of the CLIP image embeddings "
        "over all pairs of frames.",
        weights="clip",
        of_clip=lambda clip: frame_consistency(clip.embeddings),
    ),
    Metric(
        "CLIP-text",
        better="higher",
        note="How well the frames match the prompt: the mean of 100 times the cosine between the CLIP embeddings of "
        "frame and prompt.",
        needs=("prompt",),
        weights="clip",
        of_clip=lambda clip: clip_text(clip.embeddings, clip.models.clip.texts([clip.prompt])[0]),
    ),
    Metric(
        "CLIP-SIM",
        better="higher",
        note="How well the frames match the prompt: CLIP-text under the name that DreamVideo gives it.",
        needs=("prompt", "clip_sim"),
        weights="clip_sim",
        of_clip=lambda clip: clip_text(
            clip.models.clip_sim.frames(clip.frames), clip.models.clip_sim.texts([clip.prompt])[0]
        ),
    ),
    Metric(
        "FFF-CLIP",
        better="higher",
        note="How faithful the first frame is to the input image: the cosine of their CLIP image embeddings.",
        needs=("image",),
        weights="clip",
        of_clip=lambda clip: fff_clip(clip.embeddings, clip.models.clip.frames([clip.image])[0]),
    ),
    Metric(
        "FFF-SSIM",
        better="higher",
        note="How faithful the first frame is to the input image: their structural similarity.",
        needs=("image",),
        of_clip=lambda clip: fff_ssim(clip.frames, clip.image),
    ),
    Metric(
        "flicker",
        better="lower",
        unit="of 255",
        note="How much pixels change from frame to frame: the mean absolute difference. Motion raises it as well.",
        of_clip=lambda clip: clip.motion.flicker,
    ),
    Metric(
        "flicker beyond flow",
        better="lower",
        unit="of 255",
        note="How much pixels change from frame to frame where motion does not explain it: the mean absolute "
        "difference after each frame was warped along the optical flow.",
        of_clip=lambda clip: clip.motion.unexplained_flicker,
    ),
    SetMetric(
        "FVD",
        better="lower",
        note="Fréchet distance between the generated and the reference clips: how far apart the means and spreads of "
        "their features are. It falls with the number of clips, so compare equal numbers only.",
        needs=("reference",),
        weights="extractor",
        of_clip=lambda clip: clip.features,
        vector="features",
        of_set=lambda ours, reference, models: frechet_distance(ours, reference, models.extractor.ddof),
        bounds=(0, inf),
    ),
    SetMetric(
        "KVD",
        better="lower",
        note="Distance between the generated and the reference clips: the maximum mean discrepancy of their features "
        "under a polynomial kernel. Around 0, also slightly below, where the two cannot be told apart.",
        needs=("reference",),
        weights="extractor",
        of_clip=lambda clip: clip.features,
        vector="features",
        of_set=lambda ours, reference, models: polynomial_mmd(ours, reference),
    ),
    SetMetric(
        "IS",
        better="higher",
        note="Inception score of a video classifier: high where each clip clearly belongs to one class and the clips "
        "together belong to many.",
        needs=("classifier",),
        weights="classifier",
        of_clip=lambda clip: clip.models.classifier.logits(clip.frames),
        vector="logits",
        of_set=lambda ours, reference, models: inception_score(ours, SPLITS),
        min_clips=SPLITS,
        bounds=(1, inf),
    ),
    Metric(
        "camera accuracy",
        better="higher",
        note="Share of clips whose camera, fitted to optical flow, goes where the prompt says.",
        needs=("camera label",),
        of_clip=lambda clip: CAMERA_DIRECTIONS.index(clip.camera.direction) == clip.label_index("camera"),
        is_default=False,
    ),
    Metric(
        "camera pan",
        unit="% of the width a frame",
        note="How far the camera, fitted to optical flow, makes the content move to the right. Negative to the left.",
        of_clip=lambda clip: 100 * clip.camera.pan,
        is_default=False,
    ),
    Metric(
        "camera zoom",
        unit="% a frame",
        note="By how much the camera, fitted to optical flow, magnifies the content. Negative where it shrinks.",
        of_clip=lambda clip: 100 * clip.camera.zoom,
        is_default=False,
    ),
    Metric(
        "palette accuracy",
        better="higher",
        note="Share of clips in which a scene classifier sees the palette that the prompt asks for.",
        needs=("scene_classifier", "palette label"),
        weights="scene_classifier",
        of_clip=lambda clip: int(clip.scene["palette"].argmax()) == clip.label_index("palette"),
        is_default=False,
    ),
    SetMetric(
        "motif accuracy",
        better="higher",
        note="Mean over motifs of two shares: clips in which a scene classifier sees the motif where the prompt asks "
        "for it, and clips in which it does not where the prompt does not. Guessing reaches 0.5.",
        needs=("scene_classifier", "motif labels"),
        weights="scene_classifier",
        of_clip=lambda clip: np.array(
            [(clip.label_index(name) > 0, clip.scene[name][0] < 0.5) for name in clip.models.scene_classifier.motifs]
        ),
        vector="motifs",
        of_set=lambda ours, reference, models: float(balanced_accuracy(ours[None, ..., 0], ours[None, ..., 1])[0]),
        bounds=(0, 1),
        is_default=False,
    ),
    # Measured elsewhere: by the benchmarks and while clips are generated.
    Metric(
        "diffusion loss",
        better="lower",
        note="How far the predicted noise is from the true noise on held-out clips: the mean squared error. It needs "
        "no sampling, and separates models long before their clips differ.",
    ),
    Metric("training time", unit="minutes", note="Duration of the training steps on the machine in the protocol."),
    Metric(
        "PSNR",
        better="higher",
        unit="dB",
        note="How close interpolated frames are to the held-out true ones: peak signal-to-noise ratio.",
    ),
    Metric(
        "SSIM",
        better="higher",
        note="How close interpolated frames are to the held-out true ones: structural similarity.",
    ),
    Metric(
        "seconds per clip",
        better="lower",
        unit="s",
        note="Wall-clock time for one clip on the machine in the protocol.",
    ),
    Metric(
        "peak memory",
        better="lower",
        unit="GiB",
        note="The most memory in use while a clip was made, in GiB (2^30 bytes).",
    ),
)


_BRACKETS = (
    "Square brackets name the model or the weights that the number was computed with. Published values of FVD and KVD "
    "use I3D; published values of CLIP metrics use OpenAI's ViT-L/14 or ViT-B/32. Compare only where the brackets "
    "agree."
)
_SHANSHUI_CLIP = (
    "The small CLIP bundled with this package, trained on rendered landscapes. It needs no download. Its numbers "
    "compare the systems on this page with each other, and with nothing that was published."
)


def find_metric(label: str) -> Metric | None:
    """Find the metric whose name begins a label, the longest of several; None for an unknown label."""
    names = [metric for metric in METRICS if label.lower().startswith(metric.name.lower())]
    return max(names, key=lambda metric: len(metric.name), default=None)


def metric_value(label: str, value: float, low: float | None = None, high: float | None = None) -> MetricValue:
    """Return a value with its interval, and the direction and unit of its metric."""
    metric = find_metric(label) or Metric(label)
    return MetricValue(value, low, high, metric.better, metric.unit)


def select_metrics(names: Sequence[str] = ("default",)) -> tuple[Metric, ...]:
    """Select metrics by name, in the order of `METRICS`.

    Args:
        names: Names or beginnings of names, such as "camera" for "camera accuracy", "camera pan" and "camera zoom";
            case does not matter, and a hyphen may stand for a space. "default" stands for the default metrics.

    Raises:
        ValueError: No metric has that name.
    """
    chosen = set()
    for name in names:
        plain = name.strip().lower().replace("-", " ")
        found = {
            metric.name
            for metric in METRICS
            if metric.of_clip is not None
            and (metric.is_default if plain == "default" else metric.name.lower().replace("-", " ").startswith(plain))
        }
        if not found or not plain:
            known = ", ".join(metric.name for metric in METRICS if metric.of_clip is not None)
            raise ValueError(f"`metrics` must be names of metrics, got {name!r}. Choose from default, {known}.")
        chosen |= found
    return tuple(metric for metric in METRICS if metric.name in chosen)


def explain(labels: Sequence[str]) -> dict[str, str]:
    """Explain labels: the note of each metric among them, and of the square brackets that occur."""
    notes = {}
    for label in labels:
        if metric := find_metric(label):
            notes[label.partition("[")[0].strip()] = metric.note
    brackets = [label[label.index("[") :] for label in labels if "[" in label]
    if brackets:
        notes["[…]"] = _BRACKETS
    if "[shanshui-clip]" in brackets:
        notes["[shanshui-clip]"] = _SHANSHUI_CLIP
    return notes
