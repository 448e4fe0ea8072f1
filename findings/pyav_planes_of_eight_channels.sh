#!/usr/bin/env bash
# Guess: sound of 7.1 channels goes into and out of NumPy like that of 5.1.
#
# What happens: with 8 or more channels in planes (fltp, which most decoders return), AudioFrame.from_ndarray and
# to_ndarray raise an IndexError or crash: planes are counted up to a null pointer, which a frame of 8 planes does not
# have. Packed samples (flt) work.
#
# Seen with PyAV 18.1.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import av
import numpy as np


def round_trip(format, layout, channels):
    samples = np.zeros((channels, 480), np.float32)
    array = samples if format == "fltp" else samples.reshape(1, -1)
    try:
        av.AudioFrame.from_ndarray(array, format, layout).to_ndarray()
    except IndexError as error:
        return f"IndexError: {error}"
    return "works"


for format, layout, channels in [("fltp", "5.1", 6), ("fltp", "7.1", 8), ("flt", "7.1", 8)]:
    result = round_trip(format, layout, channels)
    print(f"{format}, {layout}: {result}")
    assert (result == "works") == ((format, layout) != ("fltp", "7.1"))
PYTHON
