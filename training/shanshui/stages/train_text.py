"""The text encoder of shanshui-tiny goes on learning from captions alone, of which there is no end.

Beside pictures, CLIP's text tower sees two captions of each rendered clip, and reads one new caption in sixteen wrong:
where mist, birds, boat and camera all move, it mixes up their left and right. Scenes need no rendering to be told of,
so here every caption is a new one. What a caption says is asked of the tower by linear heads that were fitted to it as
it came, and captions that it understood keep their states: so what was trained on these states goes on understanding
them.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from shanshui.renderer.captions import find_attributes
from shanshui.renderer.constants import LANGUAGES
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.scene import CHOICES
from shanshui.stages.family_models import MAX_TOKENS
from shanshui.stages.timed_training import train_for
from shanshui.stages.train_clip import draw_caption, motion_caption


# What a caption that says it can say in more ways than one; rain, snowfall and petals are not in the family's data.
SAID = ("palette", "layers", "camera", "water", "boat", "mist", "birds", "light")
HEAD_CAPTIONS = 12_000  # that the heads are fitted to
STATE_WEIGHT = 3.0  # of the change of states that were right, in parts of their variance
MOTION_CAPTIONS = 0.2  # of the captions say only what moves
UNSAID = -100  # what `cross_entropy` leaves out
SCENES = 2**31  # beyond the rendered ones, whose indices count from 0


class HeadsOnText(nn.Module):
    """A linear layer that reads every attribute from standardised pooled outputs, fitted once and then frozen."""

    def __init__(self, pooled: torch.Tensor, labels: torch.Tensor) -> None:
        """Fit to `pooled`, (captions, dim), and `labels`, (captions, len(SAID))."""
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
        """For each of `SAID`, the logits of its `CHOICES`."""
        with torch.autocast(pooled.device.type, enabled=False):  # as they were fitted
            return self.linear((pooled.float() - self.mean) / self.std).split(self.sizes, dim=-1)

    def loss(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over attributes of the cross entropy; of an attribute that no caption says, 0."""
        losses = [
            F.cross_entropy(logits, column, ignore_index=UNSAID, reduction="sum")
            / (column != UNSAID).sum().clamp(min=1)
            for logits, column in zip(self(pooled), labels.T, strict=True)
        ]
        return sum(losses)

    def right(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Which captions are read right in all that they say, (captions,)."""
        guesses = torch.stack([logits.argmax(-1) for logits in self(pooled)], 1)
        return ((guesses == labels) | (labels == UNSAID)).all(1)


def train_text(
    text_model: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    directory: Path,
    minutes: float,
    device: torch.device,
    batch_size: int,
    mixed_precision: str,
    scene_seed: int,
) -> CLIPTextModel:
    """Train on captions of scenes of `scene_seed` that nobody rendered; see `train_for` for what it writes."""
    before = text_model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        before.set_attn_implementation("eager")  # the fused attention's backward is slow on a CPU
    model = deepcopy(before).requires_grad_(True)

    def read(indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        texts, labels = zip(*(fresh_caption(scene_seed, index) for index in indices), strict=True)
        tokens = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        return tokens.input_ids.to(device), torch.tensor(labels, device=device)

    torch.manual_seed(0)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision == "bf16"):
        batches = [read(range(k, k + batch_size)) for k in range(SCENES, SCENES + HEAD_CAPTIONS, batch_size)]
        pooled = torch.cat([before(tokens).pooler_output.float() for tokens, _ in batches])
    heads = HeadsOnText(pooled, torch.cat([labels for _, labels in batches]))

    def step(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(generator.initial_seed())
        tokens, labels = read((SCENES + HEAD_CAPTIONS + rng.integers(SCENES, size=batch_size)).tolist())
        with torch.no_grad():
            wanted = before(tokens)
            right = heads.right(wanted.pooler_output, labels)
        states = model(tokens)
        said = heads.loss(states.pooler_output, labels)
        kept = wanted.last_hidden_state.float()
        change = (states.last_hidden_state.float() - kept).square().mean((1, 2)) / kept.var()
        change = (change * right).sum() / right.sum().clamp(min=1)
        return {
            "loss": said + STATE_WEIGHT * change,
            "said": said,
            "change": change,
            "right": heads.right(states.pooler_output.detach(), labels).float().mean(),
            "right_before": right.float().mean(),
        }

    train_for(
        minutes, model, step, directory, learning_rate=5e-4, weight_decay=0.01, seed=3, mixed_precision=mixed_precision
    )
    return model


def fresh_caption(seed: int, index: int) -> tuple[str, list[int]]:
    """A caption of a scene, and the index in `CHOICES` of what it says of each of `SAID`, or `UNSAID`."""
    scene = scene_of(index, seed, fine_motifs=False)
    rng = np.random.default_rng((seed, index, 1))  # a stream of its own: the scene's would tie its words to what it is
    draw = motion_caption if rng.random() < MOTION_CAPTIONS else draw_caption
    text = draw(scene, rng, LANGUAGES[index % len(LANGUAGES)])
    told = find_attributes(text)
    return text, [CHOICES[name].index(getattr(scene, name)) if name in told else UNSAID for name in SAID]
