"""The decoder of twice the size: where it begins, its size and its time, and that it survives saving."""

import pytest
import torch
import torch.nn.functional as F

from pipeline_landscape_video import SHANSHUI_TINY, LandscapeImageToVideoPipeline, LandscapeVideoPipeline
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


SHORT = {"num_frames": 3, "num_inference_steps": 1, "height": 64, "width": 64, "output_type": "pt"}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def trained():
    return DoubleSizeDecoder.from_pretrained(SHANSHUI_TINY / "decoder")


@pytest.mark.parametrize("optimized", [False, True])
def test_a_pipeline_decodes_with_it(trained, optimized):
    pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
    pipe.optimize(optimized)
    latents = pipe("mist", **SHORT | {"output_type": "latent"}, generator=seeded()).frames
    pipe.frame_decoder = trained
    frames = pipe("mist", **SHORT, interpolate=False, decode_chunk_size=2, generator=seeded()).frames
    assert frames.shape == (1, 3, 3, 128, 128)
    with torch.no_grad():
        expected = (trained(latents[0].transpose(0, 1)) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(frames[0], expected, atol=1e-4, rtol=0)
    interpolated = pipe("mist", **SHORT, flow_estimator="dis", generator=seeded()).frames
    torch.testing.assert_close(interpolated[:, ::2], frames, atol=1e-6, rtol=0)


def test_stages_begin_with_the_frame_before_at_the_size_of_sampling(trained):
    pipe = LandscapeImageToVideoPipeline.from_pretrained(SHANSHUI_TINY)
    pipe.frame_decoder = trained
    given, encode = [], pipe.encode_images
    pipe.encode_images = lambda images, latents: given.append(images) or encode(images, latents)
    image = torch.rand(1, 3, 64, 64, generator=seeded())
    stages = {"prompts": ["mist", "rain"], "hold_first_frame": True, "interpolate": False}
    frames = pipe(image=image, **stages, **SHORT, generator=seeded()).frames
    assert frames.shape == (1, 6, 3, 128, 128)
    shrunk = F.avg_pool2d(frames[:, 2], 2) * 2 - 1
    torch.testing.assert_close(given[1], shrunk)
