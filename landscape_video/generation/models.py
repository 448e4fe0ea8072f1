"""Which models `generate` and `animate` paint with, and loading them."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


if TYPE_CHECKING:
    import torch
    from diffusers import ModelMixin

    from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline


NO_BRANCH = (
    "--model {model}: has no trained image_retention/ folder, so it cannot see a picture; give one with"
    " --image-retention, or another model."
)


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
    folder = _local(model_source(model))
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


def check_branch(model: str, image_retention: str | None) -> None:
    """Raise `ValueError` for models on this machine that cannot see a picture."""
    if image_retention is not None:
        folder = _local(image_retention)
        if folder is not None and not (folder / "config.json").is_file():
            problem = "holds no config.json, so it is no branch" if folder.is_dir() else "there is no such folder"
            raise ValueError(f"--image-retention {image_retention}: {problem}.")
        return
    folder = _local(model_source(model))
    if folder is not None and not (folder / "image_retention").is_dir():
        raise ValueError(NO_BRANCH.format(model=model))


def load_pipeline(
    model: str,
    motion_adapter: str | None,
    lora: list[str] | None,
    device: "torch.device",
    dtype: Dtype,
    offload: Offload,
    image_retention: str | None = None,
    takes_pictures: bool = False,
) -> "LandscapeVideoPipeline | LandscapeImageToVideoPipeline":
    """The pipeline on its device, with its adapters. Raises `ValueError` or `OSError` where one does not load."""
    if offload is not Offload.none and device.type == "cpu":
        raise ValueError(f"--offload {offload}: needs a GPU, but the device is the CPU.")

    import torch
    from diffusers import MotionAdapter

    from pipeline_landscape_video import ImageRetention, LandscapeImageToVideoPipeline, LandscapeVideoPipeline
    from pipeline_landscape_video.quiet_loading import less_chatter

    pipeline_class = LandscapeImageToVideoPipeline if takes_pictures else LandscapeVideoPipeline
    if dtype is Dtype.auto:
        dtype = Dtype.float32 if device.type == "cpu" else Dtype.float16
    torch_dtype = getattr(torch, dtype.value)
    with less_chatter():
        components = {}
        if motion_adapter is not None:
            with _blaming(f"--motion-adapter {motion_adapter}", motion_adapter):
                components["motion_adapter"] = _load_whole(MotionAdapter, motion_adapter, torch_dtype)
        if image_retention is not None:
            with _blaming(f"--image-retention {image_retention}", image_retention):
                components["image_retention"] = _load_whole(ImageRetention, image_retention, torch_dtype)
        with _blaming(f"--model {model}", model):
            source = _resolved(model_source(model))
            pipe = pipeline_class.from_pretrained(source, dtype=torch_dtype, **components)
        if takes_pictures and pipe.image_retention is None:  # of a name on the Hub this is known only now
            raise ValueError(NO_BRANCH.format(model=model))
        _load_lora(pipe, lora or [])

    if offload is Offload.model:
        pipe.enable_model_cpu_offload(device=device)
    elif offload is Offload.sequential:
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def _load_whole(model_class: "type[ModelMixin]", source: str, dtype: "torch.dtype") -> "ModelMixin":
    """The model in `source`. Raises a `ValueError` for one of another class, and where weights are missing: diffusers
    goes on with both."""
    source = _resolved(source)
    found = model_class.load_config(source).get("_class_name", model_class.__name__)
    if found != model_class.__name__:
        raise ValueError(f"it is of the class {found}, not {model_class.__name__}.")
    model = model_class.from_pretrained(source, dtype=dtype)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{missing[0]} is missing in its weights.")
    return model


@contextmanager
def _blaming(option: str, source: str) -> Iterator[None]:
    """Make whatever a `source` that does not load raises a `ValueError` that begins with the option it came by."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        from motion_adapter.hub import explain_hub_error

        if _local(source) is None and (explained := explain_hub_error(error, source)) is not None:
            raise type(explained)(f"{option}: {explained}") from error
        raise ValueError(f"{option}: does not load: {error}") from error


def _load_lora(pipe: "LandscapeVideoPipeline", sources: list[str]) -> None:
    names = [f"lora_{index}" for index in range(len(sources))]
    for source, name in zip(sources, names, strict=True):
        with _blaming(f"--lora {source}", source):
            pipe.load_lora_weights(_resolved(source), adapter_name=name)
            if name not in {adapter for adapters in pipe.get_list_adapters().values() for adapter in adapters}:
                raise ValueError("holds no weights for this model.")
    if names:
        pipe.set_adapters(names)


def model_source(model: str) -> str:
    """The folder or the name on the Hub that `--model` means."""
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
