"""Export the trained family in half precision, as the folder that the package bundles, with its model card.

The card gives sizes, training figures from the logs, and tables of measurements.
"""

import json
import logging
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import MotionAdapter, UNet2DModel
from safetensors import safe_open
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from landscape_video.files import hash_file, read_json_lines, write_directory, write_json, write_text
from landscape_video.generation.depth_member import WEIGHTS
from motion_adapter.export import export_pipeline, save_component
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import ImageRetention
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder
from pipeline_landscape_video.pipeline import LandscapeVideoPipeline
from shanshui.renderer.captions import words_of
from shanshui.renderer.scene import LANGUAGES, TRAINING_SEED
from shanshui.stages.family_run import FamilyRun, load_image_model, resumed_seconds
from shanshui.stages.training_data import training_captions, training_clips


# `{...}` is filled in. A test checks that the card of the bundled family contains everything else word for word.
CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
language: [en, zh]
tags: [text-to-video, landscape-painting, animatediff, motion-adapter]
---

# shanshui-tiny

A complete model family for text-to-video and image-to-video in {megabytes:.0f} MB. With it, `landscape-video generate`
works without network access. It has the same parts as the full-size system:

- a CLIP model, used for offline metrics; its text tower, trained further, is the text encoder;
- a VAE and an image UNet;
- a decoder that turns the VAE's latents into frames of twice the size;
- a motion adapter with Versatile and Sparse-Causal attention, trained with the contrastive loss (NADM).

Clips are sampled at 128 x 128 pixels, 8 to 16 frames long, and `landscape-video` decodes them to 256 x 256. All
training data was rendered by `training/shanshui/render.py`, so the model generates landscapes in that style only:
mountains in two to five layers, lake, river, waterfall, boat, mist, birds, pines, pavilion, sun and moon. There are
five palettes (ink, blue-green, autumn, snow, dawn), and the camera stays still, pans left or right, or moves closer or
away. Prompts can be English or Chinese; `words.json` lists the known words. The renderer also draws rain, snowfall,
falling petals and bamboo. These are too fine for the latents of this model, and its training data does not contain
them.

```python
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline

pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
prompt = "mist drifting right over three ranges of blue-green mountains, a boat on a calm lake"
frames = pipe(prompt).frames[0]
```

These frames are 128 x 128. For 256 x 256, as `landscape-video` writes them:

```python
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder

pipe.frame_decoder = DoubleSizeDecoder.from_pretrained(SHANSHUI_TINY / "decoder")
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
    "depth_member": f"depth/{WEIGHTS}",
    "depth_model": "depth/model/diffusion_pytorch_model.safetensors",
}

logger = logging.getLogger("train_tiny")


def write_model_card(family: Path, run: FamilyRun) -> None:
    """Write `family`/README.md from its weights and the logs of the run; `measure.py --card` adds measurements."""
    files = {part: family / file for part, file in PARTS.items() if (family / file).exists()}
    added = [stage for stage in ("decoder", "depth_model", "depth_member") if stage in files]
    stages = ("clip", "text", "vae", "unet", "motion", *added)
    on_gpu = run.device.type == "cuda"
    card = CARD.format(
        megabytes=sum(file.stat().st_size for file in family.rglob("*.safetensors")) / 1e6,
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
    log = read_json_lines(run_dir / stage / "log.jsonl")
    if not log:
        return stage, "-", "-", "-"
    last = log[-1]
    minutes = last["minutes"] if "minutes" in last else resumed_seconds(log) / 60
    figures = {name: value for name, value in last.items() if name not in ("step", "minutes", "seconds")}
    text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))
    return stage, str(last["step"]), f"{minutes:.1f}", text


def export_family(run: FamilyRun) -> None:
    """Write the pipeline, the image retention branch if it is trained, the whole CLIP and the model card.

    The previous content of the folder is removed, as it belongs to other weights.
    """
    motion_adapter = MotionAdapter.from_pretrained(run.run_dir / "motion" / "motion_adapter")
    pipe = LandscapeVideoPipeline(**load_image_model(run), motion_adapter=motion_adapter)
    clip_folder, branch = run.model("clip"), run.run_dir / "retention" / "image_retention"
    with write_directory(run.export_dir) as target:
        export_pipeline(pipe, target, dtype=torch.float16, include_code=False, overwrite=True)
        CLIPModel.from_pretrained(clip_folder).half().save_pretrained(target / "clip")
        # transformers reads the dtype from the file; float16 would load as such and fail beside float32 parts.
        config = json.loads((target / "clip" / "config.json").read_text())
        write_json(target / "clip" / "config.json", config | {"dtype": "float32"})
        CLIPTokenizer.from_pretrained(clip_folder).save_pretrained(target / "clip")
        CLIPImageProcessorPil.from_pretrained(clip_folder).save_pretrained(target / "clip")
        words = json.dumps(known_words(run), ensure_ascii=False, indent=0) + "\n"
        (target / "words.json").write_text(words, encoding="utf-8")
        if branch.is_dir():
            (target / "image_retention").mkdir()
            save_component(ImageRetention.from_pretrained(branch), target / "image_retention", torch.float16)
        if run.model("decoder").is_dir():
            (target / "decoder").mkdir()
            save_component(DoubleSizeDecoder.from_pretrained(run.model("decoder")), target / "decoder", torch.float16)
        export_depth(run, target / "depth")
        write_model_card(target, run)
    size = sum(file.stat().st_size for file in run.export_dir.rglob("*.safetensors"))
    logger.info("%s: all weights %.1f MB", run.export_dir, size / 1e6)


def export_depth(run: FamilyRun, folder: Path) -> None:
    """Write the depth member of the image UNet and the depth model into `folder`, as far as they are trained."""
    if run.model("depth_member").is_dir():
        folder.mkdir()
        shutil.copy(run.model("depth_member") / WEIGHTS, folder / WEIGHTS)
    if run.model("depth_model").is_dir():
        (folder / "model").mkdir(parents=True)
        save_component(UNet2DModel.from_pretrained(run.model("depth_model")), folder / "model", torch.float16)


def known_words(run: FamilyRun) -> list[str]:
    """Return the words of the training captions; the pipeline warns about others in a prompt."""
    captions = training_captions(training_clips(run)[1])
    numbered = ((k, text) for texts in captions for k, text in enumerate(texts))
    words = {word for k, text in numbered for word in words_of(text, LANGUAGES[k % len(LANGUAGES)])}
    return sorted(word for word in words if word.isalpha())
