"""Write the model card of shanshui-tiny: sizes, training figures from the logs, and tables of measurements."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open

from landscape_video.files import hash_file, write_text
from motion_adapter.markdown import markdown_table
from shanshui.renderer.scene import TRAINING_SEED
from shanshui.stages.family_run import FamilyRun, read_log, resumed_seconds


# `{...}` is filled in. A test checks that the card of the bundled family contains everything else word for word.
CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
language: [en, zh]
tags: [text-to-video, landscape-painting, animatediff, motion-adapter]
---

# shanshui-tiny

A complete text-to-video model family in {megabytes:.0f} MB. It lets `landscape-video generate` work without network
access, and has the same parts as the full-size system:

- a CLIP model, used for offline metrics; its text tower, trained further, is the text encoder;
- a VAE and an image UNet;
- a motion adapter with Versatile and Sparse-Causal attention, trained with the contrastive loss (NADM).

Clips are 128 x 128 pixels and 8 to 16 frames long. All training data was rendered by `training/shanshui/render.py`, so
the model generates landscapes in that style only: mountains in two to five layers, lake, river, waterfall, boat, mist,
birds, pines, pavilion, sun and moon. There are five palettes (ink, blue-green, autumn, snow, dawn), and the camera
stays still, pans left or right, or moves closer or away. Prompts can be English or Chinese; `words.json` lists the
known words. The renderer also draws rain, snowfall, falling petals and bamboo. These are too fine for the latents of
this model, and its training data does not contain them.

```python
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline

pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
prompt = "mist drifting right over three ranges of blue-green mountains, a boat on a calm lake"
frames = pipe(prompt).frames[0]
```

## Weights

{weights}

## Training

Rebuilt by `python training/shanshui/train_tiny.py` from {clips} rendered clips of 16 frames (seed {seed}), with
captions in both languages. The last stages ran on {machine}, with torch {torch}, diffusers {diffusers} and Python
{python}. Figures are those of the last line of each log, averaged over its steps:

{stages}
"""

MEASURED = "\n## Measured\n"
IMAGE_TO_VIDEO = "\n## Image to video\n"

PARTS = {
    "text_encoder": "text_encoder/model.safetensors",
    "clip": "clip/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "decoder": "decoder/diffusion_pytorch_model.safetensors",
    "motion_adapter": "motion_adapter/diffusion_pytorch_model.safetensors",
}


def write_model_card(family: Path, run: FamilyRun) -> None:
    """Write `family`/README.md from its weights and the logs of the run; `measure.py --card` adds measurements."""
    files = {part: family / file for part, file in PARTS.items() if (family / file).exists()}
    stages = ("clip", "text", "vae", *(["decoder"] if "decoder" in files else []), "unet", "motion")
    on_gpu = run.device.type == "cuda"
    card = CARD.format(
        megabytes=sum(file.stat().st_size for file in files.values()) / 1e6,
        weights=weights_table(files),
        stages=training_table(run.run_dir, stages),
        clips=run.clips,
        seed=TRAINING_SEED,
        machine=torch.cuda.get_device_name(run.device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        torch=torch.__version__,
        diffusers=diffusers.__version__,
        python=platform.python_version(),
    )
    (family / "README.md").write_text(card, encoding="utf-8")


def put_measured(card: Path, tables: str, heading: str = MEASURED) -> None:
    """Put tables into a model card below `heading`, in place of the previous content of that section."""
    before, _, rest = card.read_text(encoding="utf-8").partition(heading)
    _, mark, after = rest.partition("\n## ")
    parts = [before.rstrip("\n"), heading.strip(), tables.strip(), (mark + after).strip()]
    write_text(card, "\n\n".join(filter(None, parts)) + "\n")


def weights_table(files: Mapping[str, Path]) -> str:
    """Format a table of weights files by part: their parameters and the first 16 hex digits of their hashes."""
    rows = []
    for part, file in files.items():
        with safe_open(file, framework="pt") as weights:
            count = sum(weights.get_tensor(name).numel() for name in weights.keys())
        rows.append((part, f"{count / 1e6:.2f} M", f"`{hash_file(file)[:16]}`"))
    return markdown_table(("part", "parameters", "sha256"), rows)


def training_table(run_dir: Path, stages: Sequence[str]) -> str:
    """Format a table of stages from the last lines of their logs."""
    return markdown_table(
        ("stage", "steps", "minutes", "figures"), [_training_row(run_dir, stage) for stage in stages]
    )


def _training_row(run_dir: Path, stage: str) -> tuple[str, ...]:
    """Return the table row of a stage from the last line of its log; dashes without a log."""
    log = read_log(run_dir / stage / "log.jsonl")
    if not log:
        return stage, "-", "-", "-"
    last = log[-1]
    minutes = last["minutes"] if "minutes" in last else resumed_seconds(log) / 60
    figures = {name: value for name, value in last.items() if name not in ("step", "minutes", "seconds")}
    text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))
    return stage, str(last["step"]), f"{minutes:.1f}", text
