"""ControlNet and T2I-Adapter on motion UNets: the image model's results, and conditions cut by window."""

import pytest
import torch
from diffusers import ControlNetModel, T2IAdapter

from landscape_video.generation.condition_networks import check_fits, conditioned, load_network
from landscape_video.generation.consistent_clip import (
    FrameSampler,
    Modules,
    SourceClip,
    consistent_clip,
    without_motion,
)
from landscape_video.generation.consistent_settings import ConsistentClipSettings
from pipeline_landscape_video import LandscapeVideoPipeline
from tiny_models import build_components


IMAGES = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SETTINGS = ConsistentClipSettings(
    steps=2, guidance_scale=2.0, eta=0.0, seed=3, fps=8.0, context_length=4, fuse=False, tune=False
)


@pytest.fixture(scope="module")
def components():
    return build_components()


@pytest.fixture(scope="module")
def networks(components):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        controlnet = ControlNetModel.from_unet(components["unet"], conditioning_channels=3)
        for parameter in controlnet.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)  # its last layers are zero
        adapter = T2IAdapter(in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=8)
    return {"controlnet": controlnet.eval().requires_grad_(False), "t2i_adapter": adapter.requires_grad_(False)}


def predict_by_image_model(network, unet, latents, text):
    images = latents[0].transpose(0, 1)
    inputs = (images, torch.tensor(500))
    if isinstance(network, T2IAdapter):
        features = [feature.clone() for feature in network(IMAGES)]
        return unet(*inputs, text, down_intrablock_additional_residuals=features).sample
    down, mid = network(*inputs, text, IMAGES, return_dict=False)
    return unet(*inputs, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter"])
def test_without_motion_the_condition_acts_as_in_the_image_model(components, networks, kind):
    pipe = LandscapeVideoPipeline(**components)
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 4, 6, 8, 8, generator=generator), torch.randn(6, 7, 16, generator=generator)
    predict = conditioned(networks[kind], IMAGES)(pipe)
    with torch.no_grad(), without_motion(pipe.unet):
        found = predict(latents, torch.tensor(500), text, list(range(6)))
        expected = predict_by_image_model(networks[kind], components["unet"], latents, text)
        plain = pipe.unet(latents, torch.tensor(500), text).sample
    torch.testing.assert_close(found[0].transpose(0, 1), expected, atol=1e-4, rtol=0)
    assert (found - plain).abs().max() > 1e-2


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter"])
def test_windows_get_the_residuals_of_their_frames(components, networks, kind, optimize):
    pipe = LandscapeVideoPipeline(**components)
    pipe.optimize(optimize)
    settings = ConsistentClipSettings(**vars(SETTINGS) | {"num_frames": 6, "height": 64, "width": 64})
    condition = conditioned(networks[kind], IMAGES)
    with torch.no_grad():
        sampler = FrameSampler(pipe, "mist", settings, condition)
        assert not sampler.plan.is_plain
        inputs = (torch.cat([sampler.start] * 2), torch.tensor(500))
        text = sampler.prompts.select(sampler.embeds, range(6), (False, True))
        with sampler.models():  # without motion, so that a frame does not depend on its window
            whole = sampler.unet(*inputs, text, list(range(6)))
            for frames in sampler.plan.windows(0):
                cut = sampler.prompts.select(sampler.embeds, frames, (False, True))
                part = sampler.unet(inputs[0][:, :, frames], inputs[1], cut, frames)
                torch.testing.assert_close(part, whole[:, :, frames], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter"])
def test_a_condition_reaches_every_module(components, networks, kind):
    pipe = LandscapeVideoPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    modules = [Modules(condition=conditioned(networks[kind], images)) for images in (IMAGES, 1 - IMAGES)]
    clips = [consistent_clip(pipe, SourceClip(0 * IMAGES), "mist", SETTINGS, each) for each in modules]
    frames = [torch.stack(list(clip.frames)) for clip in clips]
    assert (frames[0] - frames[1]).abs().max() > 1e-3
    # With a condition, all starts from noise.
    assert clips[0].metadata["strength"] == clips[0].metadata["final_strength"] == 1.0


def test_networks_load_by_name_and_must_fit(components, networks, tmp_path):
    pipe = LandscapeVideoPipeline(**components)
    for kind, network in networks.items():
        network.save_pretrained(tmp_path / kind)
        loaded = load_network(kind, str(tmp_path / kind), pipe)
        assert type(loaded) is type(network)
    with pytest.raises(ValueError, match="`controlnet` .* does not load: it is of the class T2IAdapter"):
        load_network("controlnet", str(tmp_path / "t2i_adapter"), pipe)
    with pytest.raises(ValueError, match="its channels must be"):
        check_fits(T2IAdapter(channels=[8, 32], num_res_blocks=1), pipe.unet)
