#!/usr/bin/env bash
# Guess: movflags=use_metadata_tags only adds tags to an .mp4, those that the format has no name for.
#
# What happens: with it, the cover image is gone, without a warning. Without it, the cover is there and the tag "studio"
# is gone. FFmpeg writes either the list of free tags or the one of iTunes, and only the latter has a place for covers.
#
# Seen with PyAV 18.1.0 (its FFmpeg 8.1), Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

IMAGE = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")


def write(flags):
    with av.open("cover.mp4", "w", options={"movflags": flags}) as container:
        container.metadata.update({"title": "Rain", "studio": "none"})
        streams = container.add_stream("libx264", rate=25), container.add_stream("mjpeg", rate=25)
        for stream, pixel_format in zip(streams, ("yuv420p", "yuvj420p"), strict=True):
            stream.width, stream.height, stream.pix_fmt = 64, 64, pixel_format
        streams[1].disposition = Disposition.attached_pic
        for stream in streams:
            image = IMAGE.reformat(format=stream.pix_fmt)
            image.pts, image.time_base = 0, Fraction(1, 25)
            container.mux([*stream.encode(image), *stream.encode()])
    with av.open("cover.mp4") as container:
        covers = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
        return len(covers), container.metadata.get("studio")


for flags, expected in [("+use_metadata_tags", (0, "none")), ("+faststart", (1, None))]:
    covers, studio = write(flags)
    print(f"{flags}: {covers} covers, studio is {studio}")
    assert (covers, studio) == expected
PYTHON
