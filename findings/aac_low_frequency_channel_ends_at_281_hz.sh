#!/usr/bin/env bash
# Guess: AAC at a high bit rate keeps the level of all channels of 5.1.
#
# What happens: FFmpeg's encoder keeps 100 Hz in the low-frequency channel, and loses 52 dB of 600 Hz, at any bit rate.
# The format codes this channel with 12 coefficients, up to 281 Hz at 48 kHz. So a test tone of the same frequency in all
# channels makes an encoder look broken, and a third channel must not become the "LFE" of 2.1.
#
# Seen with PyAV 18.1.0 (its FFmpeg 8.1), Python 3.11.
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


def change_of_level(frequency):
    tone = 0.3 * np.sin(2 * np.pi * frequency * np.arange(48000) / 48000)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000, layout="5.1")
        stream.bit_rate = 6 * 256_000
        frame = av.AudioFrame.from_ndarray(np.stack([tone] * 6).astype(np.float32), "fltp", "5.1")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux([*stream.encode(frame), *stream.encode()])
    file.seek(0)
    with av.open(file) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    return 20 * np.log10(sound[:, 4800:43200].std(axis=1) / tone.std())


for frequency in (100, 600):
    levels = change_of_level(frequency)
    print(f"{frequency} Hz: " + ", ".join(f"{level:.1f}" for level in levels) + " dB (FL, FR, FC, LFE, BL, BR)")
    assert np.abs(np.delete(levels, 3)).max() < 0.1
    assert (levels[3] < -40) == (frequency == 600)
PYTHON
