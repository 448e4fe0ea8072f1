"""Check weights files against configs, and report mistakes that loaders accept silently."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel


FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_LISTED_NAMES = 8
METADATA = "motion_adapter_config"  # in the header of our adapters: heads, mode, norm, and what weights do not show
MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors itself


def load_adapter(folder: str | Path) -> MotionAdapter:
    """Load a motion adapter in the dtype of its file, after `check_weights`.

    Raises:
        ValueError: The folder holds no motion adapter, or its weights do not match its config.
    """
    folder = Path(folder)
    config = folder / "config.json"
    class_name = json.loads(config.read_text(encoding="utf-8")).get("_class_name") if config.is_file() else None
    if class_name != "MotionAdapter":
        problem = f"its config.json is for {class_name}" if config.is_file() else "config.json is missing"
        raise ValueError(f"{folder}: not a motion adapter: {problem}.")
    check_weights(folder, MotionAdapter)
    return MotionAdapter.from_pretrained(folder, dtype=stored_dtype(folder)).eval()


def save_adapter(adapter: MotionAdapter, folder: str | Path) -> None:
    """Save a motion adapter as `save_pretrained` does, with its config in the header of the weights as well.

    People copy only the weights into ComfyUI, whose node for our adapters reads mode and norm from the header.
    """
    folder = Path(folder)
    adapter.save_config(folder)
    weights = {name: weight.contiguous() for name, weight in adapter.state_dict().items()}
    save_weights(weights, folder / SAFETENSORS_WEIGHTS_NAME, header_metadata(adapter))


def save_weights(weights: Mapping[str, torch.Tensor], file: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on weights and metadata only.

    `save_file` writes the entries of the metadata in an order that differs from call to call, and with it the hash.
    """
    save_file(weights, file, metadata=dict(metadata))
    with Path(file).open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        stream.seek(8)
        stream.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def header_metadata(adapter: MotionAdapter) -> dict[str, str]:
    """Return the metadata for the header of a file with the weights of `adapter`."""
    entries = {name: value for name, value in adapter.config.items() if not name.startswith("_")}
    return {"format": "pt", METADATA: json.dumps(entries, sort_keys=True)}  # diffusers refuses files without a format


def check_weights(folder: str | Path, model_class: type[nn.Module], dtype: torch.dtype | None = None) -> None:
    """Check the safetensors files of one model against its config.

    Args:
        folder: Folder with the config and one or more safetensors files.
        model_class: Class of the model.
        dtype: Required dtype of the weights; if `None`, each may be float32, float16 or bfloat16.

    Raises:
        ValueError: The message names the file, and the weights that are missing, unknown, of a wrong shape or dtype,
            duplicated or not finite.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: .safetensors files are missing.")
    allowed = {name for name, known in FLOATS.items() if dtype in (None, known)}
    shapes: dict[str, list[int]] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in shapes:
                raise ValueError(f"{file}: {name} is in another file of the folder, too.")
            if entry["dtype"] not in allowed:
                raise ValueError(f"{file}: {name} must be in {' or '.join(sorted(allowed))}, got {entry['dtype']}.")
            shapes[name] = entry["shape"]
    if issubclass(model_class, PreTrainedModel):
        _check_names_with_transformers(folder, model_class)
    else:
        with torch.device("meta"):
            model = model_class.from_config(model_class.load_config(folder))
        check_names_and_shapes(str(folder), shapes, model)
    for file in files:
        check_finite(str(file), read_tensors(file))


def read_header(file: str | Path) -> dict[str, dict[str, Any]]:
    """Read the header of a safetensors file: the `dtype` (such as `"F16"`) and the `shape` of each tensor by name.

    Raises:
        ValueError: The file is truncated or not safetensors, or has two tensors of one name (loaders silently take the
            last one).
    """
    with Path(file).open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(min(length, MAX_HEADER_BYTES))
    try:
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
        with safe_open(file, framework="pt"):  # checks that the offsets fit the size of the file
            header.pop("__metadata__", None)
            return header
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file}: not a complete safetensors file: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name} is in its header twice.")
    return entries


def read_metadata(file: str | Path) -> dict[str, str]:
    """Read the metadata in the header of a safetensors file, after `read_header` has checked it."""
    read_header(file)
    with safe_open(file, framework="pt") as weights:
        return weights.metadata() or {}


def read_tensors(file: str | Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and tensor, one after the other, of a safetensors file that `read_header` has checked."""
    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # `safe_open` cannot be iterated itself
            yield name, weights.get_tensor(name)


def stored_dtype(folder: str | Path) -> torch.dtype:
    """Return the dtype of most weights in the safetensors files of `folder`, float32 if it has none."""
    files = sorted(Path(folder).glob("*.safetensors"))
    dtypes = Counter(entry["dtype"] for file in files for entry in read_header(file).values())
    return FLOATS[max(FLOATS, key=dtypes.__getitem__)]


def check_names_and_shapes(where: str, found: Mapping[str, Iterable[int]], model: nn.Module) -> None:
    """Compare names and shapes of weights with the state dict of `model`, which may be on the meta device.

    Raises:
        ValueError: The message lists the names that are unknown, missing, or of another shape.
    """
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    others = {name: shape for name, shape in expected.items() if name in found and tuple(found[name]) != shape}
    problems = {
        "unknown": found.keys() - expected.keys(),
        "missing": expected.keys() - found.keys(),
        "of another shape": {f"{name} {tuple(found[name])}, not {shape}" for name, shape in others.items()},
    }
    _raise_for_names(where, problems)


def _check_names_with_transformers(folder: Path, model_class: type[PreTrainedModel]) -> None:
    """As `check_names_and_shapes`, by loading: transformers renames weights as it reads them."""
    try:
        _, info = model_class.from_pretrained(folder, output_loading_info=True)
    except RuntimeError as error:  # a weight of another shape
        raise ValueError(f"{folder}: does not load: {str(error).splitlines()[0]}") from error
    problems = {"unknown": "unexpected_keys", "missing": "missing_keys", "of another shape": "mismatched_keys"}
    _raise_for_names(str(folder), {problem: map(str, info[key]) for problem, key in problems.items()})


def _raise_for_names(where: str, problems: Mapping[str, Iterable[str]]) -> None:
    found = {problem: sorted(names) for problem, names in problems.items()}
    texts = [f"{len(names)} {problem}: {listed(names)}" for problem, names in found.items() if names]
    if texts:
        raise ValueError(f"{where}: {'; '.join(texts)}.")


def listed(names: list[str]) -> str:
    """Format names for a message: the first few, and how many more there are."""
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def check_finite(where: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise a `ValueError` that names the first weight with infinite or NaN values."""
    for name, weight in weights:
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ValueError(f"`{where}` has values that are not finite in {name} ({weight.dtype}).")
