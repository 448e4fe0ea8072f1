#!/usr/bin/env bash
# Guess: `torchvision.utils.flow_to_image` colors each flow of a batch by itself, or all by an absolute scale: the same
# flow has the same colors whatever lies beside it.
#
# What happens: all flows of a batch are divided by the largest vector of the batch. A flow of 1 px is fully saturated by
# itself and almost white beside one of 10 px. Videos of optical flow that are colored in chunks flicker at the seams, and
# colors of two clips cannot be compared.
#
# Seen with torchvision 0.29.2, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torchvision.utils import flow_to_image

slow = torch.zeros(2, 8, 8)
slow[0] = 1.0
fast = 10 * slow
alone = flow_to_image(slow)[:, 4, 4].tolist()
beside = flow_to_image(torch.stack([slow, fast]))[:, :, 4, 4].tolist()
print("1 px by itself:", alone)
print("1 px beside 10 px:", beside[0], "and the 10 px:", beside[1])
assert alone == beside[1] and min(beside[0][1:]) > 200 > max(alone[1:])
PYTHON
