"""Compare ways to edit clips on rendered scenes, whose true edited version the renderer draws as well.

    python benchmarks/editing.py --scene_classifier runs/shanshui/measure/classifier/classifier.safetensors \\
        --edits 24 --seeds 3 --output_dir runs/editing

All ways get the same clips of held-out scenes, prompts and seeds. A clip that is measured already is not made again,
so the command can be stopped, by `--minutes` too, and repeated. It writes `clips.jsonl`, a contact sheet for each edit
with four frames of every way, and `tables.md` with intervals over edits. `training/shanshui/measure.py` trains the
classifier. `--round_trips 3` measures inversion and sampling with the same prompt as well.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch

from editing_figures import measure_edit, psnr, table
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from landscape_video.evaluation.metrics.video_features import ClipScorer
from landscape_video.files import write_text
from landscape_video.generation.depth import normalize_depth
from landscape_video.generation.depth_member import load_depth_member
from landscape_video.training.run.one_shot_tuning import tune_one_shot
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoEditingPipeline
from pipeline_landscape_video.landscape_spatio_temporal_attention import load_tuned, remove_spatio_temporal_attention
from shanshui.measuring.classifier_training import reconstruct
from shanshui.renderer.edits import KINDS, Edit, draw_edits
from shanshui.renderer.scene import FPS, HELD_OUT_SEED


@dataclass(frozen=True)
class Way:
    """One way to edit a clip.

    Args:
        edit: Function from pipeline, clip and seed to the edited frames.
        options: Keyword arguments of `edit`.
        is_random: Whether the result depends on the seed.
        tuned: Whether the model is tuned on the clip first.
        reads_depth: Whether the model reads depth, which is exact here.
    """

    edit: Callable[..., np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    is_random: bool = True
    tuned: bool = False
    reads_depth: bool = False


@dataclass(frozen=True)
class Clip:
    """A clip to edit: its frames and those of the true edited clip, uint8, its prompts and its depth."""

    edit: Edit
    source: np.ndarray
    true: np.ndarray
    depth: torch.Tensor

    @classmethod
    def render(cls, edit: Edit, num_frames: int) -> "Clip":
        """Render an edit at the frame rate of the model."""
        times = [step / FPS for step in range(num_frames)]
        depth = torch.from_numpy(edit.render_depth(times))[:, None]
        return cls(edit, *edit.render(times), normalize_depth(depth))


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Convert frames in [0, 1] to uint8."""
    return (255 * np.clip(frames, 0, 1)).round().astype(np.uint8)


def edit_clip(
    pipe: LandscapeVideoEditingPipeline, clip: Clip, seed: int, steps: int, prompt: str | None = None, **options: Any
) -> np.ndarray:
    """Edit a clip with the pipeline."""
    depth = clip.depth if pipe.reads_depth else None
    result = pipe(
        clip.source,
        clip.edit.source_prompt if prompt is None else prompt,
        clip.edit.prompt if prompt is None else prompt,
        depth=depth,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **options,
    )
    return to_uint8(result.frames[0])


@torch.no_grad()
def sdedit(pipe: LandscapeVideoEditingPipeline, clip: Clip, seed: int, steps: int, strength: float) -> np.ndarray:
    """SDEdit (Meng et al., 2022): add noise up to a share `strength` of the steps, and denoise with the new prompt."""
    generator, scheduler = torch.Generator().manual_seed(seed), pipe.scheduler
    sampling = pipe.resolve_sampling(guidance_scale=None, eta=None)
    pixels = torch.from_numpy(clip.source).permute(0, 3, 1, 2) / 127.5 - 1
    latents = pipe.vae.encode(pixels).latent_dist.mean.transpose(0, 1)[None] * pipe.vae.config.scaling_factor
    prompt, negative = pipe.encode_prompt(clip.edit.prompt, "cpu", 1, True)
    embeds = torch.cat([negative, prompt]).repeat_interleave(len(pixels), dim=0)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[-max(1, round(strength * steps)) :]
    latents = scheduler.add_noise(latents, torch.randn(latents.shape, generator=generator), timesteps[:1])
    for timestep in timesteps:
        without, given = pipe.unet(torch.cat([latents] * 2), timestep, encoder_hidden_states=embeds).sample.chunk(2)
        guided = without + sampling["guidance_scale"] * (given - without)
        latents = scheduler.step(guided, timestep, latents, eta=sampling["eta"], generator=generator).prev_sample
    return to_uint8(pipe.decode_frames(latents, 16)[0].permute(1, 2, 3, 0).numpy())


def keep_source(pipe: LandscapeVideoEditingPipeline, clip: Clip, seed: int, steps: int) -> np.ndarray:
    """Return the source as the autoencoder reconstructs it: an edit that changes nothing."""
    return reconstruct(pipe.vae, clip.source)


def draw_true(pipe: LandscapeVideoEditingPipeline, clip: Clip, seed: int, steps: int) -> np.ndarray:
    """Return the true edited clip as the autoencoder reconstructs it: the ceiling of all figures."""
    return reconstruct(pipe.vae, clip.true)


