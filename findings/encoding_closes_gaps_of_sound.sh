#!/usr/bin/env bash
# Guess: frames of sound that are encoded with a gap in their pts leave that gap in the file, because packets get their
# times from the frames.
#
# What happens: one second is missing between two parts of a sound. As AAC and FLAC in .mp4 and as PCM in .mov, the
# second part is decoded one second early; only PCM in Matroska keeps its time. Frames have to be filled up with silence
# before they are encoded, as by FFmpeg's filter aresample with async=1.
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
from fractions import Fraction

import av
import numpy as np

RATE, SIZE = 48000, 960
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(SIZE) / RATE)).astype(np.float32)[None]


def encode(codec, format, filled):
    file, resampler = io.BytesIO(), av.AudioResampler("fltp", options={"async": "1"}) if filled else None
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        for number in [*range(25), *range(75, 100)]:  # silence, nothing from 0.5 to 1.5 s, a tone
            frame = av.AudioFrame.from_ndarray(TONE * (number >= 75), "flt", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, number * SIZE, Fraction(1, RATE)
            for part in resampler.resample(frame) if filled else [frame]:
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    file.seek(0)
    return file


def start_of_tone(file):
    with av.open(file) as container:
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().ravel().astype(np.float64))
            samples /= 32768 if frame.format.name.startswith("s16") else 1
            if samples.max() > 0.3:
                return float(frame.pts * frame.time_base) + (samples > 0.3).argmax() / RATE


for codec, format, kept in [
    ("aac", "mp4", False),
    ("flac", "mp4", False),
    ("pcm_s16le", "mov", False),
    ("pcm_s16le", "matroska", True),
]:
    start = start_of_tone(encode(codec, format, filled=False))
    print(f"{codec} in {format}: the tone of 1.5 s begins at {start:.2f} s")
    assert (abs(start - 1.5) < 0.05) == kept
start = start_of_tone(encode("aac", "mp4", filled=True))
print(f"aac in mp4, filled up: {start:.2f} s")
assert abs(start - 1.5) < 0.05
PYTHON
