"""Compute CLIP embeddings of frames and texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from landscape_video.evaluation.metrics.weights import find_folder, hash_weights
from pipeline_landscape_video import SHANSHUI_TINY


class ClipScorer:
    """Compute CLIP embeddings with the preprocessing that the model comes with.

    Args:
        source: Folder or name on the Hub of a `transformers.CLIPModel` with tokenizer and image processor. None uses
            the one of shanshui-tiny, which needs no network; its values do not compare with published ones.
        device: Device to compute on.
        batch_size: Frames in one forward pass.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The source is missing or is not a CLIP.
    """

    def __init__(
        self, source: str | Path | None = None, device: str | torch.device = "cpu", batch_size: int = 32
    ) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = SHANSHUI_TINY / "clip" if source is None else find_folder(source)
        self.name = "shanshui-clip" if source is None else str(source).rstrip("/").rpartition("/")[2]
        try:
            self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
            self.tokenizer = CLIPTokenizer.from_pretrained(folder)
            self.processor = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}: not a CLIP model: {error}") from error
        self.sha256 = hash_weights(folder)
        self.device, self.batch_size = device, batch_size

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    @property
    def description(self) -> str:
        """Name, hash of the weights and preprocessing, for the protocol."""
        processor = self.processor
        words = [f"{self.name}, sha256 {self.sha256}"]
        if processor.do_resize:
            words.append(f"resized to {dict(processor.size)} (PIL filter {int(processor.resample)})")
        if processor.do_center_crop:
            words.append(f"center crop {processor.crop_size['width']} x {processor.crop_size['height']}")
        return ", ".join([*words, f"mean {list(processor.image_mean)}, std {list(processor.image_std)}"])

    @torch.no_grad()
    def frames(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Embed uint8 RGB frames (height, width, 3): (frames, dim) float64 of unit length, on the CPU."""
        parts = []
        for start in range(0, len(frames), self.batch_size):
            batch = list(frames[start : start + self.batch_size])
            pixels = self.processor(images=batch, return_tensors="pt").pixel_values.to(self.device)
            pooled = self.model.vision_model(pixels).pooler_output
            parts.append(self.model.visual_projection(pooled).double().cpu())
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts: (texts, dim) float64 of unit length, on the CPU. Longer texts are truncated."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        pooled = self.model.text_model(tokens.to(self.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled).double().cpu(), dim=-1)

    def is_too_long(self, text: str) -> bool:
        """Whether `texts` truncates this text."""
        return len(self.tokenizer(text).input_ids) > self.tokenizer.model_max_length
