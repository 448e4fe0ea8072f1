#!/usr/bin/env bash
# Guess: with the same seed, a longer `torch.randn` begins with the numbers of a shorter one, so that the noise of a clip
# of 20 frames begins as that of a clip of 17, frame after frame.
#
# What happens: on a CPU the numbers come in blocks of 16. If the length is no multiple of 16, the last 16 values are
# drawn anew, so up to 15 numbers before the end differ; below 16 numbers another algorithm draws them altogether. Only
# lengths that are multiples of 16 are prefixes of each other. Noise that has to be the same for the beginning of a longer
# clip must be drawn frame by frame, each with a generator of its own or in blocks of 16.
#
# Seen with torch 2.15.0 on a CPU, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch


def noise(length):
    return torch.randn(length, generator=torch.Generator().manual_seed(0))


def shared(shorter, longer):
    """How many numbers agree from the first on."""
    equal = noise(shorter) == noise(longer)[:shorter]
    return shorter if bool(equal.all()) else int(equal.int().argmin())


for shorter, longer, expected in ((16, 32, 16), (48, 64, 48), (20, 32, 4), (17, 32, 1), (40, 64, 24), (15, 32, 0)):
    print(f"{shorter} and {longer} numbers: the first {shared(shorter, longer)} agree")
    assert shared(shorter, longer) == expected
PYTHON
