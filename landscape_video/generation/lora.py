"""Load LoRA weights at the strength that they were trained with, whichever tool saved them."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motion_adapter.sources import local_path


# Heavy libraries are imported where they are used, so a wrong path is found before torch is loaded.
if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNetMotionModel

logger = logging.getLogger(__name__)

PEFT_PREFIX = "base_model.model."  # of every weight that `PeftModel.save_pretrained` writes


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
