"""
Whether an exported folder is what it should be: every weight there, once, in its shape and finite; and loaded in a
fresh process, where this package cannot be imported, it paints the same frames to the bit.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, MotionAdapter
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from pipeline_landscape_video.landscape_image_retention import ImageRetention

from .code_files import BRANCH, BRANCH_CODE, code_files
from .weights_files import FLOATS, check_finite, check_names_and_shapes, raise_for_names, read_header, read_tensors


# Small enough for a second; four frames are enough for every formula of the interpolation.
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
    """Whether a folder looks like what `export_pipeline` or `export_adapter` wrote, rather than another model."""
    return all((Path(directory) / file.name).is_file() for file in code_files())


def check_export(directory: str | Path, dtype: torch.dtype | None = None) -> None:
    """
    Check the files of an exported pipeline or adapter, without running any of its code.

    Args:
        directory: what `export_pipeline` or `export_adapter` wrote.
        dtype: what all floating-point weights have to be in; `None` accepts float32, float16 and bfloat16.

    Raises:
        ValueError: it names the file, and the weights that are missing, unknown, of a wrong shape or dtype, named
            twice or not finite; or the code file that is missing.
    """
    directory = Path(directory)
    index_file = directory / "model_index.json"
    if not index_file.is_file():
        check_weights(directory, MotionAdapter, dtype)
        check_code(directory)
        return
    index = json.loads(index_file.read_text(encoding="utf-8"))
    for name, entry in index.items():
        if name.startswith("_") or entry == [None, None]:
            continue
        library, class_name = entry
        if not (directory / name).is_dir():
            raise ValueError(f"{directory}: lacks the folder {name}, which its model_index.json names.")
        if (name, library, class_name) == (BRANCH, BRANCH_CODE, ImageRetention.__name__):
            if not (directory / BRANCH / f"{BRANCH_CODE}.py").is_file():
                raise ValueError(f"{directory / BRANCH}: lacks {BRANCH_CODE}.py, the code of its class.")
            component_class = ImageRetention
        elif library not in ("diffusers", "transformers"):
            raise ValueError(f"{index_file}: `{name}` comes from {library!r}, which nobody else has.")
        else:
            component_class = getattr(importlib.import_module(library), class_name)
        if issubclass(component_class, nn.Module):
            check_weights(directory / name, component_class, dtype)
    if not isinstance(index["_class_name"], str):
        check_code(directory, with_pictures=BRANCH in index)


def check_weights(folder: str | Path, model_class: type[nn.Module], dtype: torch.dtype | None = None) -> None:
    """Check the safetensors files of one model against its config. Arguments and errors as `check_export`."""
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: holds no .safetensors file.")
    found: dict[str, list[int]] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name == "__metadata__":
                continue
            if name in found:
                raise ValueError(f"{file}: {name} stands in another file of the folder as well.")
            found[name] = entry["shape"]
            _check_dtype(file, name, entry["dtype"], dtype)
    if issubclass(model_class, PreTrainedModel):
        check_names_of_transformers(folder, model_class)
    else:
        with torch.device("meta"):
            model = model_class.from_config(model_class.load_config(folder))
        check_names_and_shapes(str(folder), found, model)
    for file in files:
        check_finite(str(file), read_tensors(file))


def _check_dtype(file: Path, name: str, stored: str, dtype: torch.dtype | None) -> None:
    if stored not in FLOATS or (dtype is not None and FLOATS[stored] is not dtype):
        wanted = ", ".join(FLOATS) if dtype is None else str(dtype)
        raise ValueError(f"{file}: {name} is in {stored}, but has to be in {wanted}.")


def check_names_of_transformers(folder: Path, model_class: type[PreTrainedModel]) -> None:
    """As `check_names_and_shapes`; transformers renames weights as it reads them, so that only it can tell."""
    try:
        _, info = model_class.from_pretrained(folder, output_loading_info=True)
    except RuntimeError as error:  # a weight of another shape
        raise ValueError(f"{folder}: does not load: {str(error).splitlines()[0]}") from error
    problems = {"unknown": "unexpected_keys", "missing": "missing_keys", "of another shape": "mismatched_keys"}
    raise_for_names(str(folder), {problem: sorted(map(str, info[key])) for problem, key in problems.items()})


def check_code(directory: Path, with_pictures: bool = False) -> None:
    """Raise a `ValueError` if a code file is missing."""
    missing = [file.name for file in code_files(with_pictures) if not (directory / file.name).is_file()]
    if missing:
        raise ValueError(f"{directory}: lacks {', '.join(missing)}.")


def sample_frames(pipe: DiffusionPipeline) -> torch.Tensor:
    """
    The clip that a fresh process has to paint again: (1, 7, 3, 64, 64), in [0, 1], from seed 0 in two steps.

    Args:
        pipe: a `LandscapeVideoPipeline`, or a `LandscapeImageToVideoPipeline`, which is shown a ramp of colours, on
            the CPU in float32, in which others load the files.
    """
    pipe.set_progress_bar_config(disable=True)
    height, width = SAMPLE["height"], SAMPLE["width"]
    ramp = torch.linspace(0, 1, 3 * height * width).view(3, height, width)
    picture = {"image": ramp} if BRANCH in pipe.components else {}
    return pipe(PROMPT, generator=torch.Generator().manual_seed(0), **SAMPLE, **picture).frames


def check_loads_elsewhere(directory: str | Path, frames: torch.Tensor, base_model: str | Path | None = None) -> None:
    """
    Load an export in a fresh process, offline, without this package and with an empty cache of code, and compare what
    it paints.

    Args:
        directory: what `export_pipeline` or `export_adapter` wrote.
        frames: of `sample_frames`, before the export.
        base_model: the folder of the image model, for an adapter.

    Raises:
        ValueError: it does not load (with the last line of what the process said), or paints other frames.
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
            lines: list[Any] = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
            raise ValueError(f"{directory}: does not load in a fresh process: {lines[-1]}")
        painted = load_file(output)["frames"]
    if painted.shape != frames.shape:
        shapes = f"{tuple(painted.shape)} instead of {tuple(frames.shape)}"
        raise ValueError(f"{directory}: paints other frames in a fresh process ({shapes}).")
    if not torch.equal(painted, frames):
        difference = (painted - frames).abs().max()
        raise ValueError(f"{directory}: paints other frames in a fresh process (difference {difference:.3g}).")
