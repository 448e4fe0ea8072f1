"""Turn latents into small RGB frames with a linear map, without the decoder.

The map of a model is stored in its folder, in `latent_rgb.json`. `fit_latent_rgb` fits it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor


LATENT_RGB = "latent_rgb.json"


class LatentPreview:
    """A linear map from a latent pixel to its color.

    Args:
        weight: `(3, channels)`.
        bias: `(3,)`; colors are in [0, 1].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    @classmethod
    def from_folder(cls, folder: str | Path) -> "LatentPreview | None":
        """Read the map of a model's folder; None if it has none."""
        path = Path(folder) / LATENT_RGB
        if not path.is_file():
            return None
        fitted = json.loads(path.read_text(encoding="utf-8"))
        return cls(torch.tensor(fitted["weight"]), torch.tensor(fitted["bias"]))

    def __call__(self, latents: Tensor) -> Tensor:
        """Map latents `(channels, num_frames, height, width)` to frames, uint8 `(num_frames, height, width, 3)`."""
        colors = torch.einsum("rc,cfhw->fhwr", self.weight, latents.detach().float().cpu()) + self.bias
        return colors.clamp(0, 1).mul(255).round().to(torch.uint8)


def fit_latent_rgb(latents: Tensor, frames: Tensor) -> LatentPreview:
    """Fit the map by least squares.

    Args:
        latents: `(num_frames, channels, height / 8, width / 8)`.
        frames: `(num_frames, 3, height, width)` in [0, 1], what the latents encode.
    """
    inputs, targets = _pixel_pairs(latents, frames)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
    solution = torch.linalg.lstsq(inputs, targets).solution
    return LatentPreview(solution[:-1].T.float(), solution[-1].float())


def measure_fit(preview: LatentPreview, latents: Tensor, frames: Tensor) -> dict[str, Any]:
    """Compare a map with frames, shaped as for `fit_latent_rgb`.

    Returns:
        `r_squared` of each color, and the root mean square error `rmse` in [0, 1].
    """
    inputs, targets = _pixel_pairs(latents, frames)
    predicted = inputs @ preview.weight.double().T + preview.bias.double()
    errors = (predicted - targets).square().mean(dim=0)
    r_squared = 1 - errors / targets.var(dim=0, correction=0)
    return {"r_squared": r_squared.tolist(), "rmse": errors.mean().sqrt().item()}


def _pixel_pairs(latents: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Latent pixels `(pixels, channels)`, and the mean color below each, `(pixels, 3)`."""
    colors = torch.nn.functional.adaptive_avg_pool2d(frames, latents.shape[-2:])
    return (
        rearrange(latents, "frames channels height width -> (frames height width) channels").double(),
        rearrange(colors, "frames rgb height width -> (frames height width) rgb").double(),
    )
