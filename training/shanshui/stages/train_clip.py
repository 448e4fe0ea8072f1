"""The tokenizer and the CLIP of shanshui-tiny.

CLIP learns from rendered frames and their captions, in English and in Chinese. A frame cannot show which way the
camera moves, yet the text states have to tell it to the UNet: so the text tower also learns to name every attribute of
the scene (linear heads on its pooled output, dropped afterwards), and the image tower those that a frame shows.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from shanshui.renderer.captions import caption
from shanshui.renderer.constants import LANGUAGES
from shanshui.renderer.scene import ATTRIBUTES, CHOICES, Scene
from shanshui.stages.family_models import MAX_TOKENS, TEXT_WIDTH, build_clip
from shanshui.stages.timed_training import train_for


VOCABULARY = 1200  # fewer make captions longer than 77 tokens, many more merge whole Chinese phrases into one
HIDDEN_IN_A_FRAME = ("camera", "boat", "mist", "birds")  # of these a frame shows at most the presence
END_OF_WORD = "</w>"


AT_REST = ("water", "trees", "light", "waterfall", "pavilion")  # or nearly so


def draw_caption(scene: Scene, rng: np.random.Generator, language: str | None = None) -> str:
    """A caption of a scene in either language; a fifth of them leave some things out, as people's prompts do."""
    language = language or LANGUAGES[rng.integers(len(LANGUAGES))]
    unsaid = [name for name in ATTRIBUTES if rng.random() < 0.25] if rng.random() < 0.2 else []
    return caption(scene, rng, language, unsaid=unsaid) or caption(scene, rng, language)  # all left out: none


def motion_caption(scene: Scene, rng: np.random.Generator, language: str) -> str:
    """What moves in a scene, as people tell it to a picture: nothing of palette and ranges, little of what stands
    still, and nothing, now and then, of a camera that rests."""
    unsaid = {"palette", "layers", *(name for name in AT_REST if rng.random() < 0.6)}
    if scene.camera == "still" and rng.random() < 0.5:
        unsaid.add("camera")
    return caption(scene, rng, language, sorted(unsaid)) or caption(scene, rng, language)


def train_tokenizer(texts: Sequence[str]) -> CLIPTokenizer:
    """A byte-level BPE of CLIP's kind, learnt from captions; all 256 bytes are in it, so it can read any text."""
    blank = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocabulary = learnt["vocab"]
    for token in [byte + END_OF_WORD for byte in alphabet] + ["<|startoftext|>", "<|endoftext|>"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


class ClipWithHeads(nn.Module):
    """CLIP and, for training only, one linear head per attribute on each tower."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        sizes = {name: len(choices) for name, choices in CHOICES.items()}
        self.text_heads = nn.ModuleDict({name: nn.Linear(TEXT_WIDTH, size) for name, size in sizes.items()})
        sizes = {name: 2 if name in HIDDEN_IN_A_FRAME else size for name, size in sizes.items() if name != "camera"}
        self.image_heads = nn.ModuleDict({name: nn.Linear(TEXT_WIDTH, size) for name, size in sizes.items()})

    def losses(self, pixels: torch.Tensor, tokens: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict:
        """Contrastive loss of the pairs, and how well each tower's heads name what its input tells."""
        image = self.clip.vision_model(pixels).pooler_output
        text = self.clip.text_model(tokens).pooler_output
        image_embeds = F.normalize(self.clip.visual_projection(image), dim=-1)
        text_embeds = F.normalize(self.clip.text_projection(text), dim=-1)
        with torch.autocast(pixels.device.type, enabled=False):  # logits of up to 100 need float32
            logits = self.clip.logit_scale.exp().clamp(max=100) * image_embeds.float() @ text_embeds.float().T
        pairs = torch.arange(len(logits), device=logits.device)
        contrastive = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        text_loss = sum(F.cross_entropy(head(text), labels[name]) for name, head in self.text_heads.items())
        image_loss = 0
        for name, head in self.image_heads.items():
            target = (labels[name] > 0).long() if name in HIDDEN_IN_A_FRAME else labels[name]
            image_loss = image_loss + F.cross_entropy(head(image), target)
        loss = contrastive + (text_loss + image_loss) / 4
        return {"loss": loss, "contrastive": contrastive, "text_heads": text_loss, "image_heads": image_loss}


def attribute_labels(scenes: Sequence[Scene], device: torch.device) -> dict[str, torch.Tensor]:
    """For each attribute, the index of each scene's value in `CHOICES`; 0 is absence where there is such a thing."""
    return {
        name: torch.tensor([choices.index(getattr(scene, name)) for scene in scenes], device=device)
        for name, choices in CHOICES.items()
    }


def train_clip(
    frames: np.ndarray,
    scenes: Sequence[Scene],
    tokenizer: CLIPTokenizer,
    directory: Path,
    minutes: float,
    device: torch.device,
    batch_size: int,
    mixed_precision: str,
) -> CLIPModel:
    """Train on clips, uint8 (clips, num_frames, height, width, 3), and their scenes."""
    torch.manual_seed(0)
    clip = build_clip(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    model = ClipWithHeads(clip).to(device)
    # Whole captions here: the heads ask the text for every attribute.
    captions = [
        [caption(scene, np.random.default_rng((4, index)), language) for language in LANGUAGES]
        for index, scene in enumerate(scenes)
    ]

    def step(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        chosen = torch.randint(len(frames), (batch_size,), generator=generator, device=generator.device).tolist()
        rng = np.random.default_rng(generator.initial_seed())
        pixels = np.stack([frames[index, rng.integers(frames.shape[1])] for index in chosen])
        batch = [scenes[index] for index in chosen]
        texts = [captions[index][rng.integers(len(LANGUAGES))] for index in chosen]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids.to(device)
        return model.losses(clip_pixels(pixels, device), tokens, attribute_labels(batch, device))

    train_for(
        minutes, model, step, directory, learning_rate=1e-3, weight_decay=0.02, seed=1, mixed_precision=mixed_precision
    )
    return model.clip


def clip_pixels(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (count, height, width, 3) to what CLIP's image tower takes; the processor saved with it does the same."""
    return (torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
