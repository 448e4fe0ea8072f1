"""What the rows of the miniature study are measured by: clips that they paint, and their loss on held-out clips.

`miniature_study.py` calls this in processes side by side, each for some runs. Every run paints the same prompts from
the same noise, and meets the same noise at the same steps of the schedule on the same held-out clips.
"""

import argparse
import json
import math
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from landscape_video.evaluation.metrics.registry import ClipFigures, Measurers
from landscape_video.files import write_file
from landscape_video.training.data.latents import load_vae
from landscape_video.training.data.prompt_embeds_cache import load_prompt_embeds_cache
from landscape_video.training.objectives.motion_models import load_motion_unet, load_noise_scheduler
from landscape_video.training.objectives.motion_objective import motion_losses
from motion_adapter.export import export_pipeline
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.video_writing import write_video
from shanshui.measuring.clip_motion import camera_direction
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant, prompts_of
from shanshui.renderer.constants import FPS, PROMPTS_SEED
from shanshui.renderer.dataset import render_dataset, scene_of
from shanshui.renderer.scene import Scene
from shanshui.stages.training_data import encode_clip


STEPS = 25
GUIDANCE_SCALE = 4.0  # with which the published rows were painted
NOISES = 8  # steps of the schedule at which a held-out clip's loss is taken, one in each eighth
CAMERA = "camera accuracy"


@dataclass(frozen=True)
class HeldOut:
    """What no run was trained on: clips, uint8 (clips, 16, size, size, 3), their scenes and captions, and latents,
    float16 (clips, 16, channels, h, w). The first ones are what is painted, too."""

    clips: np.ndarray
    scenes: Sequence[Scene]
    prompts: Sequence[str]
    latents: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What was found of a run: `metrics` of each painted clip by label, `features` for distances, (clips, dim), and
    the loss of each held-out clip; there is none of clips that no run painted."""

    metrics: Mapping[str, np.ndarray]
    features: np.ndarray
    losses: np.ndarray
    seconds_per_clip: float


def make_held_out(base: Path, output: Path, count: int, device: str, workers: int) -> HeldOut:
    """Render and encode the held-out clips, or read them where they are."""
    unet, vae = (json.loads((base / part / "config.json").read_text()) for part in ("unet", "vae"))
    clips, _ = render_dataset(
        output / f"held-out-{count}.npy",
        count,
        seed=PROMPTS_SEED,
        fps=FPS,
        size=unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1),
        fine_motifs=False,
        workers=workers,
    )
    path = output / f"held-out-{count}-latents.npy"
    if not path.exists():
        autoencoder = load_vae(str(base), None, torch.device(device))
        latents = np.stack([encode_clip(autoencoder, clip).numpy() for clip in clips])
        with write_file(path) as unfinished:
            np.save(unfinished, latents)
    return read_held_out(output, count)


def read_held_out(output: Path, count: int) -> HeldOut:
    """What `make_held_out` made."""
    clips = np.load(output / f"held-out-{count}.npy", mmap_mode="r")
    scenes = [scene_of(index, PROMPTS_SEED, fine_motifs=False) for index in range(count)]
    latents = np.load(output / f"held-out-{count}-latents.npy")
    return HeldOut(clips, scenes, prompts_of(scenes, PROMPTS_SEED, "en"), latents)


def measured_file(output: Path, run: str, prompts: int, count: int, steps: int) -> Path:
    """Where the figures of a run are: `prompts` clips painted in `steps` steps, the loss on `count` clips."""
    return output / "measured" / f"{run}-{prompts}-of-{count}-steps{steps}.npz"


def read_measured(path: Path) -> Measured:
    with np.load(path) as stored:
        metrics = dict(zip(stored["labels"].tolist(), stored["values"], strict=True))
        return Measured(metrics, stored["features"], stored["losses"], float(stored["seconds_per_clip"]))


def measure_run(
    adapter: Path,
    base: Path,
    output: Path,
    held_out: HeldOut,
    prompts: int,
    measurers: Measurers,
    device: str,
    dtype: str,
    batch: int = 1,
    steps: int = STEPS,
) -> Path:
    """Paint the first `prompts` held-out scenes with an adapter and measure them, and the adapter's loss.

    Args:
        adapter: folder `motion_adapter` of a run, whose folder is named after the run.
        base: the image model's folder.
        output: of the study.
        held_out: of `make_held_out`.
        prompts: how many to paint.
        measurers: for the painted clips.
        device: to compute on.
        dtype: "float32" or "bfloat16", of the steps.
        batch: clips painted in one call.
        steps: of denoising.

    Returns:
        The file with the figures; one that is there is left as it is.
    """
    run = adapter.parent.name
    path = measured_file(output, run, prompts, len(held_out.clips), steps)
    if path.exists():
        return path
    pipeline = output / "pipelines" / run
    if not pipeline.exists():
        export_row(adapter, base, pipeline)
    maker = ClipMaker(pipeline, output / "painted", steps, batch, PROMPTS_SEED, device, dtype)
    requests = [Request(index, prompt) for index, prompt in enumerate(held_out.prompts[:prompts])]
    clips = maker.clips(requests, Variant(GUIDANCE_SCALE))
    losses = held_out_losses(adapter, base, held_out, device, dtype)
    seconds = maker.seconds / maker.made if maker.made else math.nan
    store_measured(clips, held_out, measurers, path, losses, seconds)
    return path


def store_measured(
    clips: Sequence[np.ndarray],
    held_out: HeldOut,
    measurers: Measurers,
    path: Path,
    losses: np.ndarray | None = None,
    seconds_per_clip: float = math.nan,
) -> None:
    """Measure clips of the first held-out scenes into a file, and write them as videos in the folder beside it."""
    figures = [
        look(clip, scene, prompt, measurers)
        for clip, scene, prompt in zip(clips, held_out.scenes, held_out.prompts, strict=False)
    ]
    labels = list(figures[0].metrics)
    path.with_suffix("").mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        write_video(path.with_suffix("") / f"{index:04d}.mp4", clip, fps=FPS)
    with write_file(path) as unfinished:
        np.savez(
            unfinished,
            labels=np.array(labels),
            values=np.array([[one.metrics[label] for one in figures] for label in labels]),
            features=np.stack([one.vectors["features"] for one in figures]),
            losses=np.array([]) if losses is None else losses,
            seconds_per_clip=seconds_per_clip,
        )


def look(clip: np.ndarray, scene: Scene, prompt: str, measurers: Measurers) -> ClipFigures:
    """All figures of a clip: those of the evaluation, and whether its camera goes where the scene's does."""
    found = measurers.measure(clip, prompt)
    return ClipFigures({**found.metrics, CAMERA: float(camera_direction(clip) == scene.camera)}, found.vectors)


