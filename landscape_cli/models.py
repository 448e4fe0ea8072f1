"""Which models `generate` paints with, and loading them."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch

    from pipeline_landscape_video import LandscapeVideoPipeline


EMBEDDED_MODEL = "shanshui-tiny"


class Dtype(StrEnum):
    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Offload(StrEnum):
    none = "none"
    model = "model"
    sequential = "sequential"


def check_models(model: str, motion_adapter: str | None, lora: list[str] | None) -> None:
    """Raise `ValueError` for a path that holds no model. Names on the Hub are left to the loading."""
    folder = _local(_model_source(model))
    if folder is not None and not (folder / "model_index.json").is_file():
        problem = "holds no model_index.json, so it is no pipeline" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"--model {model}: {problem}.")
    folder = motion_adapter and _local(motion_adapter)
    if folder and not (folder / "config.json").is_file():
        problem = "holds no config.json, so it is no motion adapter" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"--motion-adapter {motion_adapter}: {problem}.")
    for source in lora or []:
        path = _local(source)
        if path is not None and not path.exists():
            raise ValueError(f"--lora {source}: there is no such file or folder.")


def load_pipeline(
    model: str,
    motion_adapter: str | None,
    lora: list[str] | None,
    device: "torch.device",
    dtype: Dtype,
    offload: Offload,
) -> "LandscapeVideoPipeline":
    """The pipeline on its device, with its adapters. Raises `ValueError` or `OSError` where one does not load."""
    if offload is not Offload.none and device.type == "cpu":
        raise ValueError(f"--offload {offload}: needs a GPU, but the device is the CPU.")

    import torch
    from diffusers import MotionAdapter

    from pipeline_landscape_video import LandscapeVideoPipeline

    if dtype is Dtype.auto:
        dtype = Dtype.float32 if device.type == "cpu" else Dtype.float16
    torch_dtype = getattr(torch, dtype.value)
    with _less_chatter():
        components = {}
        if motion_adapter is not None:
            with _blaming(f"--motion-adapter {motion_adapter}"):
                adapter = MotionAdapter.from_pretrained(_resolved(motion_adapter), dtype=torch_dtype)
            components["motion_adapter"] = adapter
        with _blaming(f"--model {model}"):
            source = _resolved(_model_source(model))
            pipe = LandscapeVideoPipeline.from_pretrained(source, dtype=torch_dtype, **components)
        _load_lora(pipe, lora or [])

    if offload is Offload.model:
        pipe.enable_model_cpu_offload(device=device)
    elif offload is Offload.sequential:
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


@contextmanager
def _less_chatter() -> Iterator[None]:
    """Without bars for files that are read in a moment, and a warning for each entry of ours in a config."""
    import diffusers
    import transformers

    verbosity = diffusers.logging.get_verbosity()
    diffusers.logging.disable_progress_bar()
    diffusers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(verbosity)


@contextmanager
def _blaming(option: str) -> Iterator[None]:
    """Make whatever a file that does not load raises a `ValueError` that begins with the option it came by."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{option}: does not load: {error}") from error


def _load_lora(pipe: "LandscapeVideoPipeline", sources: list[str]) -> None:
    names = [f"lora_{index}" for index in range(len(sources))]
    for source, name in zip(sources, names, strict=True):
        with _blaming(f"--lora {source}"):
            pipe.load_lora_weights(_resolved(source), adapter_name=name)
            if name not in {adapter for adapters in pipe.get_list_adapters().values() for adapter in adapters}:
                raise ValueError("holds no weights for this model.")
    if names:
        pipe.set_adapters(names)


def _model_source(model: str) -> str:
    if model != EMBEDDED_MODEL:
        return model
    from pipeline_landscape_video import SHANSHUI_TINY

    return str(SHANSHUI_TINY)


def _local(source: str) -> Path | None:
    """The path that `source` means, or None where it can only be a name on the Hub."""
    path = Path(source).expanduser()
    looks_like_a_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source
    return path if path.exists() or looks_like_a_path else None


def _resolved(source: str) -> str:
    return str(_local(source) or source)
