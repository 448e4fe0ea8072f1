"""Compare the distribution of many clips with a reference, and score how distinct and diverse they are.

Everything is computed in float64 from features or logits, one row per clip.
"""

import numpy as np


def frechet_distance(features: np.ndarray, reference: np.ndarray, ddof: int = 1) -> float:
    """Fréchet distance of two normal distributions fitted to features (clips, dim); FVD with the logits of I3D.

    `|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))` (Dowson and Landau, 1982; Unterthiner et al., "Towards
    Accurate Generative Models of Video", 2018). The last trace is the sum of the singular values of A B^T, where A and
    B are the centered features over the roots of their counts: their squares are the eigenvalues of S1 S2. Unlike a
    matrix root, this stays exact when there are fewer clips than dimensions.

    Args:
        features: Features of the clips to judge, at least two.
        reference: Features of the true clips, at least two.
        ddof: 1 for the unbiased covariance, 0 for the one divided by the count.

    Raises:
        ValueError: There are fewer than two clips on a side.
    """
    _check(features, reference)
    means, factors = [], []
    for side in (features, reference):
        side = np.asarray(side, np.float64)
        mean = side.mean(axis=0)
        centered = (side - mean) / np.sqrt(len(side) - ddof)
        means.append(mean)
        # R of QR has the same inner products with at most `dim` rows.
        factors.append(np.linalg.qr(centered, mode="r") if len(side) > side.shape[1] else centered)
    root = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    distance = ((means[0] - means[1]) ** 2).sum() + (factors[0] ** 2).sum() + (factors[1] ** 2).sum() - 2 * root
    return float(max(distance, 0))  # equal features give a rounding error around 0


def polynomial_mmd(features: np.ndarray, reference: np.ndarray, paired: bool = False) -> float:
    """Squared maximum mean discrepancy under the kernel `(x y / dim + 1)^3`, unbiased; KVD with the logits of I3D.

    This is the kernel video distance of Unterthiner et al. (2018), and KID (Binkowski et al., "Demystifying MMD GANs",
    2018), over all clips at once. It may be negative near 0.

    Args:
        features: Features of the clips to judge, (clips, dim), at least two.
        reference: Features of the true clips, at least two.
        paired: Whether row i shows the same scene on both sides. Such pairs are not independent and are left out, as
            each clip paired with itself is within a side (Gretton et al., "A Kernel Two-Sample Test", 2012, Lemma 6);
            otherwise a perfect copy would score far below 0.

    Raises:
        ValueError: There are fewer than two clips on a side, or pairs without a partner.
    """
    _check(features, reference)
    if paired and len(features) != len(reference):
        raise ValueError(f"pairs need equal numbers of clips, got {len(features)} and {len(reference)}.")
    features, reference = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    within = sum(_mean_beside_diagonal(_kernel(side, side)) for side in (features, reference))
    across = _kernel(features, reference)
    return float(within - 2 * (_mean_beside_diagonal(across) if paired else across.mean()))


def inception_score(logits: np.ndarray, splits: int = 10) -> float:
    """Inception score (Salimans et al., "Improved Techniques for Training GANs", 2016) of a video classifier.

    `exp(mean KL(p(y | clip) || p(y)))`, averaged over consecutive splits of the clips. It ranges from 1 (all clips
    look alike, or like no class) to the number of classes.

    Args:
        logits: (clips, classes).
        splits: Number of splits. p(y) is that of one split, so a split cannot score above its number of clips.

    Raises:
        ValueError: There are fewer clips than splits.
    """
    logits = np.asarray(logits, np.float64)
    if len(logits) < splits:
        raise ValueError(f"`logits` must have a clip for each of {splits} splits, got {len(logits)} clips.")
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    scores = []
    for part in np.array_split(log_p, splits):
        # Log of the mean probability, computed in the log domain so that a class of probability 0 stays finite.
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
        raise ValueError(f"a distance needs two clips on each side, got {len(features)} and {len(reference)}.")
