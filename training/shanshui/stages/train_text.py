"""Train the text encoder of shanshui-tiny further, on captions alone.

CLIP's text tower sees a few captions of each rendered clip and misreads one new caption in sixteen: it confuses left
and right where mist, birds, boat and camera all move. A caption needs no rendered clip, so every caption here is new.
Linear heads, fitted to the tower as CLIP left it and then frozen, ask the tower what a caption says. Captions that it
understood before keep their hidden states, so that models trained on those states still understand them.
"""

from collections.abc import Iterable
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from shanshui.renderer.dataset import scene_of
from shanshui.renderer.scene import CHOICES, LANGUAGES, TRAINING_SEED
from shanshui.stages.family_models import MAX_TOKENS
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.timed_training import train_for
from shanshui.stages.training_data import draw_caption, motion_caption


# Attributes that a caption can state in more than one way; rain, snowfall and petals are not in the training data.
SAID = ("palette", "layers", "camera", "water", "boat", "mist", "birds", "light")
HEAD_CAPTIONS = 12_000  # captions that the heads are fitted to
STATE_WEIGHT = 3.0  # weight of the change of understood hidden states, relative to their variance
MOTION_SHARE = 0.2  # share of the captions that describe only what moves
UNSAID = -100  # label that `F.cross_entropy` ignores
SCENES = 2**31  # index of the first scene; rendered scenes count from 0


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
