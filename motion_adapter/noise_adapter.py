"""The noise adapter and the contrastive loss on predicted noise (NADM, Eqs. 9-11). Used in training only.

The loss pulls the predicted noise of neighbouring frames together and pushes that of distant frames apart, in the
space of a small head: the frames stay coherent and still change over the clip.
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
    """The head g of Eq. 9: a frame's predicted noise becomes one vector, whose direction the loss compares.

    The paper says "a simple MLP" and no more. This is SimCLR's projection head: average pooling, a linear layer, ReLU
    and a linear layer. There is no batch normalisation, which would mix the frames that the loss compares. It
    computes in float32 also where the UNet runs in half precision.

    Args:
        in_channels: channels of the predicted noise.
        pool_size: height and width that the noise is averaged to. Noise smaller than that is repeated, which adds
            parameters and no information.
        hidden_dim: width of the hidden layer.
        embedding_dim: length of the returned vectors.
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
        """Embed each frame of `noise_pred`, (batch, channels, num_frames, height, width).

        Returns:
            float32 vectors of any length, (batch, num_frames, embedding_dim).
        """
        if noise_pred.ndim != 5 or noise_pred.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`noise_pred` has the shape {tuple(noise_pred.shape)}, but this noise adapter takes "
                f"(batch, {self.config.in_channels}, num_frames, height, width)."
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
    """Contrastive loss of the frames of each clip (Eqs. 9-11), averaged over the clips.

    With r the cosine similarity (Eq. 9), frame i of the first N - 1 is an anchor with the loss (Eq. 10)

        l_i = -log( e^(r(i, j) / tau) / (e^(r(i, j) / tau) + sum_k e^(r(i, k) / tau)) ),

    where j is a positive and k runs over the negatives, the frames further than `threshold` from i. An anchor that has
    no negative contributes zero and still counts in the mean over the N - 1 anchors (Eq. 11).

    Args:
        embeddings: the noise adapter's vectors, (batch, num_frames, embedding_dim).
        temperature: tau, above 0.
        threshold: m, at least 1.
        negatives: "all" draws negatives from all N frames; "eq10" from the first N - 1, as Eq. 10 prints it. The
            printed form leaves 8 frames with m = 6 without any negative, although the paper reports an effect there.
        positives: "next" takes frame i + 1; "within_threshold" averages the loss over all j with 0 < |j - i| <= m
            (the paper's Table IV).

    Returns:
        A float32 scalar, zero or more.

    Raises:
        ValueError: for an unknown choice, a value out of range, or a clip so short that no anchor has a negative.
    """
    if embeddings.ndim != 3:
        raise ValueError(
            f"`embeddings` has the shape {tuple(embeddings.shape)}, but has to be (batch, num_frames, embedding_dim)."
        )
    if temperature <= 0:
        raise ValueError(f"`temperature` is {temperature}, but has to be above 0.")
    num_frames = embeddings.shape[1]
    positive, negative = _pairs(num_frames, threshold, negatives, positives)
    contrasted = negative.any(dim=1)  # the anchors that have a negative; the others contribute zero
    if not contrasted.any():
        raise ValueError(
            f"No anchor of {num_frames} frames has a negative with `threshold` {threshold} and `negatives` "
            f"{negatives!r}: that takes at least {minimum_frames(threshold, negatives)} frames."
        )
    positive, negative = positive[contrasted].to(embeddings.device), negative[contrasted].to(embeddings.device)

    embeddings = embeddings.float()
    anchors = embeddings[:, :-1][:, contrasted.to(embeddings.device)]
    similarity = F.cosine_similarity(anchors[:, :, None], embeddings[:, None], dim=-1, eps=1e-8)
    logits = similarity / temperature  # (batch, anchors, num_frames)
    negative_logits = logits.masked_fill(~negative, float("-inf")).logsumexp(dim=-1, keepdim=True)
    pair_loss = torch.logaddexp(logits, negative_logits) - logits  # l_i, for every j at once
    anchor_loss = (pair_loss * positive).sum(dim=-1) / positive.sum(dim=-1)
    return (anchor_loss.sum(dim=-1) / (num_frames - 1)).mean()


def minimum_frames(threshold: int, negatives: str = "all") -> int:
    """The length of the shortest clip in which `contrastive_loss` finds an anchor with a negative."""
    return threshold + (2 if negatives == "all" else 3)


def _pairs(num_frames: int, threshold: int, negatives: str, positives: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Which frames (columns) are positives and which negatives of each anchor (rows), (num_frames - 1, num_frames)."""
    if negatives not in NEGATIVES:
        raise ValueError(f"`negatives` is {negatives!r}, but has to be one of {NEGATIVES}.")
    if positives not in POSITIVES:
        raise ValueError(f"`positives` is {positives!r}, but has to be one of {POSITIVES}.")
    if threshold < 1:
        raise ValueError(f"`threshold` is {threshold}, but has to be at least 1: the next frame is no negative.")
    if num_frames < 2:
        raise ValueError(f"Got {num_frames} frame(s), but a positive pair takes at least 2.")
    frame = torch.arange(num_frames)
    offset = frame - frame[:-1, None]
    positive = offset == 1 if positives == "next" else (offset != 0) & (offset.abs() <= threshold)
    negative = offset.abs() > threshold
    if negatives == "eq10":
        negative &= frame < num_frames - 1
    return positive, negative
