"""The noise adapter and the contrastive loss on predicted noise (NADM Eqs. 9-11), used only in training.

The loss pulls the predicted noise of neighboring frames together and pushes that of distant frames apart, so that a
clip stays coherent and still moves.
"""

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from einops import rearrange
from torch import nn


NEGATIVES = ("all", "eq10")
POSITIVES = ("next", "within_threshold")


class NoiseAdapter(ModelMixin, ConfigMixin):
    """NADM Eq. 9, the projection head g: map the predicted noise of a frame to one vector.

    The paper calls it "a simple MLP" and gives no sizes. This is SimCLR's projection head: average pooling, a linear
    layer, ReLU and a linear layer. It has no batch normalization, which would mix the frames that the loss compares,
    and it computes in float32 even if the UNet runs in half precision.

    Args:
        in_channels: Channels of the predicted noise.
        pool_size: Height and width after average pooling. Smaller noise is repeated, which adds parameters and no
            information.
        hidden_dim: Width of the hidden layer.
        embedding_dim: Length of the output vectors.
    """

    @register_to_config
    def __init__(
        self, in_channels: int = 4, pool_size: int = 32, hidden_dim: int = 512, embedding_dim: int = 128
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.linear_1 = nn.Linear(in_channels * pool_size**2, hidden_dim)
        self.linear_2 = nn.Linear(hidden_dim, embedding_dim)

    def forward(self, noise_pred: torch.Tensor) -> torch.Tensor:
        """Embed each frame of `noise_pred`, of shape (batch, channels, num_frames, height, width).

        Returns:
            Float32 vectors of shape (batch, num_frames, embedding_dim). Their length has no meaning: the loss compares
            directions.
        """
        if noise_pred.ndim != 5 or noise_pred.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`noise_pred` must be of shape (batch, {self.config.in_channels}, num_frames, height, width), got "
                f"{tuple(noise_pred.shape)}."
            )
        frames = rearrange(noise_pred, "batch channels frames height width -> batch frames channels height width")
        with torch.autocast(noise_pred.device.type, enabled=False):
            pooled = self.pool(frames.flatten(0, 1).float()).flatten(1)  # (batch * frames, channels * pool_size^2)
            embeddings = self.linear_2(F.relu(self.linear_1(pooled)))
        return embeddings.unflatten(0, frames.shape[:2])


def contrastive_loss(
    embeddings: torch.Tensor,
    temperature: float = 0.07,
    threshold: int = 4,
    negatives: str = "all",
    positives: str = "next",
) -> torch.Tensor:
    """NADM Eqs. 9-11: contrast the frames of each clip; the loss is averaged over anchors and clips.

    Each of the first N - 1 frames is an anchor i. With the cosine similarity r (Eq. 9), its loss (Eq. 10) is

        l_i = -log( e^(r(i, j) / tau) / (e^(r(i, j) / tau) + sum_k e^(r(i, k) / tau)) ),

    where j is the positive and k runs over the negatives, the frames more than m = `threshold` frames away from i. An
    anchor without negatives contributes zero and still counts in the mean over the N - 1 anchors (Eq. 11).

    Args:
        embeddings: Output of the noise adapter, of shape (batch, num_frames, embedding_dim).
        temperature: Temperature tau, above 0.
        threshold: Distance m in frames, at least 1.
        negatives: "all" takes negatives from all N frames. "eq10" takes them from the first N - 1, as Eq. 10 prints
            it; this leaves 8 frames with m = 6 without negatives, although the paper reports an effect there.
        positives: "next" takes frame i + 1. "within_threshold" averages the loss over all j with 0 < |j - i| <= m
            (NADM Table IV).

    Returns:
        A float32 scalar, zero or more.

    Raises:
        ValueError: An unknown choice, a value out of range, or a clip so short that no anchor has a negative.
    """
    if embeddings.ndim != 3:
        raise ValueError(
            f"`embeddings` must be of shape (batch, num_frames, embedding_dim), got {tuple(embeddings.shape)}."
        )
    if temperature <= 0:
        raise ValueError(f"`temperature` must be above 0, got {temperature}.")
    num_frames = embeddings.shape[1]
    positive, negative = _pairs(num_frames, threshold, negatives, positives)
    contrasted = negative.any(dim=1)  # anchors with a negative; the others contribute zero
    if not contrasted.any():
        raise ValueError(
            f"`num_frames` must be at least {minimum_frames(threshold, negatives)} with `threshold` {threshold} and "
            f"`negatives` {negatives!r}, got {num_frames}: no frame has a negative."
        )
    positive, negative = positive[contrasted].to(embeddings.device), negative[contrasted].to(embeddings.device)

    # Eq. 9: cosine similarity of each anchor with each frame, (batch, anchors, num_frames), divided by tau
    embeddings = embeddings.float()
    anchors = embeddings[:, :-1][:, contrasted.to(embeddings.device)]
    logits = F.cosine_similarity(anchors[:, :, None], embeddings[:, None], dim=-1, eps=1e-8) / temperature

    # Eq. 10 for every frame as the positive, in logarithms so that small temperatures do not overflow
    negative_logits = logits.masked_fill(~negative, float("-inf")).logsumexp(dim=-1, keepdim=True)
    pair_loss = torch.logaddexp(logits, negative_logits) - logits
    anchor_loss = (pair_loss * positive).sum(dim=-1) / positive.sum(dim=-1)

    # Eq. 11: mean over all N - 1 anchors, those without negatives included
    return (anchor_loss.sum(dim=-1) / (num_frames - 1)).mean()


def minimum_frames(threshold: int, negatives: str = "all") -> int:
    """Return the length in frames of the shortest clip in which an anchor of `contrastive_loss` has a negative."""
    return threshold + (2 if negatives == "all" else 3)


def _pairs(num_frames: int, threshold: int, negatives: str, positives: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mark positives and negatives (columns) of each anchor (rows), two bool tensors (num_frames - 1, num_frames)."""
    for name, value, choices in (("negatives", negatives, NEGATIVES), ("positives", positives, POSITIVES)):
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")
    if threshold < 1:
        raise ValueError(f"`threshold` must be at least 1, got {threshold}: the next frame is the positive.")
    frame = torch.arange(num_frames)
    offset = frame - frame[:-1, None]
    positive = offset == 1 if positives == "next" else (offset != 0) & (offset.abs() <= threshold)
    negative = offset.abs() > threshold
    if negatives == "eq10":
        negative &= frame < num_frames - 1
    return positive, negative
