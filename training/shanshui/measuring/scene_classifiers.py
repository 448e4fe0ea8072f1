"""A small image classifier that names what a rendered frame shows: the judge of what a generated clip shows.

One convolutional trunk and one linear head per attribute, trained on rendered frames. What an autoencoder does to a
picture must not look like another motif to it: frames are blurred, tinted and made noisy in training, and a part of
them may be reconstructions by that autoencoder. Its word counts for an attribute only where it is right on at least
`VALID_FROM` of held-out rendered clips.
"""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shanshui.renderer.scene import CHOICES, Scene


logger = logging.getLogger(__name__)

HEADS = ("palette", "water", "boat", "mist", "birds", "trees", "light", "waterfall", "pavilion")
MOTIFS = HEADS[1:]
DIRECTED = ("boat", "mist", "birds")  # a frame shows that they are there, not where they move
VALID_FROM = 0.9
SIZE = 64  # pixels; every motif of the tiny family is seen at this size, and blur matters less
FRAMES_PER_CLIP = 4


class SceneClassifier(nn.Module):
    """Logits for each of `HEADS` from frames (batch, 3, height, width) in [0, 1]; index 0 of a motif is absence."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
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
        self.heads = nn.ModuleDict({name: nn.Linear(2 * channels[-1], len(choices_of(name))) for name in HEADS})

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        features = self.trunk(F.interpolate(frames, (SIZE, SIZE), mode="area") * 2 - 1)
        # The mean tells of washes (mist, palette), the maximum of single small things (boat, birds).
        features = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return {name: head(features) for name, head in self.heads.items()}


def choices_of(name: str) -> tuple:
    """What a head tells apart."""
    return (False, True) if name in DIRECTED else ("none", "pines") if name == "trees" else CHOICES[name]


def label_of(scene: Scene, name: str) -> int:
    """Index of the right answer in `choices_of(name)`."""
    value = getattr(scene, name)
    return choices_of(name).index(value != "none" if name in DIRECTED else value)


def labels_of(scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
    """The right answers, (scenes,) int64 for each head."""
    return {name: np.array([label_of(scene, name) for scene in scenes], np.int64) for name in HEADS}


def shrink(frames: np.ndarray) -> np.ndarray:
    """uint8 frames (count, height, width, 3) at the classifier's own size."""
    return np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames])


def sampled_frames(clip: np.ndarray) -> np.ndarray:
    """`FRAMES_PER_CLIP` frames spread over a clip (num_frames, height, width, 3)."""
    return clip[np.linspace(0, len(clip) - 1, FRAMES_PER_CLIP).round().astype(int)]


@torch.no_grad()
def classify_clips(model: SceneClassifier, clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities (clips, choices) for each head, the logits averaged over a few frames of each clip.

    `clips` are uint8, (num_frames, height, width, 3) each.
    """
    device = next(model.parameters()).device
    rows: dict[str, list[np.ndarray]] = {name: [] for name in HEADS}
    for clip in clips:
        logits = model.eval()(to_pixels(shrink(sampled_frames(clip)), device))
        for name, row in rows.items():
            row.append(logits[name].double().mean(0).softmax(0).cpu().numpy())
    return {name: np.stack(row) for name, row in rows.items()}


def to_pixels(frames: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (count, height, width, 3) to float (count, 3, height, width) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float() / 255


def disturb(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, blur, tint and add noise: all that leaves what a frame shows as it is."""
    count, device = len(frames), frames.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device)

    frames = torch.where(draw(count, 1, 1, 1) < 0.5, frames.flip(3), frames)
    sigma = 0.1 + 1.1 * float(draw(1))
    taps = torch.exp(-(torch.arange(-3, 4, device=device) ** 2) / (2 * sigma**2))
    kernel = (taps / taps.sum()).expand(3, 1, 1, 7)
    blurred = F.conv2d(F.pad(frames, (3, 3, 3, 3), mode="reflect"), kernel, groups=3)
    blurred = F.conv2d(blurred, kernel.transpose(2, 3), groups=3)
    frames = torch.where(draw(count, 1, 1, 1) < 0.6, blurred, frames)
    gain, shift = 0.92 + 0.16 * draw(count, 3, 1, 1), 0.06 * draw(count, 3, 1, 1) - 0.03
    noise = 0.03 * draw(count, 1, 1, 1) * torch.randn(frames.shape, generator=generator).to(device)
    return frames * gain + shift + noise


def train_classifier(
    frames: np.ndarray,
    labels: dict[str, np.ndarray],
    log_path: Path,
    steps: int = 700,
    batch_size: int = 48,
    learning_rate: float = 3e-3,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> SceneClassifier:
    """Train on single frames.

    Args:
        frames: uint8 (count, SIZE, SIZE, 3), see `shrink`.
        labels: the right answers, (count,) for each head.
        log_path: gets one JSON line with the losses of the heads every 50 steps.
        steps: of AdamW with a one-cycle learning rate.
        batch_size: frames in a step.
        learning_rate: its highest value.
        device: to train on.
        seed: of the weights, of the batches and of the disturbances.

    Returns:
        The classifier in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SceneClassifier().to(device).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    targets = {name: torch.from_numpy(values).to(device) for name, values in labels.items()}
    with open(log_path, "w") as log:
        for step in range(steps):
            done = (step + 1) / steps
            optimizer.param_groups[0]["lr"] = learning_rate * min(done / 0.15, 0.5 + 0.5 * math.cos(math.pi * done))
            chosen = torch.randint(len(frames), (batch_size,), generator=generator)
            logits = model(disturb(to_pixels(frames[chosen.numpy()], device), generator))
            losses = {name: F.cross_entropy(logits[name], targets[name][chosen.to(device)]) for name in HEADS}
            sum(losses.values()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if (step + 1) % 50 == 0 or step + 1 == steps:
                line = {"step": step + 1} | {name: round(loss.item(), 4) for name, loss in losses.items()}
                log.write(json.dumps(line) + "\n")
                log.flush()
    return model.eval().requires_grad_(False)


def save_classifier(model: SceneClassifier, path: Path) -> None:
    save_file({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, path)


def load_classifier(path: Path, device: torch.device | str = "cpu") -> SceneClassifier:
    model = SceneClassifier()
    model.load_state_dict(load_file(path))
    return model.to(device).eval().requires_grad_(False)
