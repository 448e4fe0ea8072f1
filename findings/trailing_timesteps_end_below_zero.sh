#!/usr/bin/env bash
# Guess: `set_timesteps(n)` with `timestep_spacing="trailing"` returns n timesteps from 999 down to 0 or above.
#
# What happens: for 62 numbers below 1000, such as 61, 103 and 201, it returns n + 1 timesteps and the last one is -1.
# `np.arange(1000, 0, -1000 / n)` accumulates a rounding error and includes an end of 1e-13. DDIM, DDPM, Euler,
# DPM-Solver++, UniPC and LMS share the line. Sampling then runs one step more than was asked for, at an embedding of a
# timestep that no model was trained on; DDIM reads `alphas_cumprod[-1]`, pure noise, for its last step.
#
# Seen with diffusers 0.42.1, numpy 2.4.6, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 transformers==5.24.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

for scheduler_class in (DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler):
    scheduler = scheduler_class(timestep_spacing="trailing")
    longer = []
    for number in range(1, 1000):
        scheduler.set_timesteps(number)
        if len(scheduler.timesteps) != number:
            assert len(scheduler.timesteps) == number + 1 and scheduler.timesteps[-1] == -1
            longer.append(number)
    print(scheduler_class.__name__, len(longer), "numbers, first", longer[:5])
    assert len(longer) == 62 and longer[:3] == [61, 103, 121]
PYTHON
