"""Two nodes for the checks: conditioning from a seed, without a text encoder, and images saved as exact floats."""

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


NODE_CLASS_MAPPINGS = {"ProbeConditioning": ProbeConditioning, "ProbeSaveImages": ProbeSaveImages}