DEFAULT = "paired 1.0"
PAIRED, INVERSION = partial(edit_clip, edit_mode="paired"), partial(edit_clip, edit_mode="inversion")
WAYS = {
    "source": Way(keep_source, is_random=False),
    "true edit": Way(draw_true, is_random=False),
    **{f"paired {strength}": Way(PAIRED, {"strength": strength}) for strength in (1.0, 0.9, 0.8)},
    "inversion": Way(INVERSION, {"strength": 0.8}, is_random=False),
    "plain inversion": Way(INVERSION, {"inversion_iterations": 0, "strength": 1.0}, is_random=False),
    **{f"SDEdit {strength}": Way(sdedit, {"strength": strength}) for strength in (0.4, 0.6, 0.8)},
    "paired, tuned": Way(PAIRED, tuned=True),
    "Tune-A-Video": Way(INVERSION, {"inversion_iterations": 0, "strength": 1.0}, is_random=False, tuned=True),
    "inversion, tuned": Way(INVERSION, is_random=False, tuned=True),
    "paired, depth": Way(PAIRED, reads_depth=True),
    "paired, tuned, depth": Way(PAIRED, tuned=True, reads_depth=True),
    "inversion, tuned, depth": Way(INVERSION, is_random=False, tuned=True, reads_depth=True),
}
UNTUNED = [name for name, way in WAYS.items() if not way.tuned and not way.reads_depth]


class Editor:
    """Edits clips in each way; loads what the ways need once.

    Args:
        tune_steps: Steps of one-shot tuning.
        cache_dir: Folder of tuned weights.
    """

    def __init__(self, tune_steps: int, cache_dir: Path) -> None:
        self.tune_steps, self.cache_dir = tune_steps, cache_dir
        self.pipes: dict[bool, LandscapeVideoEditingPipeline] = {}

    def pipe(self, reads_depth: bool = False) -> LandscapeVideoEditingPipeline:
        """Return the bundled model, or its depth member."""
        if reads_depth not in self.pipes:
            pipe = LandscapeVideoEditingPipeline.from_pretrained(SHANSHUI_TINY)
            pipe.set_progress_bar_config(disable=True)
            if reads_depth:
                load_depth_member(pipe.unet, SHANSHUI_TINY / "depth")
            pipe.optimize()
            self.pipes[reads_depth] = pipe
        return self.pipes[reads_depth]

    @contextmanager
    def tuned(self, pipe: LandscapeVideoEditingPipeline, clip: Clip) -> Iterator[None]:
        """Tune a model on a clip in a block."""
        depth = clip.depth if pipe.reads_depth else None
        options = {"max_train_steps": self.tune_steps, "num_frames": len(clip.source)}
        file = tune_one_shot(
            pipe, clip.source, clip.edit.source_prompt, depth, lambda *_: None, self.cache_dir, **options
        )
        load_tuned(pipe.unet, file)
        try:
            yield
        finally:
            remove_spatio_temporal_attention(pipe.unet)

    def edit(self, way: Way, clip: Clip, seed: int, steps: int) -> np.ndarray:
        """Edit a clip, uint8 (num_frames, height, width, 3)."""
        pipe = self.pipe(way.reads_depth)
        if not way.tuned:
            return way.edit(pipe, clip, seed, steps, **way.options)
        with self.tuned(pipe, clip):
            return way.edit(pipe, clip, seed, steps, **way.options)


