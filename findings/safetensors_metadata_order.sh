#!/usr/bin/env bash
# Guess: a safetensors file is a function of its tensors and metadata, so two saves of the same content are equal bytes
# and a hash of the file identifies the weights.
#
# What happens: metadata with more than one entry is written in an order that changes from one call to the next, even in
# one process. Forty saves of one tensor with four entries gave about twenty different files of the same size. Without
# metadata, or with one entry, all forty are equal. A retraining that is exact to the bit still uploads a "new" file and
# fails a comparison of file hashes: hash the tensors instead.
#
# Seen with safetensors 0.8.0, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import hashlib

import numpy as np
from safetensors.numpy import load, save

tensors = {"weight": np.arange(6, dtype=np.float32)}
four = {"base_model": "a", "mode": "previous", "seed": "7", "steps": "1000"}


def files(metadata):
    return [save(tensors, metadata=metadata) for _ in range(40)]


def hashes(metadata):
    return {hashlib.sha256(file).hexdigest() for file in files(metadata)}


print("different files of 40, four entries:", len(hashes(four)))
print("different files of 40, one entry:", len(hashes({"mode": "previous"})))
print("different files of 40, none:", len(hashes(None)))
assert len(hashes(four)) > 1
assert len(hashes({"mode": "previous"})) == len(hashes(None)) == 1
assert len({len(file) for file in files(four)}) == 1
assert all(np.array_equal(load(file)["weight"], tensors["weight"]) for file in files(four))
PYTHON
