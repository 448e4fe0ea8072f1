"""The model that comes with the package: its name on command lines, and what it wants; not part of the Hub's code."""

import json
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .pipeline import LandscapeVideoPipeline


EMBEDDED_MODEL = "shanshui-tiny"
EMBEDDED_GUIDANCE_SCALE, GUIDANCE_SCALE = 4.0, 8.0  # so small a model flickers under the paper's 8


def default_guidance_scale(pipe: "LandscapeVideoPipeline") -> float:
    """What is best for models of that size: the embedded one, and whatever was trained on from it, take less."""
    from . import SHANSHUI_TINY

    embedded = json.loads((SHANSHUI_TINY / "unet" / "config.json").read_text(encoding="utf-8"))
    own = pipe.unet.config
    is_family = (
        list(own.block_out_channels) == embedded["block_out_channels"]
        and own.cross_attention_dim == embedded["cross_attention_dim"]
    )
    return EMBEDDED_GUIDANCE_SCALE if is_family else GUIDANCE_SCALE
