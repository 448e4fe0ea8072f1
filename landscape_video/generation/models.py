"""Load models from folders, files and the Hugging Face Hub; `motion_adapter.sources` decides which a name means.

LoRA weights are loaded at the strength that they were trained with, whichever tool saved them.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape_video.generation.lean_imports import lean_imports
from landscape_video.generation.settings import ImageModelSettings, ModelSettings
from motion_adapter.sources import local_path


# Heavy libraries are imported where they are used, so a wrong path is found before torch is loaded.
if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNetMotionModel

logger = logging.getLogger(__name__)

PEFT_PREFIX = "base_model.model."  # of every weight that `PeftModel.save_pretrained` writes

# Files downloaded from a repository on the Hub: neither code nor pickled weights.
SAFE_FILES = ("*.json", "*.txt", "*.safetensors")


def load_lora(pipe: "DiffusionPipeline", source: str | Path, name: str) -> None:
    """Load LoRA weights into a pipeline under a name.

    The scale of a layer is alpha / rank. diffusers keeps alpha in the metadata of a file, kohya in a tensor for each
    layer, peft in adapter_config.json beside the weights. Without any of these, a warning says that alpha is unknown.

    Raises:
        ValueError: Some weights are none of a LoRA, or none of them belongs to the pipeline.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft

    path = str(local_path(source) or source)
    state_dict, alphas, metadata = pipe.lora_state_dict(path, unet_config=pipe.unet.config, return_lora_metadata=True)
    if other := next((key for key in state_dict if "lora" not in key), None):
        raise ValueError(f"it must hold nothing but LoRA weights, got {other}.")
    if all(key.startswith(PEFT_PREFIX) for key in state_dict):  # diffusers finds nothing of its own in such a file
        metadata = read_peft_config(source)
        state_dict = {f"unet.{key.removeprefix(PEFT_PREFIX)}": tensor for key, tensor in state_dict.items()}
    arguments = {"network_alphas": alphas, "adapter_name": name, "metadata": metadata, "_pipeline": pipe}
    # diffusers saves attention and other layers under two schemes of names, and drops one of them at loading.
    unet_weights = {key: tensor for key, tensor in state_dict.items() if key.startswith("unet.")}
    pipe.load_lora_into_unet(convert_unet_state_dict_to_peft(unet_weights), unet=pipe.unet, **arguments)
    if any(key.startswith("text_encoder.") for key in state_dict):
        pipe.load_lora_into_text_encoder(state_dict, text_encoder=pipe.text_encoder, **arguments)
    if alphas:
        set_alphas(pipe.unet, alphas, name)
    if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
        raise ValueError("it holds no weights for this model.")
    if not alphas and not metadata:
        logger.warning(
            "`lora` %s does not state its strength (alpha); it is loaded with alpha = rank, a scale of 1.", source
        )


def read_peft_config(source: str | Path) -> dict[str, Any] | None:
    """The entries of the adapter_config.json beside peft's weights, as diffusers' metadata; None without that file."""
    from peft import LoraConfig

    path = local_path(source)
    folder = path.parent if path is not None and path.is_file() else path
    if folder is not None and not (folder / "adapter_config.json").is_file():
        return None
    config = LoraConfig.from_pretrained(str(folder or source))
    return {f"unet.{key}": value for key, value in config.to_dict().items()}


