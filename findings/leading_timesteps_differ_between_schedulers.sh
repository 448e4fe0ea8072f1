#!/usr/bin/env bash
# Guess: `timestep_spacing="leading"` names one list of timesteps, so that changing DDIM for DPM-Solver++ or UniPC keeps
# the noise level at which sampling begins, and each scheduler obeys the setting.
#
# What happens: with 25 of 1000 steps DDIM and Euler begin at 960 and end at 0, DPM-Solver++ and UniPC begin at 950 and
# end at 38: they divide by one step more. The first noise they are given is that of no step they take. The scheduler of
# latent consistency models accepts the setting and ignores it: 999 to 39 for every spacing.
#
# Seen with diffusers 0.42.1, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 transformers==5.24.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)


def ends(scheduler_class, spacing):
    scheduler = scheduler_class(timestep_spacing=spacing)
    scheduler.set_timesteps(25)
    return int(scheduler.timesteps[0]), int(scheduler.timesteps[-1])


for scheduler_class in (DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler):
    print(scheduler_class.__name__, "leading:", ends(scheduler_class, "leading"))
lcm = {spacing: ends(LCMScheduler, spacing) for spacing in ("leading", "trailing", "linspace")}
print("LCMScheduler:", lcm)
assert ends(DDIMScheduler, "leading") == ends(EulerDiscreteScheduler, "leading") == (960, 0)
assert ends(DPMSolverMultistepScheduler, "leading") == ends(UniPCMultistepScheduler, "leading") == (950, 38)
assert set(lcm.values()) == {(999, 39)}
PYTHON
