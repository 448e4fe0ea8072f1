#!/usr/bin/env bash
# Guess: `EMAModel(parameters, decay=0.9999)` averages with that decay from the first step unless `use_ema_warmup=True`,
# so after 1000 steps the average still holds nine tenths of the weights it began with.
#
# What happens: without `use_ema_warmup`, too, the decay of step n is at most (1 + n) / (10 + n), and the first step
# copies: after 1000 steps the decay is 0.991, a memory of about a hundred steps, and nothing of the first weights is
# left. Any `decay` above 0.991 gives the same average in a run of 1000 steps; 0.9999 is reached after 90,000.
#
# Seen with diffusers 0.42.1, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 transformers==5.24.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers.training_utils import EMAModel


def average_after(steps, decay):
    """Average of a weight that was 0 before the first step and is 1 from then on."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    ema = EMAModel([weight], decay=decay)
    weight.data.fill_(1.0)
    for _ in range(steps):
        ema.step([weight])
    return ema.shadow_params[0].item(), ema.cur_decay_value


average, decay = average_after(1000, 0.9999)
print(f"after 1000 steps: decay {decay:.4f}, average {average:.4f}; a constant decay gives {1 - 0.9999**1000:.4f}")
assert abs(decay - 1000 / 1009) < 1e-12
assert average == 1.0
assert average_after(1000, 0.992) == (average, decay)
PYTHON
