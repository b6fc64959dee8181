"""What is learnt: functions (model, batch) -> Loss.  The training loop knows nothing else about them."""

from limner.objectives.cross_entropy import CrossEntropy

Objective = CrossEntropy
