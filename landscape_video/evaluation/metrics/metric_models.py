"""Hold the models that metrics use, and what they see in one clip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from landscape_video.evaluation.metrics.clip_scorer import ClipScorer
from landscape_video.evaluation.metrics.motion_metrics import (
    CAMERA_DIRECTIONS,
    CameraMotion,
    MotionMeasurements,
    fit_camera,
    measure_flow,
)
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, label_index
from landscape_video.evaluation.metrics.video_features import ClipFeatures, I3DFeatures, VideoClassifier


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
        lines = {"CLIP": self.clip.description}
        if self.clip_sim is not None:
            lines["CLIP-SIM"] = self.clip_sim.description
        lines["FVD and KVD"] = self.extractor.description
        if self.classifier is not None:
            lines["IS"] = self.classifier.description
        lines["optical flow"] = "OpenCV DIS, preset medium, gray frames at the clips' own size"
        if self.scene_classifier is not None:
            lines["scene classifier"] = self.scene_classifier.description
        return lines


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
