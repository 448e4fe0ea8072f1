"""Frechet distance, polynomial MMD and inception score, against others' implementations and known answers."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance, inception_score, polynomial_mmd


class Given(torch.nn.Module):
    """A feature extractor of torchmetrics that takes the features themselves."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.reshape(len(features), -1)


def two_sides(count: int = 60, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mix = random.normal(size=(dim, dim))
    return random.normal(size=(count, dim)) @ mix + 0.5, random.normal(size=(count + 7, dim)) * 1.5


def stylegan_v_fvd(fake: np.ndarray, real: np.ndarray) -> float:
    """StyleGAN-V's formula (metrics/frechet_video_distance.py), in its own terms: raw moments, matrix root."""
    moments = []
    for features in (fake, real):
        mean = features.sum(axis=0) / len(features)
        moments.append((mean, features.T @ features / len(features) - np.outer(mean, mean)))
    (mu_fake, sigma_fake), (mu_real, sigma_real) = moments
    root = scipy.linalg.sqrtm(sigma_fake @ sigma_real)
    return np.real(np.square(mu_fake - mu_real).sum() + np.trace(sigma_fake + sigma_real - root * 2))


def cd_fvd_frechet(fake: np.ndarray, real: np.ndarray) -> float:
    """cd-fvd's formula: numpy covariances, and the root by way of the symmetric one of the real side."""
    sigma_fake, sigma_real = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
    values, vectors = np.linalg.eigh(sigma_real)
    half = vectors * np.sqrt(values.clip(0)) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(half @ sigma_fake @ half).clip(0)).sum()
    return ((fake.mean(0) - real.mean(0)) ** 2).sum() + np.trace(sigma_fake + sigma_real) - 2 * root


def cd_fvd_kvd(fake: np.ndarray, real: np.ndarray) -> float:
    """cd-fvd's polynomial MMD: sums over pairs one by one."""

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return (np.dot(one, other) / len(one) + 1.0) ** 3

    within = [
        sum(kernel(side[i], side[j]) for i in range(len(side)) for j in range(len(side)) if i != j)
        / (len(side) * (len(side) - 1))
        for side in (fake, real)
    ]
    return sum(within) - 2 * np.mean([kernel(one, other) for one in fake for other in real])


def test_frechet_distance_agrees_with_stylegan_v_cd_fvd_and_torchmetrics():
    fake, real = two_sides()
    assert frechet_distance(fake, real, ddof=0) == pytest.approx(stylegan_v_fvd(fake, real), rel=1e-9)
    assert frechet_distance(fake, real) == pytest.approx(cd_fvd_frechet(fake, real), rel=1e-9)
    metric = FrechetInceptionDistance(Given(12), normalize=True).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).reshape(-1, 3, 2, 2), real=True)
    metric.update(torch.from_numpy(fake).reshape(-1, 3, 2, 2), real=False)
    assert frechet_distance(fake, real) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_distance_of_few_clips_in_many_dimensions():
    fake, real = two_sides(count=9, dim=300)
    assert frechet_distance(fake, real) == pytest.approx(cd_fvd_frechet(fake, real), rel=1e-5)
    tall, wide = two_sides(count=320, dim=300)  # through QR on both sides
    assert frechet_distance(tall, wide) == pytest.approx(cd_fvd_frechet(tall, wide), rel=1e-8)


def test_frechet_distance_of_normal_distributions_that_are_known():
    random = np.random.default_rng(0)
    same = random.normal(size=(50, 8))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(same + 3, same) == pytest.approx(9 * 8)  # a shift: its squared length
    assert frechet_distance(3 * (same - same.mean(0)), same - same.mean(0)) == pytest.approx(
        4 * same.var(axis=0, ddof=1).sum()
    )  # a scale s: (s - 1)^2 tr(S)
    still, moving = np.zeros((3, 8)), np.zeros((4, 8))
    assert frechet_distance(still, moving) == 0


def test_large_offsets_do_not_cost_digits():
    fake, real = two_sides()
    assert frechet_distance(fake + 1e6, real + 1e6) == pytest.approx(frechet_distance(fake, real), rel=1e-6)
    assert frechet_distance(fake.astype(np.float32), real) == pytest.approx(frechet_distance(fake, real), rel=1e-5)


def test_polynomial_mmd_agrees_with_cd_fvd_and_torchmetrics():
    fake, real = two_sides(count=30)
    real = real[:30]
    assert polynomial_mmd(fake, real) == pytest.approx(cd_fvd_kvd(fake, real), rel=1e-10)
    # One subset of everything: torchmetrics then draws nothing but the order.
    metric = KernelInceptionDistance(Given(12), subsets=2, subset_size=30, normalize=True).double()
    metric.update(torch.from_numpy(real).reshape(-1, 3, 2, 2), real=True)
    metric.update(torch.from_numpy(fake).reshape(-1, 3, 2, 2), real=False)
    assert polynomial_mmd(fake, real) == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_polynomial_mmd_is_unbiased():
    values = [polynomial_mmd(*np.random.default_rng(seed).normal(size=(2, 12, 6))) for seed in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)
    assert min(values) < 0 < max(values)
    assert polynomial_mmd(*two_sides()) > max(values)


def test_inception_score_agrees_with_torchmetrics():
    logits = np.random.default_rng(0).normal(size=(40, 12)) * 3
    metric = InceptionScore(Given(12), splits=1)
    metric.update(torch.from_numpy(logits).reshape(-1, 3, 2, 2))
    assert inception_score(logits, splits=1) == pytest.approx(float(metric.compute()[0]), rel=1e-5)
    parts = [inception_score(part, splits=1) for part in np.split(logits, 10)]
    assert inception_score(logits) == pytest.approx(np.mean(parts))


def test_inception_score_reaches_from_one_to_the_number_of_classes():
    assert inception_score(np.zeros((20, 5))) == pytest.approx(1)
    assert inception_score(np.tile([9.0, 0, 0], (20, 1))) == pytest.approx(1)
    certain = np.tile(np.eye(4), (10, 1)) * 1000  # every class equally often, without any doubt
    assert inception_score(certain) == pytest.approx(4)


def test_polynomial_mmd_of_pairs_is_unbiased_where_they_are_alike():
    def pairs(seed: int, noise: float) -> np.ndarray:
        scenes, *own = np.random.default_rng(seed).normal(size=(3, 12, 6))
        return [scenes + noise * one for one in own]

    for noise in (0.0, 0.3):  # the same clips, and other ones of the same scenes
        values, unpaired = (
            [polynomial_mmd(*pairs(seed, noise), paired=paired) for seed in range(300)] for paired in (True, False)
        )
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300) + 1e-9
        assert np.mean(unpaired) < -0.5
    with pytest.raises(ValueError, match="equal numbers of clips, got 3 and 2"):
        polynomial_mmd(np.ones((3, 2)), np.ones((2, 2)), paired=True)


@pytest.mark.parametrize("metric", [frechet_distance, polynomial_mmd])
def test_one_clip_has_no_spread(metric):
    with pytest.raises(ValueError, match="needs two clips on each side, got 1 and 60"):
        metric(np.ones((1, 4)), np.ones((60, 4)))


def test_fewer_clips_than_splits():
    with pytest.raises(ValueError, match="must have a clip for each of 10 splits, got 9"):
        inception_score(np.ones((9, 4)))
