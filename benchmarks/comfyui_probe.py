"""Nodes for the checks: conditioning from a seed, without a text encoder, exact images, and windows."""

from typing import Any


class ProbeConditioning:
    """A random embedding of 77 tokens of Stable Diffusion 1.5."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # the name that ComfyUI asks for
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed: int) -> tuple[list[Any]]:
        import torch

        embedding = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(seed))
        return ([[embedding, {}]],)


class ProbeSaveImages:
    """Save images as a NumPy file in the output folder."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "save", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",), "name": ("STRING", {"default": "images"})}}

    def save(self, images: Any, name: str) -> dict[str, Any]:
        from pathlib import Path

        import folder_paths
        import numpy as np

        file = f"{name}.npy"
        np.save(Path(folder_paths.get_output_directory()) / file, images.cpu().numpy())
        return {"ui": {"images": [{"filename": file, "subfolder": "", "type": "output"}]}}


class ProbeWindows:
    """Save the windows that AnimateDiff-Evolved computes in each step from context options, and their weights."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "save", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        number = ("INT", {"default": 1})
        inputs = {"context_options": ("CONTEXT_OPTIONS",), "num_frames": number, "steps": number, "name": ("STRING",)}
        return {"required": inputs}

    def save(self, context_options: Any, num_frames: int, steps: int, name: str) -> dict[str, Any]:
        import json
        import sys
        from pathlib import Path

        import folder_paths

        context = sys.modules[type(context_options).__module__]
        options = context_options.clone()  # as the sampler of AnimateDiff-Evolved does
        windows = []
        for step in range(steps):
            options.step = step
            windows.append(context.get_context_windows(num_frames, options))
        first = windows[0][0]
        weights = context.get_context_weights(len(first), num_frames, first, options)
        file = f"{name}.json"
        found = {"windows": windows, "weights": [float(weight) for weight in weights]}
        (Path(folder_paths.get_output_directory()) / file).write_text(json.dumps(found))
        return {"ui": {"images": [{"filename": file, "subfolder": "", "type": "output"}]}}


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (ProbeConditioning, ProbeSaveImages, ProbeWindows)}
