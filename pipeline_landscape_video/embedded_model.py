"""The model that comes with the package: its name on command lines, and what it wants; not part of the Hub's code."""

import json
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .pipeline import LandscapeVideoPipeline
    from .pipeline_image_to_video import LandscapeImageToVideoPipeline


EMBEDDED_MODEL = "shanshui-tiny"
EMBEDDED_GUIDANCE_SCALE, GUIDANCE_SCALE = 4.0, 8.0  # so small a model flickers under the paper's 8
EMBEDDED_ETA, ETA = 1.0, 0.0  # and strays from what it was trained on; noise drawn anew leads it back


def choose_sampling(
    pipe: "LandscapeVideoPipeline | LandscapeImageToVideoPipeline",
    guidance_scale: float | None = None,
    eta: float | None = None,
) -> dict[str, float]:
    """`guidance_scale` and `eta` for a call of `pipe`. Those that are `None` are the paper's, but what is best for
    models of that size for the embedded one and for whatever was trained on from it."""
    from . import SHANSHUI_TINY

    embedded = json.loads((SHANSHUI_TINY / "unet" / "config.json").read_text(encoding="utf-8"))
    own = pipe.unet.config
    is_family = (
        list(own.block_out_channels) == embedded["block_out_channels"]
        and own.cross_attention_dim == embedded["cross_attention_dim"]
    )
    if guidance_scale is None:
        guidance_scale = EMBEDDED_GUIDANCE_SCALE if is_family else GUIDANCE_SCALE
    if eta is None:
        takes_pictures = hasattr(pipe, "image_retention")  # then noise drawn anew would slow the camera
        eta = EMBEDDED_ETA if is_family and not takes_pictures else ETA
    return {"guidance_scale": guidance_scale, "eta": eta}
