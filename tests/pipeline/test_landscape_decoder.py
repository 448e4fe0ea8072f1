"""The decoder of twice the size: where it begins, its size and its time, and that it survives saving."""

import pytest
import torch
import torch.nn.functional as F

from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder


@pytest.fixture(scope="module")
def vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(SHANSHUI_TINY / "vae").requires_grad_(False)


@pytest.fixture
def latents():
    return torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_new_decoder_enlarges_the_images_of_the_vae(vae, latents):
    images = DoubleSizeDecoder.from_vae(vae)(latents)
    assert images.shape == (2, 3, 256, 256)
    expected = F.interpolate(vae.decode(latents).sample, scale_factor=2, mode="bicubic")
    torch.testing.assert_close(images, expected)


def test_the_scale_of_the_latents_is_that_of_the_vae(latents):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(latent_channels=8, block_out_channels=(4,), norm_num_groups=2, scaling_factor=0.5).eval()
    decoder = DoubleSizeDecoder.from_vae(vae, wide_channels=4, detail_channels=2)
    with torch.no_grad():
        expected = F.interpolate(vae.decode(latents / 0.5).sample, scale_factor=2, mode="bicubic")
        torch.testing.assert_close(decoder(latents), expected)


def test_everything_but_the_norms_of_details_can_learn(vae, latents):
    decoder = DoubleSizeDecoder.from_vae(vae)
    target = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
    for _ in range(2):  # what ends in zeros passes gradients on from the second step
        optimizer.zero_grad()
        F.mse_loss(decoder(latents), target).backward()
        optimizer.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in decoder.parameters())


def test_it_is_saved_and_loaded(vae, latents, tmp_path):
    decoder = DoubleSizeDecoder.from_vae(vae, detail_layers=1)
    torch.nn.init.normal_(decoder.detail_out.weight)
    decoder.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(DoubleSizeDecoder.from_pretrained(tmp_path)(latents), decoder(latents))


def test_it_fits_into_six_megabytes(vae):
    count = sum(parameter.numel() for parameter in DoubleSizeDecoder.from_vae(vae).parameters())
    assert 2 * count <= 6e6  # half precision
