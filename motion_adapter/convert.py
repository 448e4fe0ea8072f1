"""Convert motion modules between AnimateDiff's files and `MotionAdapter`, without loss.

The tensors are the same under other names; the layout is that of `animatediff/models/motion_module.py` in
guoyww/AnimateDiff, which ComfyUI and WebUI read, too. AnimateDiff stores a position table for each of the two
attentions of a block, diffusers one for both; the two are equal.
"""

import json
import pickle
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter
from diffusers.models.embeddings import SinusoidalPositionalEmbedding

from pipeline_landscape_video.atomic_writing import write_file
from pipeline_landscape_video.landscape_motion_attention import check_motion_norm, check_sparse_causal_mode

from .build import copy_our_config
from .weights_files import (
    METADATA,
    check_finite,
    check_names_and_shapes,
    header_metadata,
    listed,
    read_metadata,
    read_tensors,
    save_weights,
)


PICKLES = (".ckpt", ".pt", ".pth", ".bin")
NOT_WEIGHTS = {"animatediff_config", "epoch", "global_step"}  # beside the weights in files of AnimateDiff's training
NORM_GROUPS = 32  # of AnimateDiff's group norms, and the default of `MotionAdapter`

ANIMATEDIFF_NAME = "temporal_transformer."  # in the name of each weight in AnimateDiff's layout, of none in ours
# A weight of a motion module, in either layout
MOTION_WEIGHT = re.compile(
    r"(?P<module>(?P<unet_block>(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+)\."
    rf"(?:{re.escape(ANIMATEDIFF_NAME)})?(?P<block>transformer_blocks\.\d+\.)?(?P<rest>.+)"
)
IMAGE_LAYER = re.compile(
    r"(conv_in|conv_out|conv_norm_out|time_proj|time_embedding)\..*"
    r"|((down|up)_blocks\.\d+|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\..*"
)
POSITIONS = "pos_embed.pe"
# The beginnings of names within a transformer block: ours, AnimateDiff's
RENAMED = (
    ("attn1.", "attention_blocks.0."),
    ("attn2.", "attention_blocks.1."),
    ("norm1.", "norms.0."),
    ("norm2.", "norms.1."),
    ("norm3.", "ff_norm."),
    ("ff.", "ff."),
    ("pos_embed.", "attention_blocks.0.pos_encoder."),
    ("pos_embed.", "attention_blocks.1.pos_encoder."),
)


