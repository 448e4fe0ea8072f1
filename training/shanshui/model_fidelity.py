"""What the family's own autoencoder and CLIP tell: fidelity of reconstructions, agreement of clips and texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames: np.ndarray, chunk_size: int = 8) -> np.ndarray:
    """uint8 frames (count, height, width, 3) through the autoencoder and back."""
    parts = []
    for start in range(0, len(frames), chunk_size):
        pixels = torch.from_numpy(np.ascontiguousarray(frames[start : start + chunk_size])).to(vae.device)
        latents = vae.encode(pixels.permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1).latent_dist.mean
        decoded = vae.decode(latents).sample.float().clamp(-1, 1)
        parts.append(((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def ssim_and_psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(count, 2): structural similarity and peak signal-to-noise ratio (dB) of uint8 (count, height, width, 3)."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    return np.array(
        [
            (
                structural_similarity(frame, other, channel_axis=2, data_range=255),
                peak_signal_noise_ratio(frame, other, data_range=255),
            )
            for frame, other in zip(frames, others, strict=True)
        ]
    )


class ClipTextScore:
    """CLIP-text: 100 times the cosine of a text and of the frames of a clip, averaged over the frames."""

    def __init__(self, folder: Path, device: str) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.processor = CLIPImageProcessorPil.from_pretrained(folder)
        self.device = device

    @torch.no_grad()
    def score(self, clips: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """(clips,) scores of clips (num_frames, height, width, 3) uint8, each with its own text."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        pooled = self.model.text_model(tokens.to(self.device)).pooler_output
        texts = F.normalize(self.model.text_projection(pooled), dim=-1)
        scores = []
        for clip, text in zip(clips, texts, strict=True):
            pixels = self.processor(images=list(clip), return_tensors="pt").pixel_values.to(self.device)
            frames = self.model.visual_projection(self.model.vision_model(pixels).pooler_output)
            scores.append(100 * float((F.normalize(frames, dim=-1) @ text).mean()))
        return np.array(scores)