class Records:
    """Lines of a JSONL file, each with a key and figures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def holds(self, key: dict[str, Any]) -> bool:
        """Whether a line has this key."""
        return any(key.items() <= line.items() for line in self.lines)

    def add(self, line: dict[str, Any]) -> None:
        """Append a line to the file."""
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def compare(args: argparse.Namespace, editor: Editor, ends_at: float) -> None:
    """Edit and measure what is missing, one seed after the other, and write the tables after each edit."""
    classifier, scorer = SceneClassifier.load(args.scene_classifier), ClipScorer()
    records = Records(args.output_dir / "clips.jsonl")
    for seed, (number, edit) in product(range(args.seeds), enumerate(draw_edits(args.edits, HELD_OUT_SEED))):
        if edit.attribute not in classifier.valid:
            raise SystemExit(f"editing: the classifier must be valid for {edit.attribute!r}, see measure.py.")
        clip, rows = None, {}
        for name in args.ways:
            way = WAYS[name]
            key = {"way": name, "edit": number, "seed": seed, "steps": args.steps, "num_frames": args.num_frames}
            key |= {"tune_steps": args.tune_steps} if way.tuned else {}
            if records.holds(key) or (seed > 0 and not way.is_random):
                continue
            if time.monotonic() > ends_at:
                return
            clip = clip or Clip.render(edit, args.num_frames)
            frames = editor.edit(way, clip, seed, args.steps)
            figures = measure_edit(frames, clip.source, clip.true, edit, classifier, scorer)
            records.add(key | {"kind": edit.kind, "attribute": edit.attribute} | figures)
            rows[name] = frames
        if rows:
            write_sheet(args.output_dir / f"{number:02d} seed {seed} {edit.kind}.png", rows)
            write_text(args.output_dir / "tables.md", tables(records.lines, args))


def measure_round_trips(args: argparse.Namespace, editor: Editor, ends_at: float) -> None:
    """Measure how well inversion and sampling with the same prompt lead back, and equal prompts in paired mode."""
    records = Records(args.output_dir / "round_trips.jsonl")
    trips = [("inversion", strength, count) for strength in (0.8, 1.0) for count in (0, 1, 2)] + [("paired", 1.0, 0)]
    for (number, edit), trip in product(enumerate(draw_edits(args.round_trips, HELD_OUT_SEED)), trips):
        mode, strength, count = trip
        key = {"edit": number, "mode": mode, "strength": strength, "iterations": count, "steps": args.steps}
        key["num_frames"] = args.num_frames
        if records.holds(key) or time.monotonic() > ends_at:
            continue
        clip, pipe = Clip.render(edit, args.num_frames), editor.pipe()
        options = {"edit_mode": mode, "strength": strength, "inversion_iterations": count}
        prompt, options["guidance_scale"] = ("", 1.0) if mode == "inversion" else (edit.source_prompt, None)
        frames = edit_clip(pipe, clip, 0, args.steps, prompt, **options)
        records.add(key | {"psnr": psnr(frames, reconstruct(pipe.vae, clip.source))})
    rows = []
    for mode, strength, count in trips:
        of_trip = {"mode": mode, "strength": strength, "iterations": count, "steps": args.steps}
        values = [line["psnr"] for line in records.lines if of_trip.items() <= line.items()]
        if values:
            means = f"{np.mean(values):.1f}", f"{min(values):.1f}"
            rows.append([mode, str(strength), str(count), str(len(values)), *means])
    header = ["mode", "strength", "iterations", "clips", "PSNR to the VAE's reconstruction, dB", "least"]
    write_text(args.output_dir / "round_trips.md", markdown_table(header, rows) + "\n")


def tables(lines: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """Make the page of tables, of all edits and of each kind."""
    lines = [line for line in lines if line["steps"] == args.steps and line["num_frames"] == args.num_frames]
    text = (
        f"Held-out rendered scenes, {args.num_frames} frames of 128 x 128 pixels, {args.steps} steps, seeds 0 to"
        f" {args.seeds - 1}, shanshui-tiny, float32, {platform.machine()} CPU, torch {torch.__version__}, diffusers"
        f" {diffusers.__version__}. CLIP is shanshui-clip, so its values do not compare with published ones.\n\n"
        f"{table(lines, DEFAULT)}"
    )
    for kind in KINDS:
        if any(line["kind"] == kind for line in lines):
            text += f"\n## Kind: {kind}\n\n{table(lines, DEFAULT, [kind])}"
    return text


def write_sheet(path: Path, rows: dict[str, np.ndarray], count: int = 4) -> None:
    """Write `count` frames of each clip in a row with its name."""
    strips = []
    for name, clip in rows.items():
        chosen = clip[np.linspace(0, len(clip) - 1, count).round().astype(int)]
        label = np.full((clip.shape[1], 150, 3), 255, np.uint8)
        cv2.putText(label, name, (4, clip.shape[1] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        strips.append(np.concatenate([label, *chosen], axis=1))
    cv2.imwrite(str(path), np.concatenate(strips)[..., ::-1])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--scene_classifier", type=Path, required=True, help="Classifier that measure.py trains")
    add("--edits", type=int, default=24, help="Number of edits (default: 24)")
    add("--seeds", type=int, default=3, help="Seeds of each edit (default: 3)")
    add("--num_frames", type=int, default=8, help="Frames per clip (default: 8)")
    add("--steps", type=int, default=25, help="Steps (default: 25)")
    add("--tune_steps", type=int, default=300, help="Steps of one-shot tuning (default: 300)")
    add("--ways", nargs="+", choices=WAYS, default=UNTUNED, metavar="WAY", help="Ways (default: untuned, no depth)")
    add("--round_trips", type=int, default=0, help="Clips for round trips (default: 0)")
    add("--minutes", type=float, default=600, help="Begin no edit after this time (default: 600)")
    add("--output_dir", type=Path, default=Path("runs/editing"), help="Results (default: runs/editing)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cv2.setNumThreads(1)  # frames are small: starting threads takes longer than the work itself
    args.output_dir.mkdir(parents=True, exist_ok=True)
    editor, ends_at = Editor(args.tune_steps, args.output_dir / "tuned"), time.monotonic() + 60 * args.minutes
    if args.round_trips:
        measure_round_trips(args, editor, ends_at)
    compare(args, editor, ends_at)


if __name__ == "__main__":
    main()
