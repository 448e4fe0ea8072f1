"""Read from a file of motion modules the entries and sizes that AnimateDiff-Evolved does not look at."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .vendored.motion_attention import check_sparse_causal_mode


METADATA = "motion_adapter_config"  # in the header of adapters that landscape-video saved
CONFIG_FILE = "config.json"  # beside the weights of a folder in diffusers' layout
MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors itself

MOTION_NORMS = ("clip", "frame")

# The sizes for which AnimateDiff-Evolved builds motion modules: Stable Diffusion 1.5 and XL. Weights do not show the
# other entries.
CHANNELS = {4: (320, 640, 1280, 1280), 3: (320, 640, 1280)}
MODULES = {"down": 2, "up": 3}  # of each block
FIXED_CONFIG = {
    "motion_num_attention_heads": 8,
    "motion_norm_num_groups": 32,
    "motion_transformer_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
    "motion_mid_block_layers_per_block": 1,
}

_NORM = re.compile(r"(down|up)_blocks\.(\d+)\.motion_modules\.(\d+)\.(?:temporal_transformer\.)?norm\.weight")


@dataclass(frozen=True)
class AdapterSettings:
    """
    The entries of an adapter's config that decide how its motion modules run.

    Args:
        sparse_causal_mode: Frames that the second attention of a block sees, see `sparse_causal_mask`.
        motion_norm: Statistics of the group norm: over all frames of a `"clip"` (or window), as in diffusers, or over
            each `"frame"`, as in AnimateDiff.

    Raises:
        ValueError: An entry is not one of those known.
    """

    sparse_causal_mode: str = "full"
    motion_norm: str = "frame"

    def __post_init__(self) -> None:
        check_sparse_causal_mode(self.sparse_causal_mode)
        if self.motion_norm not in MOTION_NORMS:
            raise ValueError(f"`motion_norm` must be one of {', '.join(MOTION_NORMS)}, got {self.motion_norm!r}.")


def read_adapter_settings(path: Path, **chosen: str) -> AdapterSettings:
    """
    Check a file of motion modules, and return how they must run.

    Args:
        path: A `.safetensors` file in the layout of AnimateDiff or diffusers. Files of another kind have neither
            header nor config: they are AnimateDiff's, with full attention and the norm of a frame.
        chosen: `sparse_causal_mode` or `motion_norm`, which replace what the file says.

    Raises:
        ValueError: The file is damaged, has other sizes than those that AnimateDiff-Evolved builds, or does not say
            how it must run.
    """
    if path.suffix != ".safetensors":
        return AdapterSettings(**chosen)
    header = read_header(path)
    metadata = header.pop("__metadata__", {})
    check_sizes(path.name, {name: entry["shape"] for name, entry in header.items()})
    config = json.loads(metadata[METADATA]) if METADATA in metadata else read_config_beside(path)
    if config is None:
        if len(chosen) < 2 and not any("attention_blocks." in name for name in header):
            raise ValueError(
                f"{path.name}: has the weights of a diffusers adapter, but not its config, which says how the"
                f" attention works. Put its {CONFIG_FILE} beside it, or choose `sparse_causal_mode` and `motion_norm`."
            )
        return AdapterSettings(**chosen)
    for name, required in FIXED_CONFIG.items():
        if config.get(name, required) != required:
            raise ValueError(f"{path.name}: `{name}` must be {required} for AnimateDiff-Evolved, got {config[name]}.")
    # Without these entries, diffusers runs full attention and the norm of a clip.
    plain = {"sparse_causal_mode": "full", "motion_norm": "clip"}
    entries = {name: config.get(name, value) for name, value in plain.items()}
    return AdapterSettings(**(entries | chosen))


def read_header(path: Path) -> dict[str, Any]:
    """
    Read the header of a safetensors file: dtype and shape of each tensor, and `__metadata__`.

    Raises:
        ValueError: The file has no such header.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(min(length, MAX_HEADER_BYTES))
    try:
        return json.loads(raw)
    except ValueError as error:
        raise ValueError(f"{path.name}: not a complete safetensors file.") from error


def read_config_beside(path: Path) -> dict[str, Any] | None:
    """Return the config of a diffusers adapter from the folder of its weights, `None` if the folder has none."""
    file = path.parent / CONFIG_FILE
    if not path.name.startswith("diffusion_pytorch_model") or not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    return config if config.get("_class_name") == "MotionAdapter" else None


def check_sizes(name: str, shapes: Mapping[str, list[int]]) -> None:
    """Raise a `ValueError` if weights have other sizes than the motion modules that AnimateDiff-Evolved builds."""
    channels: dict[tuple[str, int], set[int]] = defaultdict(set)
    modules: dict[tuple[str, int], int] = defaultdict(int)
    for weight, shape in shapes.items():
        if match := _NORM.fullmatch(weight):
            block = (match[1], int(match[2]))
            channels[block].add(shape[0])
            modules[block] += 1
    if not channels:
        raise ValueError(f"{name}: holds no motion modules. Choose a motion adapter, not an image model or a LoRA.")
    down = tuple(max(channels[block]) for block in sorted(channels) if block[0] == "down")
    if down not in CHANNELS.values() or any(len(sizes) > 1 for sizes in channels.values()):
        known = " or ".join(map(str, CHANNELS.values()))
        raise ValueError(
            f"{name}: its down blocks must have {known} channels, those of Stable Diffusion 1.5 or XL, got {down}. Use"
            " the model that it was trained with in landscape-video."
        )
    for (way, index), number in modules.items():
        if number != MODULES[way]:
            raise ValueError(f"{name}: {way} block {index} must have {MODULES[way]} motion modules, got {number}.")
    if not any(weight.endswith(".pe") for weight in shapes):
        raise ValueError(f"{name}: its position tables are missing; save it with `landscape-video` again.")
