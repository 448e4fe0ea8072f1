"""Train the tokenizer and the CLIP model of shanshui-tiny on rendered frames and their captions.

A single frame cannot show which way the camera moves, but the prompt embeddings must carry it to the UNet. Linear
heads, dropped after training, therefore make the text tower name every attribute of the scene, and the image tower
those that a frame shows.
"""

import json
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from shanshui.renderer.captions import caption
from shanshui.renderer.scene import CHOICES, LANGUAGES, MOVING, SIZE
from shanshui.stages.family_models import MAX_TOKENS, TEXT_WIDTH, build_clip
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.timed_training import train_for
from shanshui.stages.training_data import attribute_labels, training_captions, training_clips


# Fewer tokens make captions longer than 77 of them; many more merge whole Chinese phrases into one.
VOCABULARY_SIZE = 1200
END_OF_WORD = "</w>"
CAPTION_STREAM = 4  # seed of these captions, unlike those of the other stages


def train_tokenizer(texts: Sequence[str]) -> CLIPTokenizer:
    """Train a byte-level BPE tokenizer as CLIP has it. It contains all 256 bytes, so it can encode any text."""
    clip = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.normalizer, tokenizer.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, initial_alphabet=alphabet, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary = trained["vocab"]
    for token in [byte + END_OF_WORD for byte in alphabet] + ["<|startoftext|>", "<|endoftext|>"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in trained["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


class ClipWithHeads(nn.Module):
    """CLIP with one linear head per attribute on each tower; the heads serve training only."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        sizes = {name: len(choices) for name, choices in CHOICES.items()}
        self.text_heads = nn.ModuleDict({name: nn.Linear(TEXT_WIDTH, size) for name, size in sizes.items()})
        # A single frame shows at most whether a moving object is present, and nothing about the camera.
        sizes = {name: 2 if name in MOVING else size for name, size in sizes.items() if name != "camera"}
        self.image_heads = nn.ModuleDict({name: nn.Linear(TEXT_WIDTH, size) for name, size in sizes.items()})

    def losses(self, pixels: torch.Tensor, tokens: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict:
        """Return the contrastive loss of image and caption pairs, and the cross entropies of both towers' heads."""
        image = self.clip.vision_model(pixels).pooler_output
        text = self.clip.text_model(tokens).pooler_output
        image_embeds = F.normalize(self.clip.visual_projection(image), dim=-1)
        text_embeds = F.normalize(self.clip.text_projection(text), dim=-1)
        with torch.autocast(pixels.device.type, enabled=False):  # logits of up to 100 need float32
            logits = self.clip.logit_scale.exp().clamp(max=100) * image_embeds.float() @ text_embeds.float().T
        pairs = torch.arange(len(logits), device=logits.device)
        contrastive = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        text_loss = sum(F.cross_entropy(head(text), labels[name]) for name, head in self.text_heads.items())
        shown = {name: (labels[name] > 0).long() if name in MOVING else labels[name] for name in self.image_heads}
        image_loss = sum(F.cross_entropy(head(image), shown[name]) for name, head in self.image_heads.items())
        loss = contrastive + (text_loss + image_loss) / 4
        return {"loss": loss, "contrastive": contrastive, "text_heads": text_loss, "image_heads": image_loss}


def train_clip(run: FamilyRun) -> None:
    """Train the tokenizer, unless it exists, and CLIP; save both with the image processor."""
    frames, scenes = training_clips(run)
    folder = run.model("clip")
    if not (folder / "tokenizer.json").exists():
        train_tokenizer([text for texts in training_captions(scenes) for text in texts]).save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    clip = build_clip(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    model = ClipWithHeads(clip).to(run.device)
    # Complete captions: the heads ask the text for every attribute.
    captions = [
        [caption(scene, np.random.default_rng((CAPTION_STREAM, index)), language) for language in LANGUAGES]
        for index, scene in enumerate(scenes)
    ]

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        shape = (run.batch_scale * 32,)
        chosen = torch.randint(len(frames), shape, generator=generator, device=generator.device).tolist()
        rng = np.random.default_rng(generator.initial_seed())
        images = torch.from_numpy(np.stack([frames[index, rng.integers(frames.shape[1])] for index in chosen]))
        # To [-1, 1] in the order of operations of the image processor saved below.
        pixels = (images.to(run.device).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        texts = [captions[index][rng.integers(len(LANGUAGES))] for index in chosen]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids.to(run.device)
        return model.losses(pixels, tokens, attribute_labels([scenes[index] for index in chosen], run.device))

    train_for(run, "clip", model, compute_losses, learning_rate=1e-3, weight_decay=0.02, seed=1)
    clip.save_pretrained(folder)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size=SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(folder)
