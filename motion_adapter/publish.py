"""A pipeline or an adapter as a folder that others load: without local paths, written all or not at all.

`save_pretrained` of diffusers writes the motion weights twice (in the motion UNet and in the adapter), no code, a
class name that `DiffusionPipeline` does not know, and the absolute path the weights were loaded from.
"""

import inspect
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn

from pipeline_landscape_video.atomic_writing import check_replaceable, write_directory
from pipeline_landscape_video.landscape_image_retention import ImageRetention

from .build import extract_motion_adapter
from .code_files import (
    BRANCH,
    BRANCH_CODE,
    PIPELINE,
    PIPELINE_WITH_PICTURES,
    copy_branch_code,
    copy_code,
)
from .validate import check_weights
from .weights_files import check_finite, stored_dtype


PIPELINE_CLASSES = {PIPELINE: "LandscapeVideoPipeline", PIPELINE_WITH_PICTURES: "LandscapeImageToVideoPipeline"}
PATH_ENTRIES = ("_name_or_path", "name_or_path")


def export_pipeline(
    pipe: DiffusionPipeline,
    directory: str | Path,
    dtype: torch.dtype | None = None,
    include_code: bool = True,
    overwrite: bool = False,
    card: str | None = None,
) -> Path:
    """
    Write a `LandscapeVideoPipeline` as a folder from which both of these load it, on a machine without this package:

        >>> DiffusionPipeline.from_pretrained(directory, trust_remote_code=True)
        >>> DiffusionPipeline.from_pretrained(base_model, custom_pipeline=directory, trust_remote_code=True)

    The UNet is written as an image UNet and a plain `MotionAdapter` with the weights that the pipeline runs with. (As
    a motion UNet if the scheduler has scaled_linear betas: with an image UNet it would be replaced on loading.) A
    `LandscapeImageToVideoPipeline` with a branch is written as such, the branch with its code in a folder of its own;
    as `custom_pipeline` of another base model it means `pipeline.py`, which takes text only. The folder is made beside
    `directory` under another name and renamed when it is complete.

    Args:
        pipe: stays as it is.
        directory: a folder that does not exist yet, or is empty.
        dtype: of the weights in the files, such as `torch.float16`; their own if `None`. The components are loaded in
            float32 either way, unless another `dtype` is asked for.
        include_code: copy the pipeline's code files and name them in `model_index.json`. Without, the class comes from
            this package or from `custom_pipeline`.
        overwrite: replace a folder with files in it.
        card: text of the README.md, see `model_card`; none without.

    Returns:
        `directory`, as a `Path`.

    Raises:
        FileExistsError: `directory` has files in it (and `overwrite` is False), or is a file.
        ValueError: weights that these files cannot hold (LoRA, IP-Adapter, fused projections) or that are not finite
            in `dtype`; the message names one.
    """
    check_replaceable(directory, overwrite)
    components = portable_components(pipe)
    with write_directory(directory) as folder:
        for name, component in components.items():
            if component is not None:
                save_component(component, folder / name, dtype)
        if BRANCH in components:
            copy_branch_code(folder / BRANCH)
        if include_code:
            copy_code(folder, with_pictures=BRANCH in components)
        _write_json(folder / "model_index.json", model_index(components, include_code))
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
    return Path(directory).absolute()


def export_adapter(
    adapter: MotionAdapter,
    directory: str | Path,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    card: str | None = None,
) -> Path:
    """
    Write a motion adapter with the pipeline's code as a folder for the Hub, from which both parts of this load:

        >>> adapter = MotionAdapter.from_pretrained(directory)
        >>> DiffusionPipeline.from_pretrained(
        ...     base_model, motion_adapter=adapter, custom_pipeline=directory, trust_remote_code=True
        ... )

    Args:
        adapter: stays as it is.
        directory, dtype, overwrite, card: as `export_pipeline`.

    Returns:
        `directory`, as a `Path`.

    Raises:
        FileExistsError: as `export_pipeline`.
        ValueError: weights that are not finite in `dtype`.
    """
    check_replaceable(directory, overwrite)
    with write_directory(directory) as folder:
        save_component(adapter, folder, dtype)
        copy_code(folder)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
    return Path(directory).absolute()


def load_adapter(folder: str | Path) -> MotionAdapter:
    """
    The motion adapter in `folder`, in the dtype of its file.

    Raises:
        ValueError: the folder holds no adapter, or one whose weights are not those that its config tells.
    """
    folder = Path(folder)
    config = folder / "config.json"
    class_name = json.loads(config.read_text(encoding="utf-8")).get("_class_name") if config.is_file() else None
    if class_name != "MotionAdapter":
        problem = f"its config.json is of a {class_name}" if config.is_file() else "it has no config.json"
        raise ValueError(f"{folder}: holds no motion adapter: {problem}.")
    check_weights(folder, MotionAdapter)
    return MotionAdapter.from_pretrained(folder, dtype=stored_dtype(folder)).eval()


