"""Save a clip as .mp4 with the workflow that made it and its recipe."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
import torch.nn.functional as F
from comfy.cli_args import args
from comfy_api.latest import Input, InputImpl, Types, io, ui
from comfyui_version import __version__ as comfyui_version
from torch import Tensor

from .common import CATEGORY, PREFIX, RECIPE_TAG, Recipe, check_clip, to_bytes


CRF = 16  # of x264; ink washes show blocks at its default, 23


class SaveClip(io.ComfyNode):
    """
    IMAGE to VIDEO: write `filename_prefix_00001_.mp4` into ComfyUI's output folder.

    The tags `workflow` and `prompt` restore the workflow when the clip is dropped on the canvas. The tag
    `landscape_video` is the metadata of the package's own clips.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}SaveClip",
            display_name="Save Clip with Recipe",
            category=CATEGORY,
            description="Save frames as an .mp4 file that carries its workflow and its recipe: prompt, seed, settings "
            "and versions.",
            search_aliases=["save video", "export mp4"],
            inputs=[
                io.Image.Input("images", tooltip="The frames. Odd sizes gain one repeated row or column."),
                io.Float.Input("fps", default=16.0, min=0.01, max=1000.0, step=0.01, tooltip="Frames per second."),
                io.String.Input(
                    "filename_prefix", default="landscape", tooltip="Beginning of the file name; may name a folder."
                ),
                Recipe.Input("recipe", optional=True, tooltip="Recipe from the node that made the frames."),
                io.Audio.Input("audio", optional=True, tooltip="Sound of the clip."),
            ],
            outputs=[io.Video.Output("video", display_name="video")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        fps: float,
        filename_prefix: str,
        recipe: dict[str, Any] | None = None,
        audio: Input.Audio | None = None,
    ) -> io.NodeOutput:
        images = to_even_sizes(check_clip(images, least=1))
        tags = None
        if not args.disable_metadata:
            workflow = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
            tags = {name: value for name, value in workflow.items() if value is not None}
            tags[RECIPE_TAG] = {"versions": {"comfyui": comfyui_version}, **(recipe or {}), "fps": fps}
        height, width = images.shape[1:3]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        components = Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(fps))
        InputImpl.VideoFromComponents(components).save_to(str(path), metadata=tags, crf=CRF)
        saved = ui.SavedResult(path.name, subfolder, io.FolderType.output)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=ui.PreviewVideo([saved]))


def to_even_sizes(images: Tensor) -> Tensor:
    """
    Round frames, `(num_frames, height, width, 3)`, to 8 bits, and repeat the last row or column of odd sizes.

    Color at half resolution needs even sizes. ComfyUI's writer rounds down, which would darken the frames.
    """
    images = to_bytes(images).float() / 255
    odd = (0, images.shape[2] % 2, 0, images.shape[1] % 2)
    return F.pad(images.movedim(-1, 1), odd, mode="replicate").movedim(1, -1)
