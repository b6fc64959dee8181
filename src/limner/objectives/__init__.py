"""What is learnt: functions (model, batch, epoch) -> Loss.  The training loop knows nothing else about them.

An objective of a recipe is a frozen dataclass.  It is such a function itself, or it builds one that has parameters of
its own (`build`): an nn.Module, trained, saved and resumed with the model, but no part of it.
"""

from collections.abc import Callable

from limner.models.captioner import Captioner
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.reconstruction import GlobalReconstruction, LocalReconstruction
from limner.types import Batch, Loss

Objective = CrossEntropy | GlobalReconstruction | LocalReconstruction
Learnt = Callable[[Captioner, Batch, int], Loss]


def build_objective(objective: Objective, hidden: int, feature_dim: int) -> Learnt:
    """`hidden` is the width of the captioner's hidden states.  What is freshly initialised here is on the CPU."""
    return objective if isinstance(objective, CrossEntropy) else objective.build(hidden, feature_dim)
