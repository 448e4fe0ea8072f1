"""The part of a decoded frame that the cut detector reads."""

from typing import NamedTuple

import numpy as np


class VideoFrame(NamedTuple):
    """A frame: its pixels, uint8 `(height, width, 3)` RGB."""

    pixels: np.ndarray
