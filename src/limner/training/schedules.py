"""Learning-rate schedules: functions (step, total steps) -> factor of the base rate; plateau also hears the scores."""

import math

from limner.runs.recipe import Schedule


def factor(schedule: Schedule, step: int, total: int, epoch: int = 0) -> float:
    """The factor at optimiser step `step` (from 0) of `total`, in epoch `epoch` (from 0).  Plateau's part is in
    `ReduceOnPlateau`."""
    warm = schedule.warmup_steps or round(schedule.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if schedule.name == "noam":  # min(s^-0.5, s * warm^-1.5), divided by its peak at s = warm
        return math.sqrt(max(1, warm) / (step + 1))
    if schedule.name == "step":
        return schedule.factor ** max(0, (epoch - schedule.start) // schedule.every)
    if schedule.name in ("constant", "plateau"):
        return 1.0
    share = min(1.0, (step - warm) / max(1, total - warm))
    if schedule.name == "cosine":
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * share))
    power = schedule.power if schedule.name == "poly" else 1.0  # one_cycle: up in a line, down in a line
    return schedule.final + (1 - schedule.final) * (1 - share) ** power


class ReduceOnPlateau:
    """Counts validations without a better score; the state is three numbers that travel with a checkpoint."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.best, self.waited, self.factor = -math.inf, 0, 1.0

    def update(self, score: float, epoch: int = 0) -> bool:
        """Hear the validation score after `epoch` epochs; True when it is the best so far."""
        if score > self.best:
            self.best, self.waited = score, 0
            return True
        self.waited += 1
        due = self.waited % self.schedule.patience == 0 and epoch >= self.schedule.start
        if self.schedule.name == "plateau" and due:
            self.factor *= self.schedule.factor
        return False
