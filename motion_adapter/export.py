"""Export a pipeline or an adapter as a folder that others can load: with its code and without local paths.

`save_pretrained` of diffusers would write the motion weights twice (in the motion UNet and in the adapter), no code, a
class name that `DiffusionPipeline` does not know, and the absolute path the weights were loaded from.
"""

import inspect
import json
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn

from pipeline_landscape_video.atomic_writing import write_directory
from pipeline_landscape_video.landscape_image_retention import ImageRetention
from pipeline_landscape_video.landscape_motion_attention import PLAIN_CONFIG

from .build import extract_motion_adapter
from .code_files import BRANCH, BRANCH_CODE, IMAGE_PIPELINE, PIPELINE, branch_code, code_files, copy_code
from .other_programs import trained_as
from .weights_files import check_finite, save_adapter


PIPELINE_CLASSES = {PIPELINE: "LandscapeVideoPipeline", IMAGE_PIPELINE: "LandscapeImageToVideoPipeline"}
PATH_ENTRIES = ("_name_or_path", "name_or_path")

logger = logging.getLogger(__name__)


def export_pipeline(
    pipe: DiffusionPipeline,
    directory: str | Path,
    dtype: torch.dtype | dict[str, torch.dtype] | None = None,
    include_code: bool = True,
    overwrite: bool = False,
    card: str | None = None,
) -> Path:
    """Write a `LandscapeVideoPipeline` or `LandscapeImageToVideoPipeline` as a folder.

    Both of these load it on a machine without this package:

        >>> DiffusionPipeline.from_pretrained(directory, trust_remote_code=True)
        >>> DiffusionPipeline.from_pretrained(base_model, custom_pipeline=directory, trust_remote_code=True)

    The UNet is split into an image UNet and a plain `MotionAdapter`, with the weights that the pipeline runs with. (It
    stays a motion UNet if the betas are scaled_linear: loaded with an image UNet, the pipeline would replace them.)
    A retention branch is written with its code into a folder of its own. As the `custom_pipeline` of another base
    model, the folder always means `pipeline.py`, which takes text only.

    Args:
        pipe: Pipeline to export; it is not changed.
        directory: Folder to create. It may exist if it is empty.
        dtype: Dtype of the weights in the files, such as `torch.float16`, or one for each component by name; `None`
            keeps their own. All components load in float32, unless another dtype is requested.
        include_code: Copy the pipeline's code and name it in `model_index.json`. Otherwise the class must come from
            this package or from `custom_pipeline`.
        overwrite: Replace a folder that is not empty.
        card: Text of README.md, see `model_card`; no such file if `None`.

    Returns:
        The absolute path of `directory`.

    Raises:
        FileExistsError: `directory` is a file, or is not empty (unless `overwrite`).
        ValueError: Weights that these files cannot hold (LoRA, IP-Adapter, fused projections) or that are not finite
            in `dtype`. The message names one.
    """
    components = portable_components(pipe)
    with write_directory(directory, overwrite) as folder:
        for name, component in components.items():
            if component is not None:
                save_component(component, folder / name, dtype.get(name) if isinstance(dtype, dict) else dtype)
        if BRANCH in components:
            copy_code([branch_code()], folder / BRANCH)
        if include_code:
            copy_code(code_files(image_to_video=BRANCH in components), folder)
        _write_json(folder / "model_index.json", model_index(components, include_code))
        _write_card(folder, card)
    logger.warning("The motion modules were %s", trained_as(pipe.unet.config))
    return Path(directory).absolute()


def export_adapter(
    adapter: MotionAdapter,
    directory: str | Path,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    card: str | None = None,
) -> Path:
    """Write a motion adapter with the pipeline's code as a folder for the Hub.

    The folder serves both the adapter and the pipeline:

        >>> adapter = MotionAdapter.from_pretrained(directory)
        >>> DiffusionPipeline.from_pretrained(
        ...     base_model, motion_adapter=adapter, custom_pipeline=directory, trust_remote_code=True
        ... )

    Args:
        adapter: Adapter to export; it is not changed.
        directory, dtype, overwrite, card: See `export_pipeline`.

    Returns:
        The absolute path of `directory`.

    Raises:
        FileExistsError: See `export_pipeline`.
        ValueError: Weights that are not finite in `dtype`.
    """
    with write_directory(directory, overwrite) as folder:
        save_component(adapter, folder, dtype)
        copy_code(code_files(), folder)
        _write_card(folder, card)
    logger.warning("The motion modules were %s", trained_as(adapter.config))
    return Path(directory).absolute()


