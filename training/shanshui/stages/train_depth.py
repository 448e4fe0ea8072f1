"""Train the depth parts of shanshui-tiny: a depth model of its own, and the depth member of the image UNet."""

import json

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from landscape_video.files import hash_file, hash_json, write_file
from landscape_video.generation.depth import normalize_depth
from landscape_video.generation.depth_member import LORA_LAYERS, save_depth_member, widen_for_depth
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_with_depth
from shanshui.renderer.scene import FPS, HELD_OUT_SEED, TRAINING_SEED
from shanshui.stages.family_run import FamilyRun, build_depth_model, build_scheduler
from shanshui.stages.timed_training import train_for
from shanshui.stages.train_image_unet import TEXT_DROPOUT, encode_captions
from shanshui.stages.training_data import (
    CAPTIONS_PER_CLIP,
    encode_clip,
    to_pixel_values,
    training_captions,
    training_depth,
)


EDGE_WEIGHT = 2.0  # of differences between neighboring pixels, which carry the outlines
LORA_RANK = 12
HELD_OUT_CLIPS = 24


def train_depth_model(run: FamilyRun) -> None:
    """Train a small network to predict the renderer's depth from a frame; save it with its error on held-out clips."""
    frames, depth = (array.reshape(-1, *array.shape[2:]) for array in training_depth(run))
    batch_size = run.batch_scale * 16
    torch.manual_seed(0)
    model = build_depth_model().to(run.device)

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        chosen = torch.randint(len(frames), (batch_size,), generator=generator, device=run.device).tolist()
        pixels = halve(to_pixel_values(frames[chosen]).to(run.device))
        target = halve(torch.from_numpy(depth[chosen][:, None].astype(np.float32)).to(run.device))
        if torch.rand((), generator=generator, device=run.device) < 0.5:
            pixels, target = pixels.flip(-1), target.flip(-1)
        error = model(pixels, 0).sample.float() - target
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return {"loss": error.abs().mean() + EDGE_WEIGHT * edges, "l1": error.abs().mean(), "edges": edges}

    train_for(run, "depth_model", model, compute_losses, learning_rate=2e-3, weight_decay=1e-4, seed=5)
    model.save_pretrained(run.model("depth_model"))
    figures = {"l1": depth_error(model)}
    (run.run_dir / "depth_model" / "held_out.json").write_text(json.dumps(figures))


def halve(images: torch.Tensor) -> torch.Tensor:
    """Halve height and width of images, (count, channels, height, width)."""
    return F.avg_pool2d(images, 2)


@torch.no_grad()
def depth_error(model: UNet2DModel) -> float:
    """Return the mean absolute error of the depth, from 0 (infinitely far) to 1, on held-out scenes."""
    errors = []
    for index in range(HELD_OUT_CLIPS):
        scene = scene_of(index, HELD_OUT_SEED, fine_motifs=False)
        frames, depth = render_with_depth(scene, [0.0, 8 / FPS])
        predicted = model(halve(to_pixel_values(frames).to(model.device)), 0).sample.float().cpu()
        errors.append((predicted - halve(torch.from_numpy(depth)[:, None])).abs().mean().item())
    return float(np.mean(errors))


def train_depth_member(run: FamilyRun) -> None:
    """Train the image UNet to read depth: its first convolution, widened by one channel, and LoRA layers.

    Predictions start as those of the trained UNet, whose other weights stay as they are.
    """
    latents, depth, prompt_embeds, empty_prompt = encode_depth_clips(run)
    batch_size, device = run.batch_scale * 16, run.device
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(run.model("unet"), dtype=torch.float32).requires_grad_(False)
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # faster in the backward pass on a CPU
    widen_for_depth(unet)
    unet.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=LORA_LAYERS))
    unet.conv_in.requires_grad_(True)  # after `add_adapter`, which freezes all other layers
    unet.to(device)
    scheduler = build_scheduler()

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        def integers(high: int) -> torch.Tensor:
            return torch.randint(high, (batch_size,), generator=generator, device=device)

        clips, frames = integers(len(latents)), integers(latents.shape[1])
        timesteps = integers(scheduler.config.num_train_timesteps)
        clean = latents[clips.cpu(), frames.cpu()].to(device).float()
        seen = depth[clips.cpu(), frames.cpu()].to(device)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        text = prompt_embeds[clips.cpu(), integers(CAPTIONS_PER_CLIP).cpu()].to(device).float()
        dropped = torch.rand(batch_size, generator=generator, device=device) < TEXT_DROPOUT
        text = torch.where(dropped[:, None, None], empty_prompt, text)
        noisy = torch.cat([scheduler.add_noise(clean, noise, timesteps), seen], dim=1)
        prediction = unet(noisy, timesteps, encoder_hidden_states=text).sample
        return {"loss": F.mse_loss(prediction, scheduler.get_velocity(clean, noise, timesteps))}

    train_for(run, "depth_member", unet, compute_losses, learning_rate=1e-3, weight_decay=1e-2, seed=6)
    save_depth_member(unet, run.model("depth_member"))


@torch.no_grad()
def encode_depth_clips(run: FamilyRun) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encode the clips of `training_depth` with their captions, unless the same models have done so before.

    Returns:
        Latents, float16 (clips, frames, channels, h, w); normalized depth of their size, float32 (clips, frames, 1, h,
        w); and both results of `encode_captions`.
    """
    folder = run.run_dir / "depth_clips"
    models = (run.model("vae") / "diffusion_pytorch_model.safetensors", run.model("text") / "model.safetensors")
    made_of = hash_json([hash_file(file) for file in (*models, folder / "depth.jsonl") if file.exists()])
    path = folder / f"encoded-{made_of[:16]}.safetensors"
    names = ("latents", "depth", "prompt_embeds", "empty_prompt")
    if not path.exists():
        rendered = training_depth(run)
        vae = AutoencoderKL.from_pretrained(run.model("vae"), dtype=torch.float32).to(run.device)
        latents = torch.stack([encode_clip(vae, frames) for frames in rendered.frames])
        depth = [normalize_depth(torch.from_numpy(clip.astype(np.float32))[:, None]) for clip in rendered.depth]
        small = torch.stack([F.interpolate(clip, size=latents.shape[-2:], mode="area") for clip in depth])
        scenes = [scene_of(index, TRAINING_SEED, fine_motifs=False) for index in range(run.clips)]
        prompt_embeds, empty_prompt = encode_captions(run, training_captions(scenes))
        encoded = [tensor.cpu().contiguous() for tensor in (latents, small, prompt_embeds, empty_prompt)]
        with write_file(path) as unfinished:
            save_file(dict(zip(names, encoded, strict=True)), unfinished)
    encoded = load_file(path)
    return tuple(encoded[name].to(run.device) if name == "empty_prompt" else encoded[name] for name in names)
