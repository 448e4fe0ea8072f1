"""Says, once and in words, when losses and gradients alone show that a run goes wrong.

That a clip stands still they do not show: a loss is as low where nothing moves. `validation.py` looks at clips.
"""

import math
import statistics


WINDOW = 100  # batches whose mean loss is compared; one batch's depends mostly on its timesteps
DIVERGED_ABOVE = 1.5  # times the lowest mean of a window before
DEVIATIONS = 5  # standard errors that the two means have to be apart as well; of 400 windows one is 3 apart by chance
IDLE_STEPS = 100


class LossWatch:
    """Takes in what the steps report; each kind of trouble is said once."""

    def __init__(self, first_step: int) -> None:
        self._changed_at = first_step
        self._losses: list[float] = []
        self._lowest: tuple[float, float] | None = None  # mean and standard error of the best window
        self._said: set[str] = set()

    def look(self, step: int, losses: list[float], grad_norms: list[float]) -> list[str]:
        """What to say after `step` steps, nothing if all is well.

        Args:
            losses: the diffusion loss of each batch since the last look.
            grad_norms: the norm of each gradient that was applied since then.
        """
        warnings = []
        self._losses += losses
        if len(self._losses) >= WINDOW:
            warnings += self._compare(mean_and_error(self._losses))
            self._losses = []
        if any(norm > 0 for norm in grad_norms):
            self._changed_at = step
        elif step - self._changed_at >= IDLE_STEPS and "idle" not in self._said:
            self._said.add("idle")
            warnings.append(
                f"no gradient has reached the weights in {step - self._changed_at} steps: nothing is learned, and "
                "clips stay as they are. Where --mixed_precision is fp16, use bf16 or no."
            )
        return warnings

    def _compare(self, now: tuple[float, float]) -> list[str]:
        before, self._lowest = self._lowest, min(now, self._lowest or now)
        if before is None or "diverges" in self._said:
            return []
        apart = now[0] - before[0] > DEVIATIONS * math.hypot(now[1], before[1])
        if not (apart and now[0] > DIVERGED_ABOVE * before[0]):
            return []
        self._said.add("diverges")
        return [
            f"the diffusion loss is {now[0]:.4f} on average, {now[0] / before[0]:.1f} times its lowest so far: it "
            "diverges. Resume from an earlier checkpoint with a lower --learning_rate or a longer --lr_warmup_steps."
        ]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Their mean, and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
