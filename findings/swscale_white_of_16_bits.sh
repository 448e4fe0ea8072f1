#!/usr/bin/env bash
# Guess: FFmpeg converts the white of an 8-bit YUV video to 65535 when it converts to 16-bit RGB.
#
# What happens: swscale shifts the bits to the left instead of repeating them: white of limited range becomes about
# 65280, 255 * 256, also for videos of 10 bits. Divided by 65535, images are 0.4 % too dark, a level of 255.
#
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import av
import numpy as np


def white_in_rgb48(pixel_format, luma, chroma, dtype):
    frame = av.VideoFrame(64, 64, pixel_format)
    for plane, value in zip(frame.planes, (luma, chroma, chroma), strict=True):
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value, dtype).tobytes())
    return int(frame.to_ndarray(format="rgb48le")[32, 32, 1])


eight = white_in_rgb48("yuv444p", 235, 128, np.uint8)
ten = white_in_rgb48("yuv444p10le", 940, 512, np.uint16)
print("white of 8 bits:", eight, " of 10 bits:", ten, " largest value:", 65535)
assert abs(eight - 255 * 256) <= 16 and abs(ten - 255 * 256) <= 16
PYTHON
