"""Where the parts of a system come from: folders, files, the Hub; and whose fault it is if one does not load."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download

from landscape_video.evaluation.metrics.weights import find_folder
from motion_adapter.hub import explain_hub_error
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


WITHOUT_CODE = ("*/*.json", "*/*.txt", "*/*.safetensors")


def load_adapter(source: str, dtype: torch.dtype) -> Any:
    """A `MotionAdapter` from a folder, the Hub, or a file in diffusers' layout or AnimateDiff's."""
    from diffusers import MotionAdapter

    from motion_adapter.convert import OUR_NAME, deduce_config, load_animatediff, read_weights

    if not Path(source).is_file():
        return MotionAdapter.from_pretrained(local_source(source), dtype=dtype)
    weights, _ = read_weights(source)
    if not all(OUR_NAME.fullmatch(name) and "temporal_transformer" not in name for name in weights):
        return load_animatediff(source).to(dtype)
    adapter = MotionAdapter(**deduce_config(source, weights, None, heads=8))
    adapter.load_state_dict(weights)
    return adapter.to(dtype)


def add_lora(pipe: Any, lora: str, scale: float = 1.0) -> None:
    """Load LoRA weights into a pipeline. Raises `ValueError` if none of them belongs there."""
    pipe.load_lora_weights(str(local_source(lora)), adapter_name="lora")
    if not any("lora" in adapters for adapters in pipe.get_list_adapters().values()):
        raise ValueError(f"{lora} holds no weights for this model.")
    pipe.set_adapters(["lora"], [scale])


def local_source(source: str) -> Path:
    """The file or folder of weights; a folder on the Hub is fetched."""
    path = Path(source).expanduser()
    return path if path.is_file() else find_folder(source)


def pipeline_folder(source: str, pipeline_class: Callable[[], Any]) -> Path:
    """The folder of a pipeline; of one on the Hub, what the class needs is fetched (only then it is imported)."""
    if source == EMBEDDED_MODEL:
        return SHANSHUI_TINY
    path = Path(source).expanduser()
    looks_like_a_path = source.startswith((".", "/", "~")) or source.count("/") != 1
    if not path.exists() and not looks_like_a_path:
        index = json.loads(Path(hf_hub_download(source, "model_index.json")).read_text(encoding="utf-8"))
        if isinstance(index.get("_class_name"), list):  # brings code; ours is installed, nobody else's is run
            return Path(snapshot_download(source, allow_patterns=["model_index.json", *WITHOUT_CODE]))
        return Path(pipeline_class().download(source))
    if not (path / "model_index.json").is_file():
        problem = "holds no model_index.json, so it is no pipeline" if path.is_dir() else "there is no such folder"
        raise ValueError(f"{source}: {problem}.")
    return path


@contextmanager
def naming(name: str, source: str) -> Iterator[None]:
    """Make whatever does not load an error of one line that begins with the system's name."""
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        explained = explain_hub_error(error, source) or error
        kind = ConnectionError if isinstance(explained, ConnectionError) else ValueError
        raise kind(f"{name}: {explained}") from error
