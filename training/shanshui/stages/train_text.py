"""Train the tokenizer and CLIP of shanshui-tiny on rendered frames, then its text encoder on captions alone.

A single frame cannot show which way the camera moves, but the prompt embeddings must carry it to the UNet. Linear
heads, dropped after training, therefore make the text tower name every attribute of the scene, and the image tower
those that a frame shows.

CLIP's text tower sees a few captions of each rendered clip and misreads one new caption in sixteen: it confuses left
and right where mist, birds, boat and camera all move. A caption needs no rendered clip, so every caption here is new.
Linear heads, fitted to the tower as CLIP left it and then frozen, ask the tower what a caption says. Captions that it
understood before keep their hidden states, so that models trained on those states still understand them.
"""

import json
from collections.abc import Iterable, Sequence
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer

from shanshui.renderer.captions import caption
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.scene import CHOICES, LANGUAGES, MOVING, SIZE, TRAINING_SEED
from shanshui.stages.family_run import MAX_TOKENS, TEXT_WIDTH, FamilyRun, build_clip
from shanshui.stages.timed_training import train_for
from shanshui.stages.training_data import (
    attribute_labels,
    draw_caption,
    motion_caption,
    training_captions,
    training_clips,
)


# Fewer tokens make captions longer than 77 of them; many more merge whole Chinese phrases into one.
VOCABULARY_SIZE = 1200
END_OF_WORD = "</w>"
CAPTION_STREAM = 4  # seed of these captions, unlike those of the other stages

# Attributes that a caption can state in more than one way; rain, snowfall and petals are not in the training data.
SAID = ("palette", "layers", "camera", "water", "boat", "mist", "birds", "light")
HEAD_CAPTIONS = 12_000  # captions that the heads are fitted to
STATE_WEIGHT = 3.0  # weight of the change of understood hidden states, relative to their variance
MOTION_SHARE = 0.2  # share of the captions that describe only what moves
UNSAID = -100  # label that `F.cross_entropy` ignores
SCENES = 2**31  # index of the first scene; rendered scenes count from 0


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


class HeadsOnText(nn.Module):
    """A linear layer that reads every attribute from standardized pooled outputs, fitted once and then frozen."""

    def __init__(self, pooled: torch.Tensor, labels: torch.Tensor) -> None:
        """Fit the layer to `pooled`, (captions, dim), and `labels`, (captions, len(SAID))."""
        super().__init__()
        self.register_buffer("mean", pooled.mean(0))
        self.register_buffer("std", pooled.std(0) + 1e-6)
        self.sizes = [len(CHOICES[name]) for name in SAID]
        self.linear = nn.Linear(pooled.shape[1], sum(self.sizes), device=pooled.device)
        optimizer = torch.optim.LBFGS(self.linear.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = self.loss(pooled, labels) + 1e-3 * self.linear.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        self.requires_grad_(False)

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits over `CHOICES` for each attribute in `SAID`."""
        with torch.autocast(pooled.device.type, enabled=False):  # the heads were fitted in float32
            return self.linear((pooled.float() - self.mean) / self.std).split(self.sizes, dim=-1)

    def loss(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy summed over attributes; an attribute that no caption states contributes 0."""
        return sum(
            F.cross_entropy(logits, column, ignore_index=UNSAID, reduction="sum")
            / (column != UNSAID).sum().clamp(min=1)
            for logits, column in zip(self(pooled), labels.T, strict=True)
        )

    def right(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return a (captions,) mask of the captions of which every stated attribute is read correctly."""
        predicted = torch.stack([logits.argmax(-1) for logits in self(pooled)], 1)
        return ((predicted == labels) | (labels == UNSAID)).all(1)


def train_text(run: FamilyRun) -> None:
    """Train the text tower of the saved CLIP on captions of scenes that are never rendered, and save it."""
    folder, batch_size = run.model("clip"), run.batch_scale * 128
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    before = CLIPTextModel.from_pretrained(folder).to(run.device).eval().requires_grad_(False)
    if run.device.type == "cpu":
        before.set_attn_implementation("eager")  # the backward pass of fused attention is slow on a CPU
    model = deepcopy(before).requires_grad_(True)

    def tokenize(indices: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor]:
        texts, labels = zip(*(fresh_caption(TRAINING_SEED, index) for index in indices), strict=True)
        tokens = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        return tokens.input_ids.to(run.device), torch.tensor(labels, device=run.device)

    torch.manual_seed(0)
    with torch.no_grad(), run.autocast():
        batches = [tokenize(range(k, k + batch_size)) for k in range(SCENES, SCENES + HEAD_CAPTIONS, batch_size)]
        pooled = torch.cat([before(tokens).pooler_output.float() for tokens, _ in batches])
    heads = HeadsOnText(pooled, torch.cat([labels for _, labels in batches]))

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(generator.initial_seed())
        tokens, labels = tokenize((SCENES + HEAD_CAPTIONS + rng.integers(SCENES, size=batch_size)).tolist())
        with torch.no_grad():
            target = before(tokens)
            right = heads.right(target.pooler_output, labels)
        states = model(tokens)
        said = heads.loss(states.pooler_output, labels)
        kept = target.last_hidden_state.float()
        change = (states.last_hidden_state.float() - kept).square().mean((1, 2)) / kept.var()
        change = (change * right).sum() / right.sum().clamp(min=1)
        return {
            "loss": said + STATE_WEIGHT * change,
            "said": said,
            "change": change,
            "right": heads.right(states.pooler_output.detach(), labels).float().mean(),
            "right_before": right.float().mean(),
        }

    train_for(run, "text", model, compute_losses, learning_rate=5e-4, weight_decay=0.01, seed=3)
    model.save_pretrained(run.model("text"))


def fresh_caption(seed: int, index: int) -> tuple[str, list[int]]:
    """Return a caption of a scene, and for each attribute in `SAID` its index in `CHOICES`, or `UNSAID`."""
    scene = scene_of(index, seed, fine_motifs=False)
    # A stream of its own: with the scene's own stream, the wording of a caption would depend on what the scene shows.
    rng = np.random.default_rng((seed, index, 1))
    draw = motion_caption if rng.random() < MOTION_SHARE else draw_caption
    text, said = draw(scene, rng, LANGUAGES[index % len(LANGUAGES)])
    return text, [CHOICES[name].index(getattr(scene, name)) if name in said else UNSAID for name in SAID]
