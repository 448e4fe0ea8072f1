"""The nodes, one file each. Importing them needs ComfyUI."""

from importlib.util import find_spec

from comfy_api.latest import ComfyExtension, io

from .interpolation import InterpolateFrames
from .motion_adapter import LoadMotionAdapter
from .save_clip import SaveClip
from .windows import MovingWindows


class LandscapeVideoExtension(ComfyExtension):
    """The list of nodes that ComfyUI asks for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        nodes = [InterpolateFrames, SaveClip, LoadMotionAdapter, MovingWindows]
        if find_spec("landscape_video") is not None:
            from .generation import AnimateImage, GenerateClip

            nodes += [GenerateClip, AnimateImage]
        return nodes
