#!/usr/bin/env bash
# Guess: `imageio.mimsave("clip.gif", frames, duration=0.1)` shows each frame for a tenth of a second, as it did for years
# and as most code found by a search still has it.
#
# What happens: the unit is milliseconds now, 0.1 ms becomes a delay of 0 and nothing is said; viewers take their own
# speed for it (mostly 10 frames a second, some as fast as they can). `fps=10` still means ten frames a second.
#
# Seen with imageio 2.38.1, Pillow 13.0.0, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet imageio==2.38.1 Pillow==13.0.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import io

import imageio
import numpy as np
from PIL import Image

frames = [np.full((32, 32, 3), level, np.uint8) for level in (0, 60, 120, 180)]


def delays(**keywords):
    file = io.BytesIO()
    imageio.mimsave(file, frames, format="GIF", **keywords)
    image = Image.open(file)
    found = []
    for number in range(image.n_frames):
        image.seek(number)
        found.append(image.info.get("duration", 0))
    return found


for keywords in ({"duration": 0.1}, {"duration": 100}, {"fps": 10}):
    print(keywords, "-> milliseconds of each frame:", delays(**keywords))
assert delays(duration=0.1) == [0] * 4
assert delays(duration=100) == delays(fps=10) == [100] * 4
PYTHON