def load_animatediff(
    file: str | Path,
    sparse_causal_mode: str | None = None,
    motion_max_seq_length: int | None = None,
    motion_num_attention_heads: int = 8,
    drop_image_layers: bool = False,
    motion_norm: str | None = None,
) -> MotionAdapter:
    """Load a file of motion modules as a `MotionAdapter`, in the dtypes of the file.

    Args:
        file: `.safetensors`, or a pickle of tensors (`.ckpt`, `.pt`, `.pth`, `.bin`), whose code never runs. Names may
            be AnimateDiff's or those of `MotionAdapter`.
        sparse_causal_mode: Mode for the config, see `install_sparse_causal_attention`. `None` keeps the mode of our
            own files; others get none, which is the full attention that AnimateDiff trained them with.
        motion_max_seq_length: Length of the position table, for files without one (AnimateLCM's).
        motion_num_attention_heads: Number of heads, which weights do not show; AnimateDiff has 8, our files name it.
        drop_image_layers: Accept the checkpoint of a whole UNet and drop its image layers.
        motion_norm: Statistics of the norm for the config, see `install_motion_norm`. `None` keeps those of our own
            files. Others get `"frame"`, with which AnimateDiff trained them, if the names are AnimateDiff's. With the
            names of `MotionAdapter` they get none, which is `"clip"`, as diffusers runs them.

    Raises:
        ValueError: Unknown or missing names (the message lists them), values that are not finite, position tables that
            differ, or a file that is damaged or holds more than tensors.
        FileNotFoundError: `file` is missing.
    """
    weights, config = read_weights(file)
    if drop_image_layers:
        weights = {name: weight for name, weight in weights.items() if not IMAGE_LAYER.fullmatch(name)}
    check_finite(str(file), weights.items())
    if config is None:
        config = deduce_config(file, weights, motion_max_seq_length, motion_num_attention_heads)
        if any(ANIMATEDIFF_NAME in name for name in weights):
            config["motion_norm"] = "frame"
    if sparse_causal_mode is not None:
        check_sparse_causal_mode(sparse_causal_mode)
        config["sparse_causal_mode"] = sparse_causal_mode
    if motion_norm is not None:
        check_motion_norm(motion_norm)
        config["motion_norm"] = motion_norm

    with torch.device("meta"):  # all tensors come from the file
        adapter = MotionAdapter.from_config(config)
    renamed = rename_to_ours(file, weights, adapter)
    if not any(name.endswith(POSITIONS) for name in renamed):
        dtype = next(iter(renamed.values())).dtype
        for name, table in adapter.state_dict().items():
            if name.endswith(POSITIONS):
                _, length, channels = table.shape
                renamed[name] = SinusoidalPositionalEmbedding(channels, length).pe.to(dtype)
    check_names_and_shapes(str(file), {name: weight.shape for name, weight in renamed.items()}, adapter)
    adapter.load_state_dict(renamed, assign=True)
    copy_our_config(config, adapter)
    return adapter.eval()


