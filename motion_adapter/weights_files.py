"""Files of weights: what their headers say, and what no loader complains about though it is wrong."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn


FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES_IN_A_MESSAGE = 8
LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it


def read_header(file: str | Path) -> dict[str, dict[str, Any]]:
    """
    The header of a safetensors file: name of each tensor -> `dtype` (such as `"F16"`), `shape`, `data_offsets`, and
    `"__metadata__"` if there is some.

    Raises:
        ValueError: the file is cut short or no safetensors, or names a tensor twice (loaders take the last one and
            say nothing).
    """
    with Path(file).open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(min(length, LARGEST_HEADER))
    try:
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
        with safe_open(file, framework="pt"):  # the offsets fit the size of the file
            return header
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file}: is no whole safetensors file: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands in its header twice.")
    return entries


def read_tensors(file: str | Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, one after the other, of a safetensors file that `read_header` found whole."""
    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # it has no iterator of its own
            yield name, weights.get_tensor(name)


def stored_dtype(folder: str | Path) -> torch.dtype:
    """The dtype of most weights in the safetensors files of `folder`, float32 if there are none."""
    counts = dict.fromkeys(FLOATS.values(), 0)
    for file in sorted(Path(folder).glob("*.safetensors")):
        for name, entry in read_header(file).items():
            if name != "__metadata__" and entry["dtype"] in FLOATS:
                counts[FLOATS[entry["dtype"]]] += 1
    return max(counts, key=counts.get)


def check_names_and_shapes(where: str, found: dict[str, Iterable[int]], model: nn.Module) -> None:
    """
    Compare what a file holds with the state dict of `model` (which may be on the meta device).

    Raises:
        ValueError: it lists the names that are unknown, missing, or of another shape.
    """
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    problems = {
        "unknown": sorted(found.keys() - expected.keys()),
        "missing": sorted(expected.keys() - found.keys()),
        "of another shape": sorted(
            f"{name} {tuple(found[name])}, not {shape}"
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != shape
        ),
    }
    raise_for_names(where, problems)


def raise_for_names(where: str, problems: dict[str, list[str]]) -> None:
    """Raise a `ValueError` that counts and lists the names under each problem, if there are any."""
    texts = [f"{len(names)} {problem}: {listed(names)}" for problem, names in problems.items() if names]
    if texts:
        raise ValueError(f"{where}: {'; '.join(texts)}.")


def listed(names: list[str]) -> str:
    """Names for a message, the first few of many."""
    more = len(names) - NAMES_IN_A_MESSAGE
    return ", ".join(names[:NAMES_IN_A_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def check_finite(where: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise a `ValueError` that names a weight with values that are infinite or not a number."""
    for name, weight in weights:
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ValueError(f"`{where}` has values that are not finite in {name} ({weight.dtype}).")
