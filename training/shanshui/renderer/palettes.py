"""The five palettes: colors of paper, mist, ink and water."""

from typing import NamedTuple

import numpy as np


def rgb(text: str) -> np.ndarray:
    """Return the color "rrggbb" as (3,) float32 from 0 to 1."""
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


class Palette(NamedTuple):
    """Colors, each (3,) float32 RGB from 0 to 1.

    A mountain goes from `ridge` at its edge over `slope` to `mist` at its foot; distance mixes in `far`.
    """

    paper: np.ndarray  # the sheet, and the sky near the mountains
    sky: np.ndarray  # the top of the sky
    mist: np.ndarray  # what mountains fade into at their feet
    cloud: np.ndarray  # drifting mist
    far: np.ndarray
    ridge: np.ndarray
    slope: np.ndarray
    line: np.ndarray  # contours, boats, trees and birds
    water: np.ndarray  # deep water
    foliage: np.ndarray
    blossom: np.ndarray


_CODES = {
    "ink": "ece3cf ddd2bb efe7d6 f9f6ef a9a49a 26262a 5b5955 17171a b9b2a2 2a2b2b b56a72",
    "blue_green": "e6d2a4 d3b67c eadbb2 f8f2e2 7fb0a4 12567e 2f9a72 1c2f3c 86b5a8 1d6b52 e58a94",
    "autumn": "f1d7a8 e6bd80 f5e0b8 fdf5e4 d3a06a 7e2f14 c8682a 3c1c12 dcae74 c23f17 d9371f",
    "snow": "a3afbc 7c8b9d c9d2da 8d9bab c2ccd5 fbfcfd f0f4f7 252d3a 6a7d92 3f4c5a c25b6e",
    "dawn": "f6c9b4 c79ac0 f9d6c6 fff0ea d9a3b4 59366e 9c6796 3a2450 d9a2ae 57406b d43a72",
}
COLORS = {name: Palette(*map(rgb, codes.split())) for name, codes in _CODES.items()}
