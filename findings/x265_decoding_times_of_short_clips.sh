#!/usr/bin/env bash
# Guess: a clip of one or two frames that libx265 encodes gets valid decoding times, as longer clips do.
#
# What happens: with B-frames, which are the default, the decoding times come from memory that nobody has written: the
# first encoders of a process give right ones, many later ones numbers such as -93984816273728. `bframes=0` gives right
# ones always.
#
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np


def times(num_frames, parameters):
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": f"log-level=error{parameters}"})
        stream.width = stream.height = 64
        packets = []
        for number in range(num_frames):
            pixels = np.full((64, 64, 3), 40 * number, np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        packets += stream.encode()
        return [(packet.pts, packet.dts) for packet in packets]


RIGHT = ([(0, 0)], [(0, 0), (1, 1)])
for parameters in ("", ":bframes=0"):
    found = [times(1 + number % 2, parameters) for number in range(120)]
    wrong = [pairs for pairs in found if pairs not in RIGHT]
    print(f"{parameters or 'default'}: {len(wrong)} of {len(found)} clips with wrong times", *wrong[:2])
    assert bool(wrong) == (parameters == "")
PYTHON
