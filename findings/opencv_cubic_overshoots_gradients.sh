#!/usr/bin/env bash
# Guess: bicubic sampling is at least as exact as linear sampling, so on a straight gradient, which linear sampling gets
# exactly right, cubic sampling by 0.3 px gives what lies 0.3 px further.
#
# What happens: OpenCV's `INTER_CUBIC` has a = -0.75, whose kernel does not reproduce straight lines. A gradient sampled
# 0.3 px further comes out as if 0.342 px further, 0.05 px as 0.071. Motion compensation that warps by cubic sampling
# makes slow gradients (skies, washes) breathe from frame to frame. Pillow and PyTorch's antialiased resizing take
# a = -0.5, which reproduces lines; PyTorch's `grid_sample(mode="bicubic")` takes -0.75, too.
#
# Seen with OpenCV 5.0.0 (and 4.12.0), numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np

gradient = np.tile(np.arange(64, dtype=np.float32), (64, 1))  # one level per pixel
x, y = np.meshgrid(np.arange(64, dtype=np.float32), np.arange(64, dtype=np.float32))


def moved(shift, kernel):
    sampled = cv2.remap(gradient, x + np.float32(shift), y, kernel)
    return float((sampled - gradient)[8:-8, 8:-8].mean())


for shift in (0.05, 0.1, 0.3, 0.5):
    linear, cubic = moved(shift, cv2.INTER_LINEAR), moved(shift, cv2.INTER_CUBIC)
    print(f"asked {shift} px: linear {linear:.4f}, cubic {cubic:.4f}")
    assert abs(linear - shift) < 1e-3
    a = -0.75
    at = [shift + 1, shift, 1 - shift, 2 - shift]
    weights = [
        a * (d**3 - 5 * d**2 + 8 * d - 4) if d > 1 else (a + 2) * d**3 - (a + 3) * d**2 + 1 for d in at
    ]
    expected = sum(weight * place for weight, place in zip(weights, (-1, 0, 1, 2), strict=True))
    assert abs(cubic - expected) < 1e-3
assert abs(moved(0.3, cv2.INTER_CUBIC) - 0.342) < 1e-3
PYTHON
