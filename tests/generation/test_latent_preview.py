"""A linear map turns latents into colors, and its fit is stored with the model."""

import json

import torch

from landscape_video.generation.latent_preview import LATENT_RGB, LatentPreview, fit_latent_rgb, measure_fit
from pipeline_landscape_video import SHANSHUI_TINY


def linear_frames(latents: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    colors = torch.einsum("rc,nchw->nrhw", weight, latents) + bias[:, None, None]
    return colors.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)


def test_a_linear_map_is_found():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 5, 6, generator=generator)
    weight, bias = torch.randn(3, 4, generator=generator) / 20, torch.tensor([0.4, 0.5, 0.6])
    frames = linear_frames(latents, weight, bias)
    preview = fit_latent_rgb(latents, frames)
    torch.testing.assert_close(preview.weight, weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(preview.bias, bias, atol=1e-5, rtol=0)
    assert measure_fit(preview, latents, frames)["rmse"] < 1e-5
    small = preview(latents.movedim(0, 1))
    assert small.shape == (3, 5, 6, 3) and small.dtype == torch.uint8


def test_the_bundled_model_has_a_map_that_fits():
    preview = LatentPreview.from_folder(SHANSHUI_TINY)
    fitted = json.loads((SHANSHUI_TINY / LATENT_RGB).read_text())["fit"]
    assert preview.weight.shape == (3, 8)
    assert min(fitted["r_squared"]) > 0.7 and fitted["held_out_scenes"] >= 10


def test_a_model_without_a_map_has_no_preview(tmp_path):
    assert LatentPreview.from_folder(tmp_path) is None
