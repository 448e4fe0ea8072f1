"""
Motion modules in AnimateDiff's layout (`.ckpt`, `.safetensors`; ComfyUI and WebUI read it) to a `MotionAdapter` and
back, without loss: the same tensors under other names. Layout: `animatediff/models/motion_module.py` of
guoyww/AnimateDiff.

AnimateDiff keeps a position table for each of the two attentions of a block, diffusers one for both; they are equal.
Checkpoints of its training, and ConCLVD's, have `module.` before each name, and wrap the weights as `state_dict`.
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
from safetensors.torch import save_file

from pipeline_landscape_video.atomic_writing import write_file
from pipeline_landscape_video.landscape_motion_attention import check_sparse_causal_mode

from .weights_files import check_finite, check_names_and_shapes, listed, read_header, read_tensors


PICKLES = (".ckpt", ".pt", ".pth", ".bin")
METADATA = "motion_adapter_config"  # in the header of what we write: heads, mode, and what else no weight tells
BESIDE_STATE_DICT = {"epoch", "global_step"}
NO_WEIGHTS = {"animatediff_config"}
NORM_GROUPS = 32  # of AnimateDiff's group norms, and what `MotionAdapter` takes by default

MODULE = r"(?P<module>(?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+)"
ANIMATEDIFF_NAME = re.compile(rf"{MODULE}\.temporal_transformer\.(?P<rest>.+)")
OUR_NAME = re.compile(rf"{MODULE}\.(?P<rest>.+)")
BLOCK = re.compile(r"(transformer_blocks\.\d+)\.(.+)")
IMAGE_LAYER = re.compile(
    r"(conv_in|conv_out|conv_norm_out|time_proj|time_embedding)\..*"
    r"|((down|up)_blocks\.\d+|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\..*"
)
POSITIONS = "pos_embed.pe"
ANIMATEDIFF_POSITIONS = ("attention_blocks.0.pos_encoder.pe", "attention_blocks.1.pos_encoder.pe")
RENAMED = (  # ours, AnimateDiff's; each the beginning of a name within a transformer block
    ("attn1.", "attention_blocks.0."),
    ("attn2.", "attention_blocks.1."),
    ("norm1.", "norms.0."),
    ("norm2.", "norms.1."),
    ("norm3.", "ff_norm."),
    ("ff.", "ff."),
)


def load_animatediff(
    file: str | Path,
    sparse_causal_mode: str | None = None,
    motion_max_seq_length: int | None = None,
    motion_num_attention_heads: int = 8,
    drop_image_layers: bool = False,
) -> MotionAdapter:
    """
    The motion modules of an AnimateDiff file as a `MotionAdapter` in the dtypes of the file.

    Args:
        file: `.safetensors`, or a pickle of tensors (`.ckpt`, `.pt`, `.pth`, `.bin`), which cannot run code here.
        sparse_causal_mode: to write into the config, see `install_sparse_causal_attention`; `None` takes what a file
            of ours says, and no mode for others (plain attention, as AnimateDiff trained them).
        motion_max_seq_length: length of the position table for files that hold none (AnimateLCM's).
        motion_num_attention_heads: which no weight tells; a file of ours says it itself, AnimateDiff's have 8.
        drop_image_layers: accept the checkpoint of a whole UNet, and leave its image layers out.

    Raises:
        ValueError: names that are unknown or missing (the message lists them), values that are not finite, position
            tables that differ, a file that is damaged or holds more than tensors.
        FileNotFoundError: there is no such file.
    """
    weights, config = read_weights(file)
    if drop_image_layers:
        weights = {name: weight for name, weight in weights.items() if not IMAGE_LAYER.fullmatch(name)}
    check_finite(str(file), weights.items())
    renamed = rename_to_ours(file, weights)
    config = config or deduce_config(file, renamed, motion_max_seq_length, motion_num_attention_heads)
    if sparse_causal_mode is not None:
        check_sparse_causal_mode(sparse_causal_mode)
        config["sparse_causal_mode"] = sparse_causal_mode

    with torch.device("meta"):  # all tensors come from the file
        adapter = MotionAdapter.from_config(config)
    if not any(name.endswith(POSITIONS) for name in renamed):
        dtype = next(iter(renamed.values())).dtype
        for name, table in adapter.state_dict().items():
            if name.endswith(POSITIONS):
                _, length, channels = table.shape
                renamed[name] = SinusoidalPositionalEmbedding(channels, length).pe.to(dtype)
    check_names_and_shapes(str(file), {name: weight.shape for name, weight in renamed.items()}, adapter)
    adapter.load_state_dict(renamed, assign=True)
    ours = {name: config[name] for name in ("sparse_causal_mode", "removed_attentions") if name in config}
    adapter.register_to_config(**ours)
    return adapter.eval()


def save_animatediff(adapter: MotionAdapter, file: str | Path) -> None:
    """
    Write `adapter` in AnimateDiff's layout, in its own dtype; `load_animatediff` gives the same adapter back. Other
    programs run it with plain attention, whatever its `sparse_causal_mode`. The file appears when it is complete.

    Raises:
        ValueError: `file` does not end in .safetensors, or a weight has no place in that layout (PIA's image input).
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: is written as .safetensors only; choose such a name.")
    weights = rename_to_animatediff(adapter.state_dict())
    entries = {name: value for name, value in adapter.config.items() if not name.startswith("_")}
    with write_file(file) as unfinished:
        save_file(weights, unfinished, metadata={"format": "pt", METADATA: json.dumps(entries)})


def read_weights(file: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """The tensors of a file without their `module.`, and the config that one of ours has in its header."""
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file.")
    if file.suffix == ".safetensors":
        metadata = read_header(file).get("__metadata__", {})
        config = json.loads(metadata[METADATA]) if METADATA in metadata else None
        return {name.removeprefix("module."): tensor for name, tensor in read_tensors(file)}, config
    if file.suffix not in PICKLES:
        raise ValueError(f"{file}: is neither .safetensors nor one of {', '.join(PICKLES)}.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).split(". ")[0].split("\n")[0]
        raise ValueError(f"{file}: is damaged or holds more than tensors, which is not read: {reason}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, but has to hold names and tensors.")
    if "state_dict" in content:
        unknown = sorted(map(str, content.keys() - BESIDE_STATE_DICT - {"state_dict"}))
        if unknown:
            raise ValueError(f"{file}: beside its `state_dict` is what nobody knows here: {listed(unknown)}.")
        content = content["state_dict"]
    weights = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    weights = {name: tensor for name, tensor in weights.items() if name not in NO_WEIGHTS}
    no_tensors = sorted(name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor))
    if no_tensors:
        raise ValueError(f"{file}: these are no tensors: {listed(no_tensors)}.")
    return weights, None


def rename_to_ours(file: str | Path, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """AnimateDiff's names to those of `MotionAdapter`. Raises a `ValueError` that lists unknown names."""
    renamed: dict[str, torch.Tensor] = {}
    unknown = []
    for name, weight in weights.items():
        ours = _our_name(name)
        if ours is None:
            unknown.append(name)
        elif ours in renamed and not torch.equal(renamed[ours], weight):  # only position tables come twice
            raise ValueError(f"{file}: the position tables of {name.split('.attention_blocks')[0]} differ.")
        else:
            renamed[ours] = weight
    if unknown:
        image_layers = " They are image layers of a whole UNet: drop them, if the base model has the same."
        hint = image_layers if all(map(IMAGE_LAYER.fullmatch, unknown)) else ""
        raise ValueError(f"{file}: {len(unknown)} names are not AnimateDiff's: {listed(sorted(unknown))}.{hint}")
    if not renamed:
        raise ValueError(f"{file}: holds no motion modules.")
    return renamed


def rename_to_animatediff(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of `MotionAdapter` to AnimateDiff's. Raises a `ValueError` that lists unknown names."""
    renamed = {}
    unknown = []
    for name, weight in weights.items():
        theirs = _animatediff_names(name)
        if not theirs:
            unknown.append(name)
        for their_name in theirs:
            renamed[their_name] = weight.clone().contiguous()  # safetensors stores no tensor under two names
    if unknown:
        raise ValueError(f"AnimateDiff's layout has no place for {len(unknown)} weights: {listed(sorted(unknown))}.")
    return renamed


def deduce_config(
    file: str | Path, weights: dict[str, torch.Tensor], motion_max_seq_length: int | None, heads: int
) -> dict[str, Any]:
    """The config of the `MotionAdapter` with these weights, so far as weights tell it."""
    modules: dict[str, set[str]] = defaultdict(set)  # by block
    layers: dict[str, set[str]] = defaultdict(set)  # by module
    channels: dict[str, int] = {}
    for name, weight in weights.items():
        module = OUR_NAME.fullmatch(name)["module"]
        block = module.split(".motion_modules")[0]
        modules[block].add(module)
        if name.endswith(".norm.weight"):
            channels[block] = weight.shape[0]
        if layer := BLOCK.fullmatch(OUR_NAME.fullmatch(name)["rest"]):
            layers[module].add(layer[1])
    down = [f"down_blocks.{index}" for index in range(len([b for b in modules if b.startswith("down_blocks.")]))]
    lengths = {weight.shape[1] for name, weight in weights.items() if name.endswith(POSITIONS)}
    lengths |= {motion_max_seq_length} if not lengths and motion_max_seq_length else set()
    if len(lengths) != 1:
        what = "holds no position tables: say for how many frames" if not lengths else f"has tables of {lengths}"
        raise ValueError(f"{file}: {what} (`motion_max_seq_length`).")
    if not down or any(block not in channels or block not in modules for block in down):
        raise ValueError(f"{file}: lacks the motion modules of some of its down blocks.")
    for block in down:
        if channels[block] % NORM_GROUPS or channels[block] % heads:
            raise ValueError(
                f"{file}: {block} has {channels[block]} channels, which is no multiple of {NORM_GROUPS} and {heads}."
            )

    def depth(block: str) -> int:
        return max(len(layers[module]) for module in modules[block])

    return {
        "block_out_channels": [channels[block] for block in down],
        "motion_layers_per_block": _one_if_equal([len(modules[block]) for block in down]),
        "motion_transformer_layers_per_block": _one_if_equal([depth(block) for block in down]),
        "motion_mid_block_layers_per_block": len(modules["mid_block"]) if "mid_block" in modules else 1,
        "motion_transformer_layers_per_mid_block": depth("mid_block") if "mid_block" in modules else 1,
        "motion_num_attention_heads": heads,
        "motion_max_seq_length": lengths.pop(),
        "use_motion_mid_block": "mid_block" in modules,
    }


def _one_if_equal(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def _our_name(name: str) -> str | None:
    match = ANIMATEDIFF_NAME.fullmatch(name)
    if match is None:
        return None
    module, rest = match["module"], match["rest"]
    block = BLOCK.fullmatch(rest)
    if block is None:
        return f"{module}.{rest}"
    if block[2] in ANIMATEDIFF_POSITIONS:
        return f"{module}.{block[1]}.{POSITIONS}"
    for ours, theirs in RENAMED:
        if block[2].startswith(theirs):
            return f"{module}.{block[1]}.{ours}{block[2].removeprefix(theirs)}"
    return None


def _animatediff_names(name: str) -> list[str]:
    match = OUR_NAME.fullmatch(name)
    if match is None:
        return []
    module, rest = f"{match['module']}.temporal_transformer", match["rest"]
    block = BLOCK.fullmatch(rest)
    if block is None:
        return [f"{module}.{rest}"]
    if block[2] == POSITIONS:
        return [f"{module}.{block[1]}.{positions}" for positions in ANIMATEDIFF_POSITIONS]
    return [
        f"{module}.{block[1]}.{theirs}{block[2].removeprefix(ours)}"
        for ours, theirs in RENAMED
        if block[2].startswith(ours)
    ]
