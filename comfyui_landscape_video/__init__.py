"""ComfyUI nodes of landscape-video: interpolation, motion adapters in AnimateDiff-Evolved, clips with their recipe."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


WEB_DIRECTORY = "./web"  # ComfyUI serves the documents of the nodes from it


async def comfy_entrypoint() -> "ComfyExtension":
    """Return the nodes to ComfyUI. They are imported here, since `comfy_api` exists only inside ComfyUI."""
    from .nodes import LandscapeVideoExtension

    return LandscapeVideoExtension()
