"""Learning-rate schedules: `lr_factor` gives a factor of the base rate per step, `ReduceOnPlateau` one per validation.

The rate of a step is base rate * lr_factor * ReduceOnPlateau.factor.
"""

import math

from limner.runs.recipe import Schedule


def lr_factor(schedule: Schedule, step: int, total: int, epoch: int = 0) -> float:
    """Return the factor of the base rate at optimiser step `step` of `total`, in epoch `epoch`; both count from 0.

    Every schedule can begin with a linear warm-up.  "plateau" is constant here: `ReduceOnPlateau` has its factor.
    """
    warm = schedule.warmup_steps or round(schedule.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if schedule.name == "noam":  # min(s^-0.5, s * warm^-1.5), divided by its peak at s = warm
        return math.sqrt(max(1, warm) / (step + 1))
    if schedule.name == "step":
        return schedule.factor ** max(0, (epoch - schedule.start) // schedule.every)
    if schedule.name in ("constant", "plateau"):
        return 1.0
    progress = min(1.0, (step - warm) / max(1, total - warm))
    if schedule.name == "cosine":
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * progress))
    power = schedule.power if schedule.name == "poly" else 1.0  # one_cycle: linear up, linear down
    return schedule.final + (1 - schedule.final) * (1 - progress) ** power


class ReduceOnPlateau:
    """Counts validations without a better score, and lowers the learning rate of the "plateau" schedule.

    Its state (`best`, `bad_validations`, `factor`) is saved in every checkpoint.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.best, self.bad_validations, self.factor = -math.inf, 0, 1.0

    def update(self, score: float, epoch: int = 0) -> bool:
        """Take the validation score after `epoch` epochs -> whether it is the best so far."""
        if score > self.best:
            self.best, self.bad_validations = score, 0
            return True
        self.bad_validations += 1
        due = self.bad_validations % self.schedule.patience == 0 and epoch >= self.schedule.start
        if self.schedule.name == "plateau" and due:
            self.factor *= self.schedule.factor
        return False