def save_animatediff(adapter: MotionAdapter, file: str | Path) -> None:
    """Save `adapter` in AnimateDiff's layout and in its own dtype; `load_animatediff` restores the same adapter.

    Its header holds the config as JSON. Programs that do not read it run the file with full attention and the norm of
    each frame, whatever its `sparse_causal_mode` and `motion_norm`.

    Raises:
        ValueError: `file` does not end in .safetensors, or the layout has no name for a weight (PIA's image input).
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: must end in .safetensors, the only format that is written.")
    names = {name: animatediff_names(name) for name in adapter.state_dict()}
    unknown = sorted(name for name, theirs in names.items() if not theirs)
    if unknown:
        raise ValueError(f"AnimateDiff's layout has no names for {len(unknown)} weights: {listed(unknown)}.")
    weights = {
        their_name: weight.clone().contiguous()  # safetensors stores no tensor under two names
        for name, weight in adapter.state_dict().items()
        for their_name in names[name]
    }
    with write_file(file) as unfinished:
        save_weights(weights, unfinished, header_metadata(adapter))


def read_weights(file: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Read the tensors of a file, and the config that our own files have in their header.

    Checkpoints of AnimateDiff's and ConCLVD's training have `module.` before each name, which is removed, and may wrap
    the weights as `state_dict`.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    if file.suffix == ".safetensors":
        metadata = read_metadata(file)
        config = json.loads(metadata[METADATA]) if METADATA in metadata else None
        return {name.removeprefix("module."): tensor for name, tensor in read_tensors(file)}, config
    if file.suffix not in PICKLES:
        raise ValueError(f"{file}: must end in .safetensors or one of {', '.join(PICKLES)}.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).split(". ")[0].split("\n")[0]
        raise ValueError(f"{file}: is damaged or holds more than tensors, which is not read: {reason}.") from error
    wrapped = content.pop("state_dict", {}) if isinstance(content, dict) else content
    if not isinstance(wrapped, dict):
        raise ValueError(f"{file}: must hold a dictionary of tensors, got a {type(wrapped).__name__}.")
    content = wrapped | content
    weights = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    weights = {name: tensor for name, tensor in weights.items() if name not in NOT_WEIGHTS}
    others = sorted(name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor))
    if others:
        raise ValueError(f"{file}: has entries that are not tensors: {listed(others)}.")
    return weights, None


def animatediff_names(name: str) -> list[str]:
    """Return AnimateDiff's names for a weight of a `MotionAdapter`: two for a position table, none for PIA's input."""
    match = MOTION_WEIGHT.fullmatch(name)
    if match is None:
        return []
    prefix, rest = f"{match['module']}.{ANIMATEDIFF_NAME}", match["rest"]
    if match["block"] is None:
        return [prefix + rest]
    prefix += match["block"]
    return [prefix + theirs + rest.removeprefix(ours) for ours, theirs in RENAMED if rest.startswith(ours)]


def rename_to_ours(
    file: str | Path, weights: dict[str, torch.Tensor], adapter: MotionAdapter
) -> dict[str, torch.Tensor]:
    """Rename the weights of a file to those of `adapter`. Raises a `ValueError` that lists unknown names."""
    our_names = {theirs: ours for ours in adapter.state_dict() for theirs in (ours, *animatediff_names(ours))}
    unknown = sorted(weights.keys() - our_names.keys())
    if unknown:
        image_layers = " They are image layers of a whole UNet; drop them if the base model has the same."
        hint = image_layers if all(map(IMAGE_LAYER.fullmatch, unknown)) else ""
        raise ValueError(f"{file}: {len(unknown)} names are not AnimateDiff's: {listed(unknown)}.{hint}")
    renamed: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if not torch.equal(renamed.setdefault(our_names[name], weight), weight):
            raise ValueError(f"{file}: the position tables of {name.split('.attention_blocks')[0]} differ.")
    return renamed


def deduce_config(
    file: str | Path, weights: dict[str, torch.Tensor], motion_max_seq_length: int | None, heads: int
) -> dict[str, Any]:
    """Deduce the config of a `MotionAdapter` from the names and shapes of its weights, in either layout."""
    modules: dict[str, set[str]] = defaultdict(set)  # by block of the UNet, as all of these
    layers: dict[str, set[str]] = defaultdict(set)
    channels: dict[str, int] = {}
    lengths: set[int] = set()
    for name, weight in weights.items():
        if match := MOTION_WEIGHT.fullmatch(name):
            block = match["unet_block"]
            modules[block].add(match["module"])
            if match["block"]:
                layers[block].add(match["block"])
            if name.endswith(".norm.weight"):
                channels[block] = weight.shape[0]
            if name.endswith(".pe"):
                lengths.add(weight.shape[1])
    if not modules:
        raise ValueError(f"{file}: holds no motion modules.")
    lengths = lengths or {motion_max_seq_length} - {None}
    if len(lengths) != 1:
        what = f"has position tables of {lengths} frames" if lengths else "has no position tables"
        raise ValueError(f"{file}: {what}: set `motion_max_seq_length` for a file without them.")
    down = [f"down_blocks.{index}" for index in range(sum(block.startswith("down_blocks.") for block in modules))]
    if not down or any(block not in channels for block in down):
        raise ValueError(f"{file}: the motion modules of some down blocks are missing.")
    for block in down:
        if channels[block] % NORM_GROUPS or channels[block] % heads:
            raise ValueError(
                f"{file}: the channels of {block} must be a multiple of {NORM_GROUPS} norm groups and {heads} heads, "
                f"got {channels[block]}."
            )
    return {
        "block_out_channels": [channels[block] for block in down],
        "motion_layers_per_block": _one_if_equal([len(modules[block]) for block in down]),
        "motion_transformer_layers_per_block": _one_if_equal([len(layers[block]) for block in down]),
        "motion_mid_block_layers_per_block": max(1, len(modules.get("mid_block", ()))),
        "motion_transformer_layers_per_mid_block": max(1, len(layers.get("mid_block", ()))),
        "motion_num_attention_heads": heads,
        "motion_max_seq_length": lengths.pop(),
        "use_motion_mid_block": "mid_block" in modules,
    }


def _one_if_equal(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values
