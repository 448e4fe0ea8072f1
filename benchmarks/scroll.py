"""Measure handscrolls: whether still parts agree with the image of the scroll, and how much the rest moves.

    python benchmarks/scroll.py --scrolls 3 --length 2 --steps 10 --output_dir runs/scroll

A scroll that is measured already is not generated again. It writes `scrolls.jsonl`, the image of each scroll, and
`table.md` with means and 95 % intervals, beside the motion of rendered clips with a still camera.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape_video.evaluation.metrics.intervals import bootstrap, mean
from landscape_video.files import write_text
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.scroll import ScrollDecoder, ScrollSampler
from landscape_video.generation.scroll_fusion import picture_of
from landscape_video.generation.scroll_settings import ScrollSettings
from landscape_video.generation.settings import ModelSettings
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.landscape_optical_flow import load_flow_estimator
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import FPS, Scene


FIGURES = {
    "agreement": "still parts and image, dB",
    "still": "still share",
    "motion": "motion, px",
    "seam": "seam ratio",
}
PALETTES = {"ink": "an ink", "blue_green": "a blue-green", "autumn": "an autumn"}
PROMPT = "{} scroll of three layers of mountains, mist drifting right, a boat sails left on a river"
STILL = 0.5  # pixels of flow at 256 pixels of height: less is standing still


def fastest(flow: torch.Tensor) -> float:
    """Return the mean length of the largest 5 % of a flow, (height, width)."""
    return flow.flatten().topk(flow.numel() // 20).values.mean().item()


def measure(strips: torch.Tensor, decoder: ScrollDecoder, picture: np.ndarray) -> dict[str, float]:
    """
    Measure a scroll. Frames are compared on the canvas, so the camera's own motion does not count.

    Args:
        strips: Latents of all frames.
        decoder: Their decoder.
        picture: The whole scroll, uint8 `(height, canvas, 3)`.

    Returns:
        `"agreement"`: PSNR between frames and image where the flow to the next frame is below `STILL`. `"still"`:
        share of such pixels. `"motion"`: see `fastest`. `"seam"`: largest over median difference of neighboring
        columns of the image, both averaged over the width of a latent.
    """
    path, estimate = decoder.path, load_flow_estimator("dis")
    image = torch.from_numpy(picture).permute(2, 0, 1) / 255
    errors, shares, speeds = [], [], []
    before = decoder.decode(strips[0])
    for frame in range(len(strips) - 1):
        after = decoder.decode(strips[frame + 1])
        pair = decoder.view(before, frame, frame), decoder.view(after, frame + 1, frame)
        flow = estimate(pair[0][None], pair[1][None])[0].norm(dim=0)
        is_still = flow < STILL
        left = path.left(frame)
        error = (pair[0] - image[:, :, left : left + pair[0].shape[2]]).square().mean(dim=0)
        errors.append(error[is_still].mean().item() if is_still.any() else 0.0)
        shares.append(is_still.float().mean().item())
        speeds.append(fastest(flow))
        before = after
    steps = 255 * (image[:, :, 1:] - image[:, :, :-1]).abs().mean(dim=(0, 1))
    steps = torch.nn.functional.avg_pool1d(steps[None, None], path.unit, stride=1).flatten()
    return {
        "agreement": -10 * np.log10(np.mean(errors)),
        "still": float(np.mean(shares)),
        "motion": float(np.mean(speeds)),
        "seam": float(steps.max() / steps.median().clamp(min=0.5)),
    }


def rendered_motion(palette: str, seed: int, height: int) -> dict[str, float]:
    """Return `"motion"` and `"still"` of a rendered clip of the same things with a still camera."""
    scene = Scene(palette=palette, layers=3, camera="still", water="river", boat="left", mist="right", seed=seed)
    frames = torch.from_numpy(render_clip(scene, [frame / FPS for frame in range(16)])).permute(0, 3, 1, 2) / 255
    frames = torch.nn.functional.interpolate(frames, (height, height), mode="bicubic").clamp(0, 1)
    flow = load_flow_estimator("dis")(frames[:-1], frames[1:]).norm(dim=1)
    return {"motion": float(np.mean([fastest(one) for one in flow])), "still": (flow < STILL).float().mean().item()}


def table(records: list[dict[str, Any]]) -> str:
    """Make the Markdown table: means with 95 % intervals, and the number of scrolls."""
    rows = []
    for way in dict.fromkeys(record["way"] for record in records):
        of_way = [record for record in records if record["way"] == way]
        values = [[record[figure] for record in of_way if figure in record] for figure in FIGURES]
        rows.append([way, str(len(of_way)), *[bootstrap(mean, np.array(one)).text() if one else "" for one in values]])
    return markdown_table(["way", "n", *FIGURES.values()], rows) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrolls", type=int, default=3, help="Number of scrolls (default: 3)")
    parser.add_argument("--length", type=float, default=2, help="Length in screens (default: 2)")
    parser.add_argument("--width", type=int, help="Width of a screen in pixels (default: twice the model's)")
    parser.add_argument("--steps", type=int, default=10, help="Denoising steps (default: 10)")
    parser.add_argument("--stillness", type=float, nargs="+", default=[0.03, 0], help="Levels (default: 0.03 0)")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/scroll"), help="Results (default: runs/scroll)")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    file = args.output_dir / "scrolls.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    pipe = load_pipeline(ModelSettings())
    for seed in range(args.scrolls):
        palette = list(PALETTES)[seed % len(PALETTES)]
        for way in [f"stillness {level:g}" for level in args.stillness] + ["rendered clips"]:
            key = {"way": way, "seed": seed, "length": args.length, "width": args.width, "steps": args.steps}
            if any(key.items() <= record.items() for record in records):
                continue
            if way == "rendered clips":
                height = pipe.clip_size()[0] * getattr(pipe.frame_decoder, "enlargement", 1)
                figures = rendered_motion(palette, seed, height)
            else:
                settings = ScrollSettings(
                    length=args.length,
                    width=args.width,
                    steps=args.steps,
                    seed=seed,
                    stillness=float(way.split()[1]),
                    interpolate=False,
                )
                settings = settings.filled_in(pipe.resolve_sampling())
                sampler = ScrollSampler(pipe, PROMPT.format(PALETTES[palette]), settings)
                strips = sampler.run()
                decoder = ScrollDecoder(pipe, sampler.path, settings)
                picture = decoder.picture(picture_of(strips, sampler.path))
                picture.save(args.output_dir / f"{seed:03d} {way}.png")
                figures = measure(strips, decoder, np.array(picture))
            records.append(key | figures)
            with file.open("a") as lines:
                lines.write(json.dumps(records[-1]) + "\n")
            write_text(args.output_dir / "table.md", table(records))


if __name__ == "__main__":
    main()
