#!/usr/bin/env bash
# Guess: setting `colorspace` of a PyAV encoder to BT.709 makes the encoder convert RGB frames with the BT.709 matrix.
#
# What happens: the file is tagged BT.709, but the RGB frames are converted with BT.601 as without the tag. The decoder
# honors the tag, so a green of 200 comes back as 169. Frames have to be reformatted with `dst_colorspace` before they
# are encoded; then it comes back within rounding.
#
# Seen with PyAV 18.1.0, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np
from av.video.reformatter import Colorspace

GREEN = np.full((64, 64, 3), (0, 200, 0), np.uint8)
BT709 = 1  # of ISO/IEC 23091-2, as in the file


def read_back(tag, reformat):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=24, options={"qp": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv444p"
        if tag:
            codec = stream.codec_context
            codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        frame = av.VideoFrame.from_ndarray(GREEN, format="rgb24")
        if reformat:
            frame = frame.reformat(format="yuv444p", dst_colorspace=Colorspace.ITU709)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        frame = next(container.decode(video=0))
        return frame.to_ndarray()[:, 9, 9].tolist(), frame.to_ndarray(format="rgb24")[9, 9].tolist()


untagged, tagged, reformatted = read_back(False, False), read_back(True, False), read_back(True, True)
print("planes and RGB, no tag:", *untagged)
print("planes and RGB, tagged BT.709:", *tagged)
print("planes and RGB, tagged and reformatted:", *reformatted)
assert tagged[0] == untagged[0]  # the same conversion
assert untagged[1][1] >= 199 and tagged[1][1] <= 172 and reformatted[1][1] >= 199
PYTHON
