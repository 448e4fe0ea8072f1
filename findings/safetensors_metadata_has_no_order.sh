#!/usr/bin/env bash
# Guess: saving the same tensors with the same metadata gives the same file, so that its hash identifies the weights.
#
# What happens: with two or more entries of metadata, their order in the header differs from call to call within one
# process. 40 calls with two entries give 2 different files of the same size. With one entry, all files are equal.
#
# Seen with safetensors 0.8.0, numpy 2.3.4, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "safetensors==0.8.0" "numpy==2.3.4"
"$folder/venv/bin/python" - <<'PYTHON'
import hashlib

import numpy as np
from safetensors.numpy import load, save

tensors = {"weight": np.zeros(4, dtype=np.float32)}


def files(metadata):
    return {save(tensors, metadata=dict(metadata)) for _ in range(40)}


two = files({"format": "pt", "config": "{}"})
one = files({"format": "pt"})
print("different files of 40: with two entries", len(two), "with one", len(one))
print("hashes:", sorted(hashlib.sha256(file).hexdigest()[:12] for file in two))
assert len(two) == 2 and len(one) == 1, "this has changed"
assert len({len(file) for file in two}) == 1 and all((load(file)["weight"] == 0).all() for file in two)
PYTHON
