"""The registry of training objectives.

A new objective is one file and one line here, or `limner.register` in a package of its own.  The training loop calls
an objective as a function (model, batch, epoch) -> Loss and needs nothing else from it.
"""

from limner.core.registry import Registry
from limner.objectives.context import Context
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.distillation import Distil
from limner.objectives.hierarchical import SftLoss
from limner.objectives.objective import HasCheckpointState, ObjectiveConfig, ObjectiveFunction
from limner.objectives.reconstruction import GlobalReconstruction, LocalReconstruction
from limner.objectives.self_critical import SelfCritical

__all__ = [
    "DEFAULT_OBJECTIVE",
    "OBJECTIVES",
    "Context",
    "HasCheckpointState",
    "ObjectiveConfig",
    "ObjectiveFunction",
    "build_objective",
]

OBJECTIVES: Registry[type[ObjectiveConfig]] = Registry(
    "objective",
    {
        "xe": CrossEntropy,
        "recnet_global": GlobalReconstruction,
        "recnet_local": LocalReconstruction,
        "scst": SelfCritical,
        "sft": SftLoss,
        "distil": Distil,
    },
)
DEFAULT_OBJECTIVE: ObjectiveConfig = CrossEntropy()  # for a stage that names no objective


def build_objective(objective: ObjectiveConfig, context: Context) -> ObjectiveFunction:
    """Build the function of an objective.  Its new parameters, if it has any, are on the CPU."""
    return objective.build(context)
