"""Compare ways to generate long clips: windows that move, static ones, independent ones, Gen-L-Video, FreeNoise.

    python benchmarks/long_video.py --prompts 100 --num_frames 48 --steps 25 --output_dir runs/long_video

All ways use the same prompts and seeds. A clip that is measured already is not generated again, so the command can be
stopped and repeated. It writes `clips.jsonl`, a contact sheet per clip, and `table.md` with paired intervals.

    python benchmarks/long_video.py --memory 32 512

measures the peak memory of generating, decoding, interpolating and writing clips of these lengths.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from landscape_video.evaluation.metrics.intervals import bootstrap, mean
from landscape_video.files import write_text
from landscape_video.generation.generate_clip import run_pipeline, stream_clip
from landscape_video.generation.settings import TextToVideoSettings
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_warping import sample_along
from pipeline_landscape_video.landscape_windows import WindowPlan
from pipeline_landscape_video.video_writing import write_video


ROOT = Path(__file__).parents[1]
FIGURES = {
    "seam": "seam ratio",
    "flicker": "flicker",
    "drift": "Lab drift",
    "motion": "motion, px",
    "cost": "cost",
}
TRANSITIONS = {"two prompts, blended": None, "two prompts, switched": 0}
OURS = "moved, pyramid"


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a class in a block."""
    original = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def halved_offset(plan: WindowPlan, step: int) -> int:
    """Return the offset of ordered halving: the step's binary digits, mirrored behind the point, times the stride."""
    return int(int(f"{step:08b}"[::-1], 2) / 256 * plan.stride)


def gen_l_windows(plan: WindowPlan, step: int) -> list[list[int]]:
    """Return the windows of Gen-L-Video as published: stride 4; the tail is mended, or its frames stay noise."""
    last = plan.length - plan.size
    return [list(range(start, start + plan.size)) for start in sorted({*range(0, last, 4), last})]


def ways(pipe: LandscapeVideoPipeline) -> dict[str, Callable[[TextToVideoSettings, int, Any], torch.Tensor]]:
    """Return the ways to generate a clip, each from settings, seed and prompt to latents."""

    def run(settings: TextToVideoSettings, seed: int, prompt: Any, **changes: Any) -> torch.Tensor:
        return run_pipeline(pipe, settings, [seed], output_type="latent", prompt=prompt, **changes)

    def independent(settings: TextToVideoSettings, seed: int, prompt: Any) -> torch.Tensor:
        return run(settings, seed, prompt, context_overlap=0, context_schedule="static")

    def halved(settings: TextToVideoSettings, seed: int, prompt: Any) -> torch.Tensor:
        with replaced(WindowPlan, "offset", halved_offset):
            return run(settings, seed, prompt)

    def gen_l(settings: TextToVideoSettings, seed: int, prompt: Any) -> torch.Tensor:
        with replaced(WindowPlan, "windows", gen_l_windows):
            return run(settings, seed, prompt, context_weights="flat")

    def free_noise(settings: TextToVideoSettings, seed: int, prompt: Any) -> torch.Tensor:
        pipe.enable_free_noise(context_length=16, context_stride=4)
        try:
            return run(settings, seed, prompt)
        finally:
            pipe.disable_free_noise()

    def plain(settings: TextToVideoSettings, seed: int, prompt: Any) -> torch.Tensor:
        return run(settings, seed, prompt, num_frames=16)

    def two_prompts(transition: int | None) -> Callable[[TextToVideoSettings, int, Any], torch.Tensor]:
        def generate(settings: TextToVideoSettings, seed: int, prompt: str) -> torch.Tensor:
            over_time = {0: f"{prompt}, autumn", settings.num_frames // 2: f"{prompt}, snow"}
            return run(settings, seed, over_time, transition=transition)

        return generate

    return {
        OURS: run,
        "independent": independent,
        "static, flat": lambda *clip: run(*clip, context_schedule="static", context_weights="flat"),
        "plain, 16 frames": plain,
        "moved, ordered halving": halved,
        "FreeNoise, mended": free_noise,
        "Gen-L-Video": gen_l,
        **{name: two_prompts(transition) for name, transition in TRANSITIONS.items()},
    }


def measure_frames(frames: torch.Tensor, flow_estimator: Callable) -> dict[str, float]:
    """
    Measure a clip.

    Args:
        frames: Frames, `(num_frames, 3, height, width)` in [0, 1].
        flow_estimator: Optical flow estimator.

    Returns:
        `"seam"`: largest over median flow-compensated difference of neighbors; the median is at least half a gray
        level. `"flicker"`: their mean, in gray levels. `"drift"`: distance of the mean Lab colors of the first and
        the last 8 frames. `"motion"`: mean length of the flow in pixels. `"largest"`: largest difference.
    """
    flow = flow_estimator(frames[:-1], frames[1:])
    warped = sample_along(frames[1:], flow, "bilinear")
    differences = 255 * (warped - frames[:-1]).abs().mean((1, 2, 3))
    lab = [cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB).mean((0, 1)) for frame in frames.float()]
    ends = np.mean(lab[:8], axis=0), np.mean(lab[-8:], axis=0)
    return {
        "seam": float(differences.max() / differences.median().clamp(min=0.5)),
        "flicker": float(differences.mean()),
        "drift": float(np.linalg.norm(ends[1] - ends[0])),
        "motion": float(flow.norm(dim=1).mean()),
        "largest": float(differences.max()),
    }


