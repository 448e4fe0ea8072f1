"""Classify what the frames of a clip show: palette, water, boat and so on, with one linear head per attribute.

The classifier comes as one file, weights and the names of its classes. `training/shanshui/measure.py` trains it on
rendered frames and writes it; `landscape-video evaluate --scene-classifier FILE` uses it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from landscape_video.evaluation.metrics.weights import hash_weights


SIZE = 64  # pixels; large enough for every motif of the tiny family, and small enough that blur matters little
FRAMES_PER_CLIP = 4
ABSENT, ANY = (
    "none",
    "any",
)  # the first class of a motif, and the class of every other label where only presence counts


class SceneClassifier(nn.Module):
    """A small convolutional network with one head per attribute.

    Args:
        attributes: Names of the classes of each attribute. Attributes whose first class is "none" are motifs, which
            are there or not.
        valid: Attributes that were right often enough on held-out clips; all of them by default.
        width: Channels of the first layer.
    """

    name, sha256 = "scene classifier", ""

    def __init__(
        self, attributes: Mapping[str, Sequence[str]], valid: Sequence[str] | None = None, width: int = 16
    ) -> None:
        super().__init__()
        self.attributes = {name: tuple(classes) for name, classes in attributes.items()}
        self.valid = tuple(attributes if valid is None else valid)
        channels = (3, width, 2 * width, 4 * width, 4 * width)
        strides, kernels = (2, 2, 2, 1), (5, 3, 3, 3)
        layers = []
        for i in range(4):
            layers += [
                nn.Conv2d(channels[i], channels[i + 1], kernels[i], strides[i], kernels[i] // 2, bias=False),
                nn.BatchNorm2d(channels[i + 1]),
                nn.ReLU(inplace=True),
            ]
        self.trunk = nn.Sequential(*layers)
        heads = {name: nn.Linear(2 * channels[-1], len(classes)) for name, classes in self.attributes.items()}
        self.heads = nn.ModuleDict(heads)

    @property
    def motifs(self) -> tuple[str, ...]:
        """The valid attributes that are there or not."""
        return tuple(name for name in self.valid if self.attributes[name][0] == ABSENT)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Logits (batch, classes) of each attribute, from frames (batch, 3, height, width) in [0, 1]."""
        features = self.trunk(F.interpolate(frames, (SIZE, SIZE), mode="area") * 2 - 1)
        # The mean tells washes (mist, palette), the maximum tells single small things (boat, birds).
        features = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def classify(self, clip: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities (classes,) of each attribute for a clip, uint8 (num_frames, height, width, 3).

        Logits are averaged over `FRAMES_PER_CLIP` frames.
        """
        device = next(self.parameters()).device
        logits = self.eval()(to_pixels(shrink(sampled_frames(clip)), device))
        return {name: rows.double().mean(0).softmax(0).cpu().numpy() for name, rows in logits.items()}

    @property
    def description(self) -> str:
        """Name, hash of the weights, preprocessing and valid attributes, for the protocol."""
        frames = f"{FRAMES_PER_CLIP} frames evenly spaced, {SIZE} x {SIZE}"
        return f"{self.name}, sha256 {self.sha256}, {frames}, valid for {', '.join(self.valid) or 'nothing'}"

    def save(self, path: Path) -> None:
        """Write weights and names of the classes as safetensors."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        names = json.dumps({"attributes": self.attributes, "valid": self.valid})
        save_file(tensors, path, metadata={"scene_classifier": names})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """Read what `save` wrote; the classifier is called by the file's name.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: It is not a scene classifier.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file.")
        try:
            with safe_open(path, framework="pt") as file:
                model = cls(**json.loads(file.metadata()["scene_classifier"]))
                model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: not a scene classifier; `training/shanshui/measure.py` writes one.") from error
        model.name, model.sha256 = Path(path).stem, hash_weights(path)
        return model.to(device).eval().requires_grad_(False)


def label_index(classes: Sequence[str], label: object) -> int:
    """Index of a label among the classes of an attribute.

    False means "none", and every label that is not a class belongs to "any", where there is such a class.

    Raises:
        ValueError: The label is not a class, and there is no "any".
    """
    name = ABSENT if label is False else label
    name = ANY if name not in classes and ANY in classes else name
    if name not in classes:
        raise ValueError(f"a label must be one of {', '.join(classes)}, got {label!r}.")
    return classes.index(name)


def sampled_frames(clip: np.ndarray) -> np.ndarray:
    """`FRAMES_PER_CLIP` frames, evenly spaced over a clip (num_frames, height, width, 3)."""
    return clip[np.linspace(0, len(clip) - 1, FRAMES_PER_CLIP).round().astype(int)]


def shrink(frames: np.ndarray) -> np.ndarray:
    """Resize uint8 frames (count, height, width, 3) to the classifier's own size."""
    return np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames])


def to_pixels(frames: np.ndarray, device: torch.device) -> Tensor:
    """Convert uint8 frames (count, height, width, 3) to float (count, 3, height, width) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float() / 255
