"""The model card of shanshui-tiny: sizes, training figures from the logs, and what `measure.py` finds."""

import json
import platform
from itertools import pairwise
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open

from landscape_video.files import hash_file
from pipeline_landscape_video.embedded_model import EMBEDDED


HEADER = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
language: [en, zh]
tags: [text-to-video, landscape-painting, animatediff, motion-adapter]
---

# shanshui-tiny

A complete text-to-video family in {megabytes:.0f} MB, so that `landscape-video generate` works without a network. It
has the parts of the real system in their roles: a CLIP, which measures offline, and whose text tower, trained further,
is the text encoder; a VAE, an image UNet, and a motion adapter with Versatile and Sparse-Causal attention trained with
the contrastive loss (NADM). Clips are 128 x 128, 8 to 16 frames. It was trained on nothing but clips that
`training/shanshui/render.py` draws, so it paints those landscapes and no others: mountains in two to five ridges,
lake, river, waterfall, boat, mist, birds, pines, pavilion, sun and moon, in five palettes (ink, blue-green, autumn,
snow, dawn), with a camera that rests, pans left or right, or moves closer or away; prompts in English or Chinese,
whose words are listed in `words.json`. Rain, snowfall, falling petals and bamboo, which the renderer also draws, are
too fine for its latents and are not in its data.

```python
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline

pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
prompt = "mist drifting right over three ranges of blue-green mountains, a boat on a calm lake"
frames = pipe(prompt, guidance_scale={guidance_scale:g}, eta={eta:g}).frames[0]  # the defaults are for larger models
```
"""

MEASURED = "\n## Measured\n"
IMAGE_TO_VIDEO = "\n## Image to video\n"

PARTS = {
    "text_encoder": "text_encoder/model.safetensors",
    "clip": "clip/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "motion_adapter": "motion_adapter/diffusion_pytorch_model.safetensors",
}


def write_model_card(family: Path, run_dir: Path, clips: int, seed: int, device: torch.device) -> None:
    """Write `family`/README.md from the weights in it and the logs in `run_dir`; `measure.py --card` adds figures."""
    megabytes = sum((family / file).stat().st_size for file in PARTS.values()) / 1e6
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        HEADER.format(megabytes=megabytes, **EMBEDDED._asdict()),
        "## Weights\n\n| part | parameters | sha256 |\n|---|---|---|",
        *(weights_row(part, family / file) for part, file in PARTS.items()),
        f"\n## Training\n\nRebuilt by `python training/shanshui/train_tiny.py`; {clips} rendered clips of 16 frames"
        f" (seed {seed}), captions in both languages. The last stages ran on {name}; torch {torch.__version__},"
        f" diffusers {diffusers.__version__}, Python {platform.python_version()}. Averages over the last log line:\n",
        "| stage | steps | minutes | figures |\n|---|---|---|---|",
        *(training_row(run_dir, stage) for stage in ("clip", "text", "vae", "unet", "motion")),
    ]
    (family / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def put_measured(card: Path, tables: str, heading: str = MEASURED) -> None:
    """Put what was measured into a model card under `heading`, in the place of what stood there."""
    text = card.read_text(encoding="utf-8")
    start = text.find(heading)
    start = len(text) if start < 0 else start
    end = text.find("\n## ", start + len(heading))
    before, after = text[:start].rstrip("\n"), text[end + 1 :] if end >= 0 else ""
    parts = [before, heading.strip(), tables.strip(), after.strip()]
    card.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def weights_row(part: str, file: Path) -> str:
    with safe_open(file, framework="pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())
    return f"| {part} | {count / 1e6:.2f} M | `{hash_file(file)[:16]}` |"


def training_row(run_dir: Path, stage: str) -> str:
    log = read_log(run_dir / stage / "log.jsonl")
    if not log:
        return f"| {stage} | - | - | - |"
    last = log[-1]
    minutes = last["minutes"] if "minutes" in last else resumed_seconds(log) / 60
    figures = {name: value for name, value in last.items() if name not in ("step", "minutes", "seconds")}
    text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))
    return f"| {stage} | {last['step']} | {minutes:.1f} | {text} |"


def read_log(path: Path) -> list[dict]:
    """The lines of a log, but for one that is being written, or was cut off; none where there is no log."""
    log = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            log.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return log


def resumed_seconds(log: list[dict]) -> float:
    """Training time of a log in which "seconds" starts anew at each resumption."""
    seconds = [line["seconds"] for line in log] + [0.0]
    return sum(last for last, after in pairwise(seconds) if after < last)