def write_sheet(path: Path, frames: torch.Tensor, count: int = 24) -> None:
    """Write `count` frames of a clip in rows of 12."""
    chosen = frames[torch.linspace(0, len(frames) - 1, count).round().long()]
    rows = [torch.cat([*row], dim=2) for row in chosen.split(12)]
    pixels = (255 * torch.cat(rows, dim=1).float()).round().byte().permute(1, 2, 0).numpy()
    cv2.imwrite(str(path), pixels[..., ::-1])


def generate_and_measure(args: argparse.Namespace) -> None:
    """Generate and measure what is missing, prompt by prompt, and write the table after each."""
    pipe = LandscapeVideoPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    pipe.optimize()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    records_file = args.output_dir / "clips.jsonl"
    records = [json.loads(line) for line in records_file.read_text().splitlines()] if records_file.exists() else []
    settings = TextToVideoSettings(num_frames=args.num_frames, steps=args.steps, interpolate=False)
    prompts = (ROOT / "examples" / "prompts.txt").read_text(encoding="utf-8").splitlines()
    frames_run = [0]
    pipe.unet.register_forward_pre_hook(lambda _, inputs: frames_run.append(inputs[0].shape[0] * inputs[0].shape[2]))
    for index in range(args.prompts):
        prompt, seed = prompts[index % len(prompts)], args.seed + index
        for way, generate in ways(pipe).items():
            key = {"way": way, "prompt": prompt, "seed": seed, "steps": args.steps, "num_frames": args.num_frames}
            if any(key.items() <= record.items() for record in records):
                continue
            frames_run.clear()
            started = time.process_time()
            with torch.no_grad():
                latents = generate(settings, seed, prompt)
                frames = pipe.decode_frames(latents, 16)[0].transpose(0, 1)
                record = key | measure_frames(frames, pipe.get_flow_estimator("dis"))
            record["cost"] = sum(frames_run) / (2 * args.steps * len(frames))  # guidance runs every frame twice
            record["seconds"] = time.process_time() - started
            write_sheet(args.output_dir / f"{index:03d} {way}.png", frames)
            records.append(record)
            with records_file.open("a") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            write_text(args.output_dir / "table.md", table(records))


def table(records: list[dict[str, Any]]) -> str:
    """Make the Markdown table: means with 95 % intervals over prompts, and the number of clips."""
    rows = []
    for way in dict.fromkeys(record["way"] for record in records):
        of_way = [record for record in records if record["way"] == way]
        cells = []
        for figure in FIGURES:
            values = np.array([record[figure] for record in of_way])
            cells.append(bootstrap(mean, values).text())
        rows.append([way, str(len(of_way)), *cells])
    return markdown_table(["way", "clips", *FIGURES.values()], rows) + "\n"


def measure_memory(args: argparse.Namespace, num_frames: int) -> float:
    """Return the peak memory above that of the loaded model, in MiB, of generating and writing one clip."""
    pipe = LandscapeVideoPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    stream = stream_clip(pipe, "mist over a lake", TextToVideoSettings(num_frames=16, steps=1, seed=1, flow="dis"))
    list(stream.frames)  # libraries allocate their buffers
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings = TextToVideoSettings(num_frames=num_frames, steps=1, seed=1, flow="dis")
    stream = stream_clip(pipe, "mist over a lake", settings)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_video(args.output_dir / f"memory_{num_frames}.mp4", stream.frames, stream.fps)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SHANSHUI_TINY, help="Pipeline folder (default: shanshui-tiny)")
    parser.add_argument("--prompts", type=int, default=100, help="Number of prompts (default: 100)")
    parser.add_argument("--num_frames", type=int, default=48, help="Frames per clip (default: 48)")
    parser.add_argument("--steps", type=int, default=25, help="Denoising steps (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the first clip (default: 0)")
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("runs/long_video"),
        help="Where to write results (default: runs/long_video)",
    )
    parser.add_argument("--memory", type=int, nargs="+", metavar="FRAMES", help="Measure peak memory instead")
    parser.add_argument("--memory_of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(f"{measure_memory(args, args.memory_of):.1f}")
    elif args.memory:
        for num_frames in args.memory:  # the peak of a process never falls, so each length has its own
            command = [sys.executable, __file__, "--memory_of", str(num_frames), "--model", str(args.model)]
            command += ["--output_dir", str(args.output_dir)]
            peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            print(f"{num_frames} frames: {peak} MiB above the loaded model")
    else:
        generate_and_measure(args)


if __name__ == "__main__":
    main()
