"""The model that comes with the package: its name on command lines, and what it wants; not part of the Hub's code."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple


if TYPE_CHECKING:
    from .pipeline import LandscapeVideoPipeline
    from .pipeline_image_to_video import LandscapeImageToVideoPipeline


EMBEDDED_MODEL = "shanshui-tiny"


class Sampling(NamedTuple):
    """What weighs the text, and how much noise each step draws anew."""

    guidance_scale: float
    eta: float


PAPER = Sampling(8.0, 0.0)
EMBEDDED = Sampling(2.0, 1.0)  # so small a model flickers under 8, and noise drawn anew leads it back where it strays
EMBEDDED_WITH_PICTURES = Sampling(4.0, 0.0)  # here, such noise would slow the camera


def default_sampling(unet_config: Mapping[str, Any], with_pictures: bool = False) -> Sampling:
    """The paper's, but what is best for models of that size for the embedded one and whatever was trained on from it.

    Args:
        unet_config: of the image UNet.
        with_pictures: of clips that begin with a given picture.
    """
    from . import SHANSHUI_TINY

    embedded = json.loads((SHANSHUI_TINY / "unet" / "config.json").read_text(encoding="utf-8"))
    is_family = (
        list(unet_config["block_out_channels"]) == embedded["block_out_channels"]
        and unet_config["cross_attention_dim"] == embedded["cross_attention_dim"]
    )
    if not is_family:
        return PAPER
    return EMBEDDED_WITH_PICTURES if with_pictures else EMBEDDED


def choose_sampling(
    pipe: "LandscapeVideoPipeline | LandscapeImageToVideoPipeline",
    guidance_scale: float | None = None,
    eta: float | None = None,
) -> dict[str, float]:
    """`guidance_scale` and `eta` for a call of `pipe`; those that are `None` are of `default_sampling`."""
    best = default_sampling(pipe.unet.config, with_pictures=hasattr(pipe, "image_retention"))
    return {
        "guidance_scale": best.guidance_scale if guidance_scale is None else guidance_scale,
        "eta": best.eta if eta is None else eta,
    }
