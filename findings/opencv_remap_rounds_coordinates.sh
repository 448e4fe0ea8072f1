#!/usr/bin/env bash
# Guess: `cv2.remap` with float32 maps samples where the maps say, so that a warp by a slow optical flow (0.01 px a
# frame, drifting mist) moves the picture by as much.
#
# What happens: OpenCV 4 rounds the coordinates to 1/32 px. A shift of 0.01 px does nothing, 0.016 and 0.02 px both move
# by 0.031 px. OpenCV 5 samples exactly with `INTER_LINEAR` and `INTER_CUBIC`, but `INTER_LANCZOS4` still rounds. So the
# same program gives other frames with the two versions, and the kernel with the best name is the one that cannot move
# slowly.
#
# Seen with opencv-python-headless 4.12.0.88 and 5.0.0.93, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/remap.py" <<'PYTHON'
import cv2
import numpy as np

gradient = np.tile(np.arange(64, dtype=np.float32), (64, 1))  # one level per pixel
x, y = np.meshgrid(np.arange(64, dtype=np.float32), np.arange(64, dtype=np.float32))


def moved(shift, kernel):
    sampled = cv2.remap(gradient, x + np.float32(shift), y, kernel)
    return float((sampled - gradient)[8:-8, 8:-8].mean())


shifts = (0.01, 0.016, 0.02)
linear = [moved(shift, cv2.INTER_LINEAR) for shift in shifts]
cubic = [moved(shift, cv2.INTER_CUBIC) for shift in shifts]
lanczos = [moved(shift, cv2.INTER_LANCZOS4) for shift in shifts]
print(cv2.__version__, "asked", shifts)
for name, values in (("linear", linear), ("cubic", cubic), ("lanczos", lanczos)):
    print(f"  {name}:", [round(value, 4) for value in values])
if cv2.__version__.startswith("4."):
    assert abs(linear[0]) < 1e-4 and np.allclose(linear[1:], 1 / 32, atol=1e-4)
    assert abs(cubic[0]) < 1e-4 and abs(cubic[1] - cubic[2]) < 1e-4
else:
    assert np.allclose(linear, shifts, atol=1e-4)
    assert cubic[0] > 0.01 and cubic[2] - cubic[1] > 0.004
assert abs(lanczos[0]) < 1e-4 and abs(lanczos[1] - lanczos[2]) < 1e-4
PYTHON
for opencv in 4.12.0.88 5.0.0.93; do
    python3 -m venv "$work/$opencv"
    "$work/$opencv/bin/pip" install --quiet "opencv-python-headless==$opencv"
    "$work/$opencv/bin/python" "$work/remap.py"
done
