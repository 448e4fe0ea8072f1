#!/usr/bin/env bash
# Guess: the duration of an undamaged .mp4 is at least the timestamp of its last frame, so that a file whose last frame
# lies beyond the duration, or far before it, was damaged or cut short.
#
# What happens: in a clip of uneven frame times that H.264 wrote with B-frames, the container's duration is 2.24 s where
# the last frame is shown at 3.2 s: the muxer adds up decoding times, which reordering shifts. All five frames decode at
# the right times. Matroska says 3.24 s for the same packets.
#
# Seen with PyAV 18.1.0 (its FFmpeg, libx264), Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import io
from fractions import Fraction

import av
import numpy as np

SHOWN = [0, 1000, 1100, 1200, 3200]  # milliseconds


def write(format):
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, shown in enumerate(SHOWN):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = shown, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        return container.duration / av.time_base, times


for format in ("mp4", "matroska"):
    duration, times = write(format)
    print(f"{format}: duration {duration:.3f} s, frames at {times}")
    assert times == [0, 1, 1.1, 1.2, 3.2]
    assert (duration < times[-1]) == (format == "mp4")
PYTHON