def export_row(adapter: Path, base: Path, target: Path) -> None:
    """The pipeline of a run as users would load it: weights in half precision, like the published family's."""
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
    """The diffusion loss of each held-out clip, float64 (clips,): the mean over `NOISES` steps evenly spread over the
    schedule. Noise depends on the clip's number alone. Without an adapter, that of the image model by itself."""
    unet = load_motion_unet(str(base), motion_adapter=adapter and str(adapter)).to(device).eval()
    scheduler = load_noise_scheduler(str(base))
    states = load_prompt_embeds_cache(str(base), None, torch.float32, torch.device(device))
    steps = (torch.arange(NOISES) + 0.5) / NOISES * scheduler.config.num_train_timesteps
    losses = []
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for index, (clip, prompt) in enumerate(zip(held_out.latents, held_out.prompts, strict=True)):
            latents = torch.from_numpy(clip.astype(np.float32)).transpose(0, 1).repeat(NOISES, 1, 1, 1, 1)
            state = np.random.SeedSequence((PROMPTS_SEED, index)).generate_state(1)[0]
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(int(state)))
            text = states([prompt]).repeat(NOISES, 1, 1)
            inputs = (tensor.to(device) for tensor in (latents, text, noise, steps.long()))
            losses.append(motion_losses(unet, None, scheduler, *inputs)["diffusion"].item())
    return np.array(losses)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure some runs of a miniature study; see miniature_study.py.")
    parser.add_argument("--adapters", type=Path, nargs="+", required=True, help="their folders `motion_adapter`")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--prompts", type=int, required=True)
    parser.add_argument("--held_out_clips", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    held_out = read_held_out(args.output, args.held_out_clips)
    measurers = Measurers.load(device=args.device)
    batch = 8 if args.device.startswith("cuda") else 1
    for adapter in args.adapters:
        measure_run(
            adapter,
            args.base,
            args.output,
            held_out,
            args.prompts,
            measurers,
            args.device,
            args.dtype,
            batch,
            args.steps,
        )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # files are written whole or not at all
    main()
