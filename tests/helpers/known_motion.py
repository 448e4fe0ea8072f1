"""Make clips with known motion, and flow estimators that return it, for the tests of interpolation."""

import numpy as np
import torch
import torch.nn.functional as F


HEIGHT, WIDTH = 40, 56


def picture(seed=0, size=200):
    """Return a smooth random image, (3, size, size) in [0, 1]."""
    coarse = torch.rand(1, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0].clamp(0, 1)


def pan(positions, seed=0, height=HEIGHT, width=WIDTH):
    """Return frames of an image whose content is shifted to the right by `positions` whole pixels."""
    scene = picture(seed)
    return torch.stack([scene[:, 50 : 50 + height, 100 - p : 100 - p + width] for p in positions])


class KnownFlow:
    """Flow estimator that returns the true flow between frames whose content has known positions, (x, y) or x."""

    def __init__(self, frames, positions):
        self.frames = frames
        self.positions = [position if isinstance(position, tuple) else (position, 0.0) for position in positions]
        self.pairs = []

    def index(self, frame):
        return next(i for i, known in enumerate(self.frames) if torch.equal(frame, known))

    def __call__(self, frames_a, frames_b):
        flows = []
        for frame_a, frame_b in zip(frames_a, frames_b, strict=True):
            a, b = self.index(frame_a), self.index(frame_b)
            self.pairs.append((a, b))
            shift = torch.tensor(self.positions[b]) - torch.tensor(self.positions[a])
            flows.append(shift.view(2, 1, 1).expand(2, *frame_a.shape[-2:]))
        return torch.stack(flows)


def square_clip(centers, size=64, half=8):
    """Return a clip of a bright square over a static image, and masks of the square, (frames, 1, size, size)."""
    background = picture(3)[:, :size, :size] * 0.5
    frames, masks = [], []
    for x in centers:
        mask = torch.zeros(1, size, size)
        mask[:, size // 2 - half : size // 2 + half, x - half : x + half] = 1
        frames.append(background * (1 - mask) + mask * torch.tensor([0.9, 0.8, 1.0]).view(3, 1, 1))
        masks.append(mask)
    return torch.stack(frames), torch.stack(masks)


def square_flow(frames, masks, centers):
    def flow(frames_a, frames_b):
        flows = []
        for frame_a, frame_b in zip(frames_a, frames_b, strict=True):
            a, b = (next(i for i, f in enumerate(frames) if torch.equal(f, frame)) for frame in (frame_a, frame_b))
            flows.append(torch.cat([masks[a] * (centers[b] - centers[a]), torch.zeros_like(masks[a])]))
        return torch.stack(flows)

    return flow


def moving_noise(pixels_a_frame: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Return six frames of a smooth pattern that moves to the right."""
    x = np.arange(width + 64)
    row = 127 + 60 * np.sin(x / 5.0) + 60 * np.sin(x / 11.0)
    pattern = np.clip(row[None] + 7 * np.sin(np.arange(height) / 6.0)[:, None], 0, 255).astype(np.uint8)
    frames = [pattern[:, 60 - pixels_a_frame * n : 60 - pixels_a_frame * n + width] for n in range(6)]
    return np.repeat(np.stack(frames)[..., None], 3, axis=-1)
