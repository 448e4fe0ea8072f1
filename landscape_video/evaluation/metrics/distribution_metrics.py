"""Figures of many clips at once: are they distributed as the reference is, are they distinct and various.

Everything is computed in float64 from features or logits, one row a clip.
"""

import numpy as np


def frechet_distance(features: np.ndarray, reference: np.ndarray, ddof: int = 1) -> float:
    """Frechet distance of two normal distributions fitted to features, (clips, dim) each; FVD with I3D's logits.

    `|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))` (Dowson and Landau, 1982; Unterthiner et al., "Towards
    Accurate Generative Models of Video", 2018). The eigenvalues of S1 S2 are the squared singular values of A B^T,
    with A and B the centred features over the roots of their counts, so the last trace is their sum: unlike a matrix
    root it stays exact when there are fewer clips than dimensions.

    Args:
        features: of the clips to judge, at least two.
        reference: of the true ones, at least two.
        ddof: 1 for the unbiased covariance, 0 for the one divided by the count.

    Raises:
        ValueError: fewer than two clips on a side.
    """
    _check(features, reference)
    means, factors = [], []
    for side in (features, reference):
        side = np.asarray(side, np.float64)
        mean = side.mean(axis=0)
        centred = (side - mean) / np.sqrt(len(side) - ddof)
        means.append(mean)
        # R of QR has the same inner products with at most `dim` rows.
        factors.append(np.linalg.qr(centred, mode="r") if len(side) > side.shape[1] else centred)
    root = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    distance = ((means[0] - means[1]) ** 2).sum() + (factors[0] ** 2).sum() + (factors[1] ** 2).sum() - 2 * root
    return float(max(distance, 0))  # equal features give a rounding error around 0


def polynomial_mmd(features: np.ndarray, reference: np.ndarray, paired: bool = False) -> float:
    """Squared maximum mean discrepancy under the kernel `(x y / dim + 1)^3`, unbiased; KVD with I3D's logits.

    As the kernel video distance of Unterthiner et al. (2018) and KID (Binkowski et al., "Demystifying MMD GANs",
    2018), over all clips at once. Near 0 it may be negative.

    Args:
        features: of the clips to judge, (clips, dim), at least two.
        reference: of the true ones, at least two.
        paired: row i of both sides shows the same scene: not independent, such pairs are left out, as each clip
            beside itself is within a side (Gretton et al., "A Kernel Two-Sample Test", 2012, Lemma 6). Otherwise a
            perfect copy would score far below 0.

    Raises:
        ValueError: fewer than two clips on a side; pairs without a partner.
    """
    _check(features, reference)
    if paired and len(features) != len(reference):
        raise ValueError(f"pairs need as many clips on both sides, not {len(features)} and {len(reference)}.")
    features, reference = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    within = sum(_mean_beside_diagonal(_kernel(side, side)) for side in (features, reference))
    across = _kernel(features, reference)
    return float(within - 2 * (_mean_beside_diagonal(across) if paired else across.mean()))


def inception_score(logits: np.ndarray, splits: int = 10) -> float:
    """Inception score (Salimans et al., "Improved Techniques for Training GANs", 2016) of a video classifier.

    `exp(mean KL(p(y | clip) || p(y)))`, the mean over `splits` runs of clips in their order. It reaches from 1 (all
    clips look alike, or like nothing) to the number of classes.

    Args:
        logits: (clips, classes).
        splits: p(y) is that of one split, so a split of few clips cannot score above their number.

    Raises:
        ValueError: fewer clips than splits.
    """
    logits = np.asarray(logits, np.float64)
    if len(logits) < splits:
        raise ValueError(f"there are {len(logits)} clips, but {splits} splits need at least one each.")
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    scores = []
    for part in np.array_split(log_p, splits):
        # log of the mean probability, without leaving the logarithm: a class of probability 0 stays finite.
        top = part.max(axis=0)
        log_mean = top + np.log(np.exp(part - top).mean(axis=0))
        scores.append(np.exp((np.exp(part) * (part - log_mean)).sum(axis=1).mean()))
    return float(np.mean(scores))


def _kernel(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (rows @ columns.T / rows.shape[1] + 1) ** 3


def _mean_beside_diagonal(kernel: np.ndarray) -> float:
    return (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))


def _check(features: np.ndarray, reference: np.ndarray) -> None:
    if min(len(features), len(reference)) < 2:
        raise ValueError(f"a spread needs two clips a side, but there are {len(features)} and {len(reference)}.")