def portable_components(pipe: DiffusionPipeline) -> dict[str, Any]:
    """Return the components of `pipe` with the UNet split, sharing its weights; a retention branch only if present."""
    components = {name: getattr(part, "_orig_mod", part) for name, part in pipe.components.items()}  # torch.compile's
    if components.get(BRANCH) is None:
        components.pop(BRANCH, None)
    for name in [name for name in ("unet", BRANCH) if name in components]:
        model = components[name]
        with torch.device("meta"):  # only the names of its weights are needed
            plain_model = type(model).from_config(entries_of(type(model), model.config))
        check_no_extra_weights(name, model.state_dict().keys() - plain_model.state_dict().keys())
    text_weights = components["text_encoder"].state_dict()
    check_no_extra_weights("text_encoder", {name for name in text_weights if "lora" in name})

    if pipe.scheduler.config.get("beta_schedule") == "scaled_linear":
        return components | {"motion_adapter": None}
    unet, adapter = components["unet"], components["motion_adapter"]
    components |= {"unet": extract_image_unet(unet), "motion_adapter": extract_motion_adapter(unet)}
    if adapter is not None:  # it names what the UNet runs where the UNet's config does not
        entries = {name: adapter.config[name] for name in PLAIN_CONFIG.keys() - unet.config if name in adapter.config}
        components["motion_adapter"].register_to_config(**entries)
    return components


def entries_of(model_class: type[nn.Module], config: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of `config` that are arguments of `model_class`."""
    known = inspect.signature(model_class.__init__).parameters
    return {name: value for name, value in config.items() if name in known}


def check_no_extra_weights(component: str, names: set[str]) -> None:
    """Raise a `ValueError` if a model has weights that were added after it was built."""
    if names:
        raise ValueError(
            f"`{component}` has {len(names)} weights that its config does not describe, such as {min(names)}: fuse or "
            "unload LoRA, unload IP-Adapters, unfuse projections, then export."
        )


def extract_image_unet(unet: UNetMotionModel) -> UNet2DConditionModel:
    """Return the image layers of `unet`, from which `UNetMotionModel.from_unet2d` rebuilds it, sharing its tensors."""
    config = entries_of(UNet2DConditionModel, unet.config)
    for side in ("down_block_types", "up_block_types"):
        config[side] = [block_type.replace("Motion", "2D") for block_type in unet.config[side]]
    # An image UNet calls the number of heads `attention_head_dim`.
    config |= {"attention_head_dim": config["num_attention_heads"], "num_attention_heads": None}
    with torch.device("meta"):  # all tensors come from `unet`
        image_unet = UNet2DConditionModel.from_config(config)
    weights = {name: weight for name, weight in unet.state_dict().items() if ".motion_modules." not in name}
    image_unet.load_state_dict(weights, assign=True)
    return image_unet.train(unet.training)


def save_component(component: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """Write one component into `folder`: its weights in `dtype`, its config without local paths."""
    if isinstance(component, nn.Module):
        if dtype is not None:
            component = nn.Module.to(deepcopy(component), dtype)  # diffusers' own `to` would log warnings
        check_finite(folder.name, component.state_dict().items())
    if isinstance(component, MotionAdapter):
        save_adapter(component, folder)
    else:
        component.save_pretrained(folder)
    for file in (*folder.glob("config.json"), *folder.glob("*_config.json")):
        entries = {name: value for name, value in json.loads(file.read_text()).items() if name not in PATH_ENTRIES}
        if library_of(component) == "transformers" and "dtype" in entries:
            # transformers loads in the dtype of this entry, diffusers in float32: a pipeline needs one dtype.
            entries["dtype"] = "float32"
        _write_json(file, entries)


def model_index(components: dict[str, Any], include_code: bool) -> dict[str, Any]:
    """Return the content of `model_index.json`: class of the pipeline, library and class of each component."""
    file = IMAGE_PIPELINE if BRANCH in components else PIPELINE
    class_name = PIPELINE_CLASSES[file]
    index = {
        "_class_name": [file, class_name] if include_code else class_name,
        "_diffusers_version": diffusers.__version__,
    }
    for name, component in sorted(components.items()):
        index[name] = [None, None] if component is None else [library_of(component), type(component).__name__]
    return index


def library_of(component: Any) -> str:
    """Return `"diffusers"`, `"transformers"`, or the file beside the weights that holds the class of a branch."""
    if type(component).__name__ == ImageRetention.__name__:
        return BRANCH_CODE
    return type(component).__module__.split(".")[0]


def _write_json(file: Path, entries: dict[str, Any]) -> None:
    file.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")  # as diffusers does


def _write_card(folder: Path, card: str | None) -> None:
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
