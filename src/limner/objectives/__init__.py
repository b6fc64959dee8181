"""What is learnt: functions (model, batch, epoch) -> Loss.  The training loop knows nothing else about them.

An objective of a recipe is a frozen dataclass.  It is such a function itself, or it builds one that has parameters of
its own (`build`): an nn.Module, trained, saved and resumed with the model, but no part of it.
"""

from collections.abc import Callable, Sequence

from limner.models.captioner import Captioner
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.hierarchical import SftLoss
from limner.objectives.reconstruction import GlobalReconstruction, LocalReconstruction
from limner.objectives.self_critical import SelfCritical
from limner.text.vocabulary import Vocabulary
from limner.types import Batch, Loss, Medium

Objective = CrossEntropy | GlobalReconstruction | LocalReconstruction | SelfCritical | SftLoss
Learnt = Callable[[Captioner, Batch, int], Loss]


def build_objective(
    objective: Objective,
    hidden: int,
    feature_dim: int,
    media: Sequence[Medium] = (),
    vocabulary: Vocabulary | None = None,
    warn: Callable[[str], None] = print,
) -> Learnt:
    """`hidden` is the width of the captioner's hidden states, `media` the training split; `warn` hears of training that
    does not learn.  What is freshly initialised here is on the CPU."""
    if isinstance(objective, CrossEntropy):
        return objective
    if isinstance(objective, SftLoss):
        assert vocabulary is not None, "objects and actions are words"
        return objective.build(media, vocabulary)
    if isinstance(objective, SelfCritical):
        assert vocabulary is not None, "rewards are scored on ids"
        return objective.build(media, vocabulary, warn)
    return objective.build(hidden, feature_dim)
