"""Validate an exported folder: its files, and that a fresh process without this package generates the same frames."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, MotionAdapter
from safetensors.torch import load_file
from torch import nn

from pipeline_landscape_video.landscape_image_retention import ImageRetention

from .code_files import BRANCH, BRANCH_CODE, branch_code, code_files
from .weights_files import check_weights


# Small enough for one second; the interpolation needs four frames to run all of its formulas.
PROMPT = "mist over mountains"
SAMPLE = {
    "num_frames": 4,
    "num_inference_steps": 2,
    "height": 64,
    "width": 64,
    "flow_estimator": "dis",
    "output_type": "pt",
}

# The script of the fresh process. It blocks the packages of this project, so that the folder's own code is used.
LOADING = """
import json, sys

for name in ("pipeline_landscape_video", "motion_adapter"):
    sys.modules[name] = None

import torch
from diffusers import DiffusionPipeline, MotionAdapter
from safetensors.torch import save_file

folder, base, threads, prompt, sample, output = json.loads(sys.argv[1])
torch.set_num_threads(threads)
if base is None:
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
else:
    adapter = MotionAdapter.from_pretrained(folder)
    pipe = DiffusionPipeline.from_pretrained(
        base, motion_adapter=adapter, custom_pipeline=folder, trust_remote_code=True
    )
assert type(pipe).__module__.startswith("diffusers_modules."), type(pipe)
pipe.set_progress_bar_config(disable=True)
if "image_retention" in pipe.components:
    sample["image"] = torch.linspace(0, 1, 3 * sample["height"] * sample["width"]).view(3, sample["height"], -1)
frames = pipe(prompt, generator=torch.Generator().manual_seed(0), **sample).frames
save_file({"frames": frames.contiguous()}, output)
"""


def is_export(directory: str | Path) -> bool:
    """Return whether a folder is an export: whether it contains the code files."""
    return not _missing(code_files(), Path(directory))


def check_export(directory: str | Path, dtype: torch.dtype | None = None) -> None:
    """Check the files of an exported pipeline or adapter, without running their code.

    Args:
        directory: Output of `export_pipeline` or `export_adapter`.
        dtype: Required dtype of the weights; if `None`, each may be float32, float16 or bfloat16.

    Raises:
        ValueError: A code file or a folder is missing, or weights are wrong, see `check_weights`. The message names
            them.
    """
    directory = Path(directory)
    index_file = directory / "model_index.json"
    if not index_file.is_file():
        check_weights(directory, MotionAdapter, dtype)
        _check_code(code_files(), directory)
        return
    index = json.loads(index_file.read_text(encoding="utf-8"))
    for name, entry in index.items():
        if name.startswith("_") or entry == [None, None]:
            continue
        library, class_name = entry
        if not (directory / name).is_dir():
            raise ValueError(f"{directory}: the folder {name} is missing, which its model_index.json names.")
        if (name, library, class_name) == (BRANCH, BRANCH_CODE, ImageRetention.__name__):
            _check_code([branch_code()], directory / BRANCH)
            component_class = ImageRetention
        elif library not in ("diffusers", "transformers"):
            raise ValueError(f"{index_file}: `{name}` comes from {library!r}, which is not a public library.")
        else:
            component_class = getattr(importlib.import_module(library), class_name)
        if issubclass(component_class, nn.Module):
            check_weights(directory / name, component_class, dtype)
    if not isinstance(index["_class_name"], str):
        _check_code(code_files(image_to_video=BRANCH in index), directory)


def _check_code(files: list[Path], folder: Path) -> None:
    if missing := _missing(files, folder):
        raise ValueError(f"{folder}: code files are missing: {', '.join(missing)}.")


def _missing(files: list[Path], folder: Path) -> list[str]:
    return [file.name for file in files if not (folder / file.name).is_file()]


def sample_frames(pipe: DiffusionPipeline) -> torch.Tensor:
    """Generate the clip to compare: (1, 7, 3, 64, 64) in [0, 1], from seed 0 in two steps.

    Args:
        pipe: Pipeline on the CPU in float32, as others load the files. An image-to-video pipeline gets a color ramp as
            its image.
    """
    pipe.set_progress_bar_config(disable=True)
    height, width = SAMPLE["height"], SAMPLE["width"]
    ramp = torch.linspace(0, 1, 3 * height * width).view(3, height, width)
    image = {"image": ramp} if BRANCH in pipe.components else {}
    return pipe(PROMPT, generator=torch.Generator().manual_seed(0), **SAMPLE, **image).frames


def check_loads_elsewhere(directory: str | Path, frames: torch.Tensor, base_model: str | Path | None = None) -> None:
    """Load an export in a fresh process and compare its frames bit for bit.

    The process is offline, cannot import this package and starts with an empty cache of remote code.

    Args:
        directory: Output of `export_pipeline` or `export_adapter`.
        frames: Output of `sample_frames`, before the export.
        base_model: Folder of the image model, for an adapter.

    Raises:
        ValueError: The export does not load (with the last line of the error), or generates different frames.
    """
    directory = str(Path(directory).absolute())
    with tempfile.TemporaryDirectory() as scratch:
        output = str(Path(scratch, "frames.safetensors"))
        base = None if base_model is None else str(Path(base_model).absolute())
        arguments = json.dumps([directory, base, torch.get_num_threads(), PROMPT, SAMPLE, output])
        environment = os.environ | {"HF_MODULES_CACHE": str(Path(scratch, "modules")), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-c", LOADING, arguments]
        finished = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        if finished.returncode:
            *_, reason = [f"exit code {finished.returncode}", *finished.stderr.strip().splitlines()]
            raise ValueError(f"{directory}: does not load in a fresh process: {reason}")
        generated = load_file(output)["frames"]
    if not torch.equal(generated, frames):
        difference = f"shape {tuple(generated.shape)} instead of {tuple(frames.shape)}"
        if generated.shape == frames.shape:
            difference = f"difference {(generated - frames).abs().max():.3g}"
        raise ValueError(f"{directory}: generates different frames in a fresh process ({difference}).")
