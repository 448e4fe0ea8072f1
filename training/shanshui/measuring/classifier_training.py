"""Train the scene classifier of `landscape_video.evaluation` on rendered frames, and check it on held-out clips.

What an autoencoder does to an image must not look like another motif to the classifier. Frames are therefore blurred,
tinted and made noisy in training, and some of them are reconstructions by that autoencoder.
"""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from landscape_video.evaluation.metrics.scene_classifier import (
    ABSENT,
    ANY,
    SceneClassifier,
    label_index,
    shrink,
    to_pixels,
)
from landscape_video.files import hash_chunks, write_json
from shanshui.renderer.scene import LIGHTS, PALETTES, WATERS, Scene


logger = logging.getLogger(__name__)

PRESENCE = (ABSENT, ANY)  # a frame shows that a boat is there, not where it moves
ATTRIBUTES = {
    "palette": PALETTES,
    "water": WATERS,
    "boat": PRESENCE,
    "mist": PRESENCE,
    "birds": PRESENCE,
    "trees": (ABSENT, "pines"),
    "light": LIGHTS,
    "waterfall": PRESENCE,
    "pavilion": PRESENCE,
}
MOTIFS = tuple(ATTRIBUTES)[1:]
RECONSTRUCTED_FRAMES = 600  # of the training frames
LOGGING_STEPS = 50


def labels_of(scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
    """The right classes, (scenes,) int64 for each attribute."""
    return {
        name: np.array([label_index(classes, getattr(scene, name)) for scene in scenes], np.int64)
        for name, classes in ATTRIBUTES.items()
    }


def get_classifier(
    clips: np.ndarray, scenes: Sequence[Scene], vae: AutoencoderKL, folder: Path, steps: int, device: str
) -> SceneClassifier:
    """Load `folder`/classifier.safetensors, or train it again if its training clips or the autoencoder have changed.

    Args:
        clips: uint8 (clips, num_frames, height, width, 3); more than there are scenes if rendering was stopped.
        scenes: What the clips show.
        vae: Autoencoder that reconstructs some of the training frames.
        folder: Folder of the classifier and its log.
        steps: Training steps.
        device: Device to train on.
    """
    folder.mkdir(exist_ok=True)
    ends = hash_chunks([clips[0].tobytes(), clips[len(scenes) - 1].tobytes()])
    weights = vae.state_dict().items()
    # In half precision, so that the hash is the same before and after the weights are exported.
    autoencoder = hash_chunks(name.encode() + tensor.half().cpu().numpy().tobytes() for name, tensor in weights)[:12]
    key = {"clips": len(scenes), "their_ends": ends, "steps": steps, "autoencoder": autoencoder}
    key["attributes"] = {name: list(classes) for name, classes in ATTRIBUTES.items()}
    made_of, file = folder / "made_of.json", folder / "classifier.safetensors"
    if made_of.exists() and json.loads(made_of.read_text()) == key:
        return SceneClassifier.load(file, device)
    logger.info("training the classifier on frames of %d rendered clips", len(scenes))
    frames, rows = training_frames(clips, vae, len(scenes))
    labels = {name: values[rows] for name, values in labels_of(scenes).items()}
    classifier = train_classifier(frames, labels, folder / "log.jsonl", steps=steps, device=device)
    classifier.save(file)
    write_json(made_of, key)
    return classifier


def training_frames(clips: np.ndarray, vae: AutoencoderKL, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of each of `count` clips and some reconstructions, shrunk, and the clip that each comes from."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(clips.shape[1], size=count)
    pairs = [shrink(clips[row, [first, first - clips.shape[1] // 2]]) for row, first in enumerate(firsts)]
    rebuilt = rng.permutation(count)[:RECONSTRUCTED_FRAMES]
    frames = np.stack([clips[row, rng.integers(clips.shape[1])] for row in rebuilt])
    rows = np.concatenate([np.arange(count).repeat(2), rebuilt])
    return np.concatenate([*pairs, shrink(reconstruct(vae, frames))]), rows


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
        frames: uint8 (count, height, width, 3), see `shrink`.
        labels: The right classes, (count,) for each attribute.
        log_path: File that gets one JSON line with the losses of the heads every 50 steps.
        steps: Steps of AdamW with a one-cycle learning rate.
        batch_size: Frames in a step.
        learning_rate: Its highest value.
        device: Device to train on.
        seed: Seed of the weights, the batches and the disturbances.

    Returns:
        The classifier in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SceneClassifier(ATTRIBUTES).to(device).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    targets = {name: torch.from_numpy(values).to(device) for name, values in labels.items()}
    with open(log_path, "w") as log:
        for step in range(1, steps + 1):
            done = step / steps
            optimizer.param_groups[0]["lr"] = learning_rate * min(done / 0.15, 0.5 + 0.5 * math.cos(math.pi * done))
            chosen = torch.randint(len(frames), (batch_size,), generator=generator)
            logits = model(disturb(to_pixels(frames[chosen.numpy()], device), generator))
            losses = {name: F.cross_entropy(logits[name], targets[name][chosen.to(device)]) for name in ATTRIBUTES}
            sum(losses.values()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % LOGGING_STEPS == 0 or step == steps:
                line = {"step": step} | {name: round(loss.item(), 4) for name, loss in losses.items()}
                print(json.dumps(line), file=log, flush=True)
    return model.eval().requires_grad_(False)


def disturb(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, blur, tint and add noise: nothing that changes what a frame shows."""
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


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames: np.ndarray, chunk_size: int = 8) -> np.ndarray:
    """Encode and decode uint8 frames (count, height, width, 3)."""
    parts = []
    for start in range(0, len(frames), chunk_size):
        pixels = torch.from_numpy(np.array(frames[start : start + chunk_size])).to(vae.device)
        latents = vae.encode(pixels.permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1).latent_dist.mean
        decoded = vae.decode(latents).sample.float().clamp(-1, 1)
        parts.append(((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)