def portable_components(pipe: DiffusionPipeline) -> dict[str, Any]:
    """The components of `pipe` with the UNet taken apart, sharing its weights; a branch only if there is one."""
    components = {name: getattr(part, "_orig_mod", part) for name, part in pipe.components.items()}  # torch.compile's
    if components.get(BRANCH) is None:
        components.pop(BRANCH, None)
    else:
        branch = components[BRANCH]
        with torch.device("meta"):
            plain_names = type(branch).from_config(entries_of(type(branch), branch.config)).state_dict().keys()
        check_no_extra_weights(BRANCH, branch.state_dict().keys() - plain_names)
    unet, adapter = components["unet"], components["motion_adapter"]
    with torch.device("meta"):  # only the names of its weights are wanted
        plain_names = UNetMotionModel.from_config(entries_of(UNetMotionModel, unet.config)).state_dict().keys()
    check_no_extra_weights("unet", unet.state_dict().keys() - plain_names)
    check_no_extra_weights(
        "text_encoder", {name for name in components["text_encoder"].state_dict() if "lora" in name}
    )

    if pipe.scheduler.config.get("beta_schedule") == "scaled_linear":
        return components | {"motion_adapter": None}
    components |= {"unet": extract_image_unet(unet), "motion_adapter": extract_motion_adapter(unet)}
    if adapter is not None and "sparse_causal_mode" in adapter.config and "sparse_causal_mode" not in unet.config:
        components["motion_adapter"].register_to_config(sparse_causal_mode=adapter.config.sparse_causal_mode)
    return components


def entries_of(model_class: type[nn.Module], config: dict[str, Any]) -> dict[str, Any]:
    """The entries of `config` that `model_class` is made from."""
    known = inspect.signature(model_class.__init__).parameters
    return {name: value for name, value in config.items() if name in known}


def check_no_extra_weights(component: str, names: set[str]) -> None:
    """Raise a `ValueError` for weights that were added to a model after it was built."""
    if names:
        raise ValueError(
            f"`{component}` holds {len(names)} weights that its config does not name, such as {min(names)}: fuse or"
            " unload LoRA, unload IP-Adapters, unfuse projections, and export then."
        )


def extract_image_unet(unet: UNetMotionModel) -> UNet2DConditionModel:
    """
    The image layers of `unet` as the `UNet2DConditionModel` from which `UNetMotionModel.from_unet2d` makes it again.
    It shares the tensors of `unet`.

    Raises:
        ValueError: `unet` has layers that an image UNet has not.
    """
    config = entries_of(UNet2DConditionModel, unet.config)
    for side in ("down_block_types", "up_block_types"):
        config[side] = [block_type.replace("Motion", "2D") for block_type in unet.config[side]]
    # In an image UNet the number of heads goes by this name.
    config |= {"attention_head_dim": config["num_attention_heads"], "num_attention_heads": None}
    with torch.device("meta"):  # all tensors come from `unet`
        image_unet = UNet2DConditionModel.from_config(config)
    weights = {name: weight for name, weight in unet.state_dict().items() if ".motion_modules." not in name}
    different = sorted(weights.keys() ^ image_unet.state_dict().keys())
    if different:
        raise ValueError(f"`unet` differs from an image UNet in {len(different)} weights, such as {different[0]}.")
    image_unet.load_state_dict(weights, assign=True)
    return image_unet.train(unet.training)


def save_component(component: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """Write one component into `folder`, its weights in `dtype`, its config without local paths."""
    if isinstance(component, nn.Module):
        if dtype is not None:
            component = nn.Module.to(deepcopy(component), dtype)  # diffusers' own `to` warns about nothing
        check_finite(folder.name, component.state_dict().items())
    component.save_pretrained(folder)
    for file in (*folder.glob("config.json"), *folder.glob("*_config.json")):
        entries = {name: value for name, value in json.loads(file.read_text()).items() if name not in PATH_ENTRIES}
        if library_of(component) == "transformers" and "dtype" in entries:
            # transformers loads in the dtype of this entry, diffusers in float32: the two must not meet in one call.
            entries["dtype"] = "float32"
        _write_json(file, entries)


def model_index(components: dict[str, Any], include_code: bool) -> dict[str, Any]:
    """What diffusers reads first: the pipeline's class, and library and class of each component."""
    file = PIPELINE_WITH_PICTURES if BRANCH in components else PIPELINE
    class_name = PIPELINE_CLASSES[file]
    index = {
        "_class_name": [file, class_name] if include_code else class_name,
        "_diffusers_version": diffusers.__version__,
    }
    for name, component in sorted(components.items()):
        index[name] = [None, None] if component is None else [library_of(component), type(component).__name__]
    return index


def library_of(component: Any) -> str:
    """`"diffusers"` or `"transformers"`, or the file beside its weights that the class of a branch of ours is in."""
    if type(component).__name__ == ImageRetention.__name__:
        return BRANCH_CODE
    return type(component).__module__.split(".")[0]


def _write_json(file: Path, entries: dict[str, Any]) -> None:
    """Readable JSON with a line end, as diffusers writes it."""
    file.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
