"""A random model with the sizes of Stable Diffusion 1.5, and what diffusers and our pipeline compute with it."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from motion_adapter.weights_files import METADATA, save_adapter
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import install_motion_norm, install_sparse_causal_attention


NUM_FRAMES, SIZE = 8, 8  # latent frames and their sides
SEED, POSITIVE, NEGATIVE = 7, 1, 2  # of the noise and of the embeddings
GUIDANCE = 2.0
STEPS = 2  # of the clip that is sampled in windows
ADAPTERS = "animatediff_models"  # folder of AnimateDiff-Evolved
RANDOM_UNET = "random_sd15.safetensors"
RANDOM_ADAPTER = "random/diffusion_pytorch_model.safetensors"
# Linear betas, as our adapters are trained
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
LATENT_SCALE = 0.18215  # of Stable Diffusion's VAE
IMAGE_MODEL = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


def save_random_model(models: Path) -> tuple[UNet2DConditionModel, MotionAdapter]:
    """Save an image UNet and an adapter below `models` of a ComfyUI, in float16, and return them in float32."""
    torch.manual_seed(0)
    unet, adapter = _rounded(UNet2DConditionModel(**IMAGE_MODEL)), _rounded(MotionAdapter())
    folder = models / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half().contiguous() for name, weight in unet.state_dict().items()}
    save_file(weights, folder / RANDOM_UNET)
    adapter.register_to_config(sparse_causal_mode="current_previous", motion_norm="frame")  # the longest names
    save_adapter(adapter.half(), (models / ADAPTERS / RANDOM_ADAPTER).parent)
    return unet, adapter.float()


class RandomModel:
    """
    A motion UNet with random weights that float16 holds exactly, and its files for ComfyUI.

    Args:
        models: The folder `models` of a ComfyUI, for the image UNet and the adapter, which is saved as our trainer
            saves it.
    """

    def __init__(self, models: Path) -> None:
        self.motion_unet = UNetMotionModel.from_unet2d(*save_random_model(models)).eval()
        self.adapter_file = models / ADAPTERS / RANDOM_ADAPTER

    @torch.inference_mode()
    def predict(self, entries: dict[str, str]) -> Tensor:
        """Return the noise that `UNetMotionModel` predicts with the entries of a config, guided as in ComfyUI."""
        install(self.motion_unet, entries)
        embeddings = torch.cat([embedding_of(NEGATIVE), embedding_of(POSITIVE)]).repeat_interleave(NUM_FRAMES, dim=0)
        latents, _ = noisy_latents()
        both = torch.cat([latents, latents]).unflatten(0, (2, NUM_FRAMES)).transpose(1, 2)
        negative, positive = self.motion_unet(both, 999, encoder_hidden_states=embeddings).sample.transpose(1, 2)
        return negative + GUIDANCE * (positive - negative)

    def sample(self, entries: dict[str, str], windows: dict[str, Any]) -> Tensor:
        """Return the latents, `(num_frames, 4, size, size)`, that our pipeline samples in windows."""
        install(self.motion_unet, entries)
        self.motion_unet.register_to_config(**entries)
        scheduler = DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=False)
        vae = AutoencoderKL(block_out_channels=(32,) * 4, norm_num_groups=32)  # only for the scale of its sizes
        pipe = LandscapeVideoPipeline(vae, None, None, self.motion_unet, None, scheduler)
        latents, _ = noisy_latents()
        result = pipe(
            prompt_embeds=embedding_of(POSITIVE),
            negative_prompt_embeds=embedding_of(NEGATIVE),
            latents=latents.transpose(0, 1)[None],
            num_frames=NUM_FRAMES,
            height=8 * SIZE,
            width=8 * SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            eta=0.0,
            output_type="latent",
            **windows,
        )
        return result.frames[0].transpose(0, 1)


def install(unet: UNetMotionModel, entries: dict[str, str]) -> None:
    """Make a motion UNet run by the entries of an adapter's config."""
    install_sparse_causal_attention(unet, entries["sparse_causal_mode"])
    install_motion_norm(unet, entries["motion_norm"])


def noisy_latents() -> tuple[Tensor, float]:
    """Return the model's input at the first timestep, `(num_frames, 4, size, size)`, and its sigma in ComfyUI."""
    return torch.randn(NUM_FRAMES, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(SEED)), sigmas_of([999])[0]


def sigmas_of(timesteps: list[int]) -> list[float]:
    """Return the sigmas of timesteps in ComfyUI."""
    signals = DDIMScheduler(**BETAS).alphas_cumprod.double()[timesteps]
    return ((1 - signals) / signals).sqrt().tolist()


def sampling_sigmas() -> list[float]:
    """Return the sigmas of the steps of `RandomModel.sample`, and 0."""
    scheduler = DDIMScheduler(**BETAS, timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS)
    return [*sigmas_of(scheduler.timesteps.tolist()), 0.0]


def predicted_noise(sampled: Tensor) -> Tensor:
    """Return the guided noise that ComfyUI predicted, from the latents after one Euler step to sigma 0."""
    latents, sigma = noisy_latents()
    return (latents * (1 + sigma**2) ** 0.5 - sampled * LATENT_SCALE) / sigma


def embedding_of(seed: int) -> Tensor:
    """Return the embedding that `ProbeConditioning` makes of a seed."""
    return torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(seed))


def write_config(file: Path, entries: dict[str, Any] | None) -> None:
    """Replace entries of the config in the header of an adapter, in place; `None` leaves the config out."""
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        if entries is None:
            del header["__metadata__"][METADATA]
        else:
            config = json.loads(header["__metadata__"][METADATA])
            header["__metadata__"][METADATA] = json.dumps(config | entries)
        stream.seek(8)
        stream.write(json.dumps(header, separators=(",", ":")).encode().ljust(length))


def _rounded(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model.eval().requires_grad_(False)