def set_alphas(unet: "UNetMotionModel", alphas: dict[str, float], name: str) -> None:
    """Give each layer of the LoRA its own alpha; without one, alpha is the rank, as in kohya.

    diffusers 0.42 gives all attention layers the most frequent alpha of the file.

    Args:
        unet: UNet with the LoRA loaded.
        alphas: Alphas as `lora_state_dict` returns them, by the keys of their weights.
        name: Name of the LoRA.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft
    from peft.tuners.lora import LoraLayer

    keys = {key.removeprefix("unet.").removesuffix(".alpha"): alpha for key, alpha in alphas.items()}
    by_layer = {key.split(".lora_")[0]: alpha for key, alpha in convert_unet_state_dict_to_peft(keys).items()}
    for layer_name, layer in unet.named_modules():
        if isinstance(layer, LoraLayer) and name in layer.r:
            layer.lora_alpha[name] = by_layer.get(layer_name, layer.r[name])
            layer.scaling[name] = layer.lora_alpha[name] / layer.r[name]


# Heavy libraries are imported where they are used, so a wrong path is found before torch is loaded.
if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin, MotionAdapter

    from pipeline_landscape_video import (
        LandscapeImageToVideoPipeline,
        LandscapeVideoEditingPipeline,
        LandscapeVideoPipeline,
    )
    from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder


def find_weights(source: str | Path) -> Path:
    """Return the file or folder of a model's weights. A repository on the Hub is downloaded, without its code.

    Raises:
        FileNotFoundError: A path that does not exist.
        ValueError, ConnectionError: The Hub does not have it, or cannot be reached.
    """
    if (path := local_path(source)) is not None:
        if not path.exists():
            raise FileNotFoundError(f"{source}: no such file or folder.")
        return path
    from huggingface_hub import snapshot_download

    from motion_adapter.hub import hub_errors

    with hub_errors(str(source)):
        return Path(snapshot_download(str(source), allow_patterns=SAFE_FILES))


def find_pipeline(source: str, pipeline_class: Callable[[], "type[DiffusionPipeline]"]) -> Path:
    """Return the folder of a pipeline. From the Hub, only the files that `pipeline_class()` needs are downloaded.

    Raises:
        FileNotFoundError: A path that does not exist, or contains no pipeline.
    """
    if (path := local_path(source)) is not None:
        if not (path / "model_index.json").is_file():
            problem = "contains no model_index.json" if path.exists() else "no such file or folder"
            raise FileNotFoundError(f"{source}: {problem}.")
        return path
    from huggingface_hub import hf_hub_download, snapshot_download

    index = json.loads(Path(hf_hub_download(source, "model_index.json")).read_text(encoding="utf-8"))
    if isinstance(index.get("_class_name"), list):  # its own code is never run: our classes are installed
        patterns = ["model_index.json", *(f"*/{ending}" for ending in SAFE_FILES)]
        return Path(snapshot_download(source, allow_patterns=patterns))
    return Path(pipeline_class().download(source))


def check_models(models: ModelSettings) -> None:
    """Raise `ValueError` for a path that does not exist. Names on the Hub are checked when they are loaded."""
    sources = {name: [getattr(models, name, None)] for name in ("model", "motion_adapter", "image_retention")}
    sources["decoder"] = [] if models.decoder in ("auto", "native") else [models.decoder]
    for name, given in {**sources, "lora": models.lora or []}.items():
        for source in given:
            if source is not None and (path := local_path(source)) is not None and not path.exists():
                raise ValueError(f"`{name}` {source}: no such file or folder.")


def load_pipeline(
    models: ModelSettings, class_name: str | None = None
) -> "LandscapeVideoPipeline | LandscapeImageToVideoPipeline | LandscapeVideoEditingPipeline":
    """Load a pipeline with its adapters onto its device.

    Args:
        models: Models to load.
        class_name: Class of the pipeline, in `pipeline_landscape_video`; `None` for text to video, or for image to
            video with `ImageModelSettings`.

    Raises:
        ValueError, ConnectionError: A part does not load; the message begins with the name of its setting.
    """
    check_models(models)
    device = pick_device(models.device)
    if models.offload != "none" and device.type == "cpu":
        raise ValueError(f"`offload` must be none on the CPU, got {models.offload!r}: it needs a GPU.")

    import torch

    import pipeline_landscape_video
    from pipeline_landscape_video.quiet_loading import less_chatter

    takes_image = isinstance(models, ImageModelSettings)
    class_name = class_name or ("LandscapeImageToVideoPipeline" if takes_image else "LandscapeVideoPipeline")
    with lean_imports():
        pipeline_class = getattr(pipeline_landscape_video, class_name)
    dtype = getattr(torch, pick_dtype(models.dtype, device))
    with less_chatter():
        parts = {}
        if models.motion_adapter is not None:
            with naming(f"`motion_adapter` {models.motion_adapter}", models.motion_adapter, "does not load: "):
                parts["motion_adapter"] = load_motion_adapter(models.motion_adapter, dtype)
        if takes_image and models.image_retention is not None:
            with naming(f"`image_retention` {models.image_retention}", models.image_retention, "does not load: "):
                parts["image_retention"] = load_model(
                    pipeline_landscape_video.ImageRetention, models.image_retention, dtype
                )
        with naming(f"`model` {models.model}", models.model, "does not load: "):
            folder = find_pipeline(models.model, lambda: pipeline_class)
            if takes_image and not ("image_retention" in parts or (folder / "image_retention").is_dir()):
                raise ValueError("it has no image_retention/ folder; set `image_retention` or choose another model.")
            pipe = pipeline_class.from_pretrained(folder, dtype=dtype, **parts)
        for index, source in enumerate(models.lora or []):
            with naming(f"`lora` {source}", source, "does not load: "):
                load_lora(pipe, source, f"lora_{index}")
        if models.lora:
            pipe.set_adapters([f"lora_{index}" for index in range(len(models.lora))])

    # Where the weights of the preset draft are, and those that they belong to.
    pipe.source_folder = folder
    adapter = folder / "motion_adapter" if models.motion_adapter is None else local_path(models.motion_adapter)
    pipe.source_motion_adapter = adapter
    pipe.frame_decoder = load_frame_decoder(models.decoder, folder, pipe.vae, dtype)
    if pipe.frame_decoder is not None:
        pipe.frame_decoder.to(device)
    pipe.optimize(models.optimize)
    if models.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif models.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def load_frame_decoder(
    source: str, folder: Path, vae: "AutoencoderKL", dtype: "torch.dtype"
) -> "DoubleSizeDecoder | None":
    """Load a decoder that replaces that of the VAE, from its folder or the Hub.

    Args:
        source: The setting `decoder`: `"native"` for none; `"auto"` for that in `folder`, if it has one; or its name.
        folder: Folder of the pipeline.
        vae: The VAE whose latents it decodes.
        dtype: Dtype of its weights.

    Raises:
        ValueError, ConnectionError: It does not load, or belongs to another VAE; the message begins with `decoder`.
    """
    if source == "native" or (source == "auto" and not (folder / "decoder").is_dir()):
        return None
    from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder

    source = str(folder / "decoder") if source == "auto" else source
    with naming(f"`decoder` {source}", source, "does not load: "):
        decoder = load_model(DoubleSizeDecoder, source, dtype)
        for name in ("latent_channels", "scaling_factor"):
            if decoder.config[name] != vae.config[name]:
                raise ValueError(f"its {name} is {decoder.config[name]}, that of the model's VAE {vae.config[name]}.")
    return decoder


def load_motion_adapter(source: str | Path, dtype: "torch.dtype") -> "MotionAdapter":
    """Load a `MotionAdapter` from a folder, the Hub, or a file in the layout of diffusers or AnimateDiff."""
    from diffusers import MotionAdapter

    from motion_adapter.convert import load_animatediff

    path = local_path(source)
    if path is None or not path.is_file():
        return load_model(MotionAdapter, source, dtype)
    return load_animatediff(path).to(dtype)


def load_model(model_class: "type[ModelMixin]", source: str | Path, dtype: "torch.dtype") -> "ModelMixin":
    """Load a model from a folder or the Hub.

    Raises:
        ValueError: The model is of another class, or weights are missing. diffusers would accept both.
    """
    source = str(local_path(source) or source)
    found = model_class.load_config(source).get("_class_name", model_class.__name__)
    if found != model_class.__name__:
        raise ValueError(f"it is of the class {found}, not {model_class.__name__}.")
    model = model_class.from_pretrained(source, dtype=dtype)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{missing[0]} is missing in its weights.")
    return model


def pick_device(name: str) -> "torch.device":
    """Return the device of that name; for "auto", a GPU if available. Raises `ValueError` if it is not available."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"`device` must be available on this machine, got {name} ({reason}).") from error
    return device


def pick_dtype(name: str, device: "torch.device") -> str:
    """Return the precision of that name; for "auto", float16 on a GPU and float32 on a CPU."""
    return name if name != "auto" else "float32" if device.type == "cpu" else "float16"


@contextmanager
def naming(label: str, source: str, problem: str = "") -> Iterator[None]:
    """Turn an error of loading `source` into one line that begins with `label`.

    Errors of the Hub are explained; the message of any other error follows `problem` unchanged.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        from motion_adapter.hub import explain_hub_error

        if type(error).__name__ == "OutOfMemoryError":  # torch's, a RuntimeError
            raise
        explained = explain_hub_error(error, source) if local_path(source) is None else None
        kind = ConnectionError if isinstance(explained, ConnectionError) else ValueError
        raise kind(f"{label}: {explained or f'{problem}{error}'}") from error
