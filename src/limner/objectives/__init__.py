"""What is learnt: functions (model, batch, epoch) -> Loss.  The training loop knows nothing else about them.

An objective of a recipe is a frozen dataclass.  It is such a function itself, or it builds one from the training that
it is part of (`build`).  One with parameters of its own is an nn.Module, trained, saved and resumed with the model, but
no part of it.
"""

from collections.abc import Callable

from limner.core.types import Batch, Loss
from limner.models.captioner import Captioner
from limner.objectives.context import Context
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.distillation import Distil
from limner.objectives.hierarchical import SftLoss
from limner.objectives.reconstruction import GlobalReconstruction, LocalReconstruction
from limner.objectives.self_critical import SelfCritical

Objective = CrossEntropy | GlobalReconstruction | LocalReconstruction | SelfCritical | SftLoss | Distil
ObjectiveFunction = Callable[[Captioner, Batch, int], Loss]


def build_objective(objective: Objective, context: Context) -> ObjectiveFunction:
    """What is freshly initialised here is on the CPU."""
    return objective if isinstance(objective, CrossEntropy) else objective.build(context)
