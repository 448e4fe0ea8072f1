"""Build small motion UNets and predict with them, for the tests of motion adapters."""

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from motion_adapter.build import attach_motion_adapter, create_motion_adapter
from tiny_models import build_motion_adapter, build_unet2d


NUM_FRAMES = 5


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents `(2, 4, NUM_FRAMES, 8, 8)` and prompt embeddings `(2, 7, 16)`."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, NUM_FRAMES, 8, 8, generator=generator)
    return latents.to(dtype), torch.randn(2, 7, 16, generator=generator).to(dtype)


def predict(unet: UNetMotionModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    latents, text = inputs(dtype)
    return unet(latents, 500, text.repeat_interleave(NUM_FRAMES, dim=0)).sample


@torch.no_grad()
def predict_frame_by_frame(unet: UNet2DConditionModel) -> torch.Tensor:
    latents, text = inputs()
    return torch.stack([unet(frame, 500, text).sample for frame in latents.unbind(dim=2)], dim=2)


def new_adapter(unet: UNet2DConditionModel, mode: str = "previous", **arguments) -> MotionAdapter:
    generator = torch.Generator().manual_seed(0)
    return create_motion_adapter(unet, mode, motion_num_attention_heads=2, generator=generator, **arguments)


def moving_unet(mode: str | None = "previous", **adapter_config) -> UNetMotionModel:
    """Return a motion UNet whose motion modules are random in every layer, `proj_out` included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return attach_motion_adapter(build_unet2d(), build_motion_adapter(mode, **adapter_config))


def assert_same_weights(actual: MotionAdapter, expected: MotionAdapter) -> None:
    assert list(actual.state_dict()) == list(expected.state_dict())
    for name, weight in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], weight), name
