"""The nodes, one file each. Importing them needs ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from .interpolation import InterpolateFrames


class LandscapeVideoExtension(ComfyExtension):
    """The list of nodes that ComfyUI asks for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [InterpolateFrames]
