"""Measure the rows of the miniature study: the clips that they generate, and their loss on held-out clips.

Every run generates the same prompts from the same noise. Held-out losses use the same clips, noise and steps of the
schedule for every run.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from landscape_video.evaluation.metrics.measurements import MeasuredClip, MetricModels, measure_clip
from landscape_video.evaluation.metrics.registry import select_metrics
from landscape_video.files import write_file
from landscape_video.generation.settings import TextToVideoSettings
from landscape_video.training.data.latent_store import load_vae
from landscape_video.training.data.tensor_store import load_prompt_embeds_cache
from landscape_video.training.objectives.motion_models import load_motion_unet, load_noise_scheduler
from landscape_video.training.objectives.motion_objective import motion_losses
from motion_adapter.export import export_pipeline
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.video_writing import write_video
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant, prompts_of
from shanshui.renderer.dataset import render_dataset
from shanshui.renderer.scene import FPS, PROMPTS_SEED, Scene
from shanshui.stages.training_data import encode_clip


STEPS = 25
GUIDANCE_SCALE = 4.0  # of the published rows
NOISES = 8  # steps of the schedule at which the loss of a held-out clip is taken, one in each eighth
METRICS = ("default", "camera accuracy")


@dataclass(frozen=True)
class HeldOut:
    """Clips that no run was trained on. Their first captions are also the prompts of generated clips.

    Args:
        clips: uint8 (clips, 16, size, size, 3).
        scenes: What they show.
        prompts: Their captions.
        latents: float16 (clips, 16, channels, height / 8, width / 8).
    """

    clips: np.ndarray
    scenes: Sequence[Scene]
    prompts: Sequence[str]
    latents: np.ndarray


@dataclass(frozen=True)
class Measured:
    """The measurements of a run.

    Args:
        metrics: Values (clips,) of the generated clips, by label.
        features: Features of the generated clips for distances, (clips, dim).
        losses: Loss of each held-out clip; empty for clips that no run generated.
        seconds_per_clip: Mean time to generate a clip; NaN if it is not known.
    """

    metrics: Mapping[str, np.ndarray]
    features: np.ndarray
    losses: np.ndarray
    seconds_per_clip: float


def load_held_out(base: Path, output: Path, count: int, device: str, workers: int) -> HeldOut:
    """Render and encode the held-out clips; stored ones are read."""
    unet, vae = (json.loads((base / part / "config.json").read_text()) for part in ("unet", "vae"))
    size = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    rendering = {"fps": FPS, "size": size, "fine_motifs": False, "workers": workers}
    clips, scenes = render_dataset(output / f"held-out-{count}.npy", count, PROMPTS_SEED, **rendering)
    path = output / f"held-out-{count}-latents.npy"
    if not path.exists():
        autoencoder = load_vae(str(base), None, torch.device(device))
        with write_file(path) as unfinished:
            np.save(unfinished, np.stack([encode_clip(autoencoder, clip).numpy() for clip in clips]))
    return HeldOut(clips, scenes, prompts_of(scenes, PROMPTS_SEED, "en"), np.load(path))


def measured_file(output: Path, run: str, prompts: int, count: int, steps: int) -> Path:
    """File with the measurements of a run: `prompts` clips of `steps` steps, and the loss on `count` clips."""
    return output / "measured" / f"{run}-{prompts}-of-{count}-steps{steps}.npz"


def read_measured(path: Path) -> Measured:
    """Read what `store_measured` wrote."""
    with np.load(path) as stored:
        metrics = dict(zip(stored["labels"].tolist(), stored["values"], strict=True))
        return Measured(metrics, stored["features"], stored["losses"], float(stored["seconds_per_clip"]))


def measure_run(
    adapter: Path,
    base: Path,
    output: Path,
    held_out: HeldOut,
    prompts: int,
    models: MetricModels,
    device: str,
    dtype: str,
    steps: int = STEPS,
    workers: int = 1,
) -> None:
    """Generate clips of the first held-out scenes with an adapter; measure them, and the adapter's loss, into a file.

    An existing file is not changed.

    Args:
        adapter: Folder `motion_adapter` of a run; its parent folder is named after the run.
        base: Folder of the image model.
        output: Folder of the study.
        held_out: Result of `load_held_out`.
        prompts: Number of clips to generate.
        models: The models that metrics use.
        device: Device to compute on.
        dtype: "float32" or "bfloat16", of the steps.
        steps: Denoising steps.
        workers: Processes that generate side by side on a CPU.
    """
    run = adapter.parent.name
    path = measured_file(output, run, prompts, len(held_out.clips), steps)
    if path.exists():
        return
    pipeline = output / "pipelines" / run
    if not pipeline.exists():
        export_row(adapter, base, pipeline)
    on_gpu = device.startswith("cuda")
    batch, workers = (8, 1) if on_gpu else (1, workers)
    maker = ClipMaker(pipeline, output / "painted", batch, PROMPTS_SEED, device, dtype, workers)
    requests = [Request(index, prompt) for index, prompt in enumerate(held_out.prompts[:prompts])]
    settings = TextToVideoSettings(steps=steps, guidance_scale=GUIDANCE_SCALE, eta=0.0, interpolate=False)
    clips = maker.clips(requests, Variant(settings))
    losses = held_out_losses(adapter, base, held_out, device, dtype)
    seconds = maker.seconds / maker.made if maker.made else math.nan
    store_measured(clips, held_out, models, path, losses, seconds)


def store_measured(
    clips: Sequence[np.ndarray],
    held_out: HeldOut,
    models: MetricModels,
    path: Path,
    losses: Sequence[float] = (),
    seconds_per_clip: float = math.nan,
) -> None:
    """Measure clips of the first held-out scenes into a file, and write them as videos into the folder beside it."""
    metrics, folder = select_metrics(METRICS), path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for index, (clip, scene, prompt) in enumerate(zip(clips, held_out.scenes, held_out.prompts, strict=False)):
        found.append(measure_clip(MeasuredClip(clip, models, prompt, labels={"camera": scene.camera}), metrics))
        write_video(folder / f"{index:04d}.mp4", clip, fps=FPS)
    labels = list(found[0].metrics)
    with write_file(path) as unfinished:
        np.savez(
            unfinished,
            labels=np.array(labels),
            values=np.array([[one.metrics[label] for one in found] for label in labels]),
            features=np.stack([one.vectors["features"] for one in found]),
            losses=np.array(losses),
            seconds_per_clip=seconds_per_clip,
        )


def export_row(adapter: Path, base: Path, target: Path) -> None:
    """Export the pipeline of a run as users load it: weights in half precision, as in the published family."""
    pipe = LandscapeVideoPipeline(
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae"),
        text_encoder=CLIPTextModel.from_pretrained(base, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(base, subfolder="tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(base, subfolder="unet"),
        motion_adapter=MotionAdapter.from_pretrained(adapter),
        scheduler=DDIMScheduler.from_pretrained(base, subfolder="scheduler"),
    )
    target.parent.mkdir(exist_ok=True)
    export_pipeline(pipe, target, dtype=torch.float16, include_code=False)


@torch.no_grad()
def held_out_losses(adapter: Path | None, base: Path, held_out: HeldOut, device: str, dtype: str) -> np.ndarray:
    """Diffusion loss of each held-out clip, float64 (clips,): the mean over `NOISES` steps, evenly spread over the
    schedule. Noise depends on the number of the clip alone. Without an adapter, it is that of the image model."""
    unet = load_motion_unet(str(base), motion_adapter=adapter and str(adapter)).to(device).eval()
    scheduler = load_noise_scheduler(str(base))
    embed = load_prompt_embeds_cache(str(base), None, torch.float32, torch.device(device))
    steps = ((torch.arange(NOISES) + 0.5) / NOISES * scheduler.config.num_train_timesteps).long()
    losses = []
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for index, (clip, prompt) in enumerate(zip(held_out.latents, held_out.prompts, strict=True)):
            latents = torch.from_numpy(clip.astype(np.float32)).transpose(0, 1).repeat(NOISES, 1, 1, 1, 1)
            state = np.random.SeedSequence((PROMPTS_SEED, index)).generate_state(1)[0]
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(int(state)))
            inputs = (tensor.to(device) for tensor in (latents, embed([prompt]).repeat(NOISES, 1, 1), noise, steps))
            losses.append(motion_losses(unet, None, scheduler, *inputs)["diffusion"].item())
    return np.array(losses)
