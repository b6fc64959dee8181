"""What every objective offers: a config in a recipe, which builds a function (model, batch, epoch) -> Loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from limner.core.types import Batch, Loss
from limner.models.captioner import Captioner
from limner.objectives.context import Context

ObjectiveFunction = Callable[[Captioner, Batch, int], Loss]


class ObjectiveConfig(ABC):
    """The base of what a recipe says about an objective: a frozen dataclass whose `name` is a literal of its own.

    An objective with parameters builds an nn.Module: they are trained, saved and resumed with the model, but are no
    part of it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str
    trains_all_parameters: ClassVar[bool] = (
        False  # True: also those that take no part in a `partial` captioner's captions
    )
    highest_lr: ClassVar[float | None] = None  # above this rate training usually forgets what it began with

    @abstractmethod
    def build(self, context: Context) -> ObjectiveFunction:
        """What is freshly initialised here is on the CPU."""

    @property
    def skips_gradients(self) -> bool:
        """Whether some trained parameters may get no gradient; several processes would wait for it."""
        return False

    @property
    def parameters_name(self) -> str:
        """Names the objective's own parameters: a stage or run with the same name goes on with them."""
        return self.name

    @property
    def teacher_run(self) -> str:
        """The run folder that it learns from, or ""."""
        return ""

    @property
    def teacher_side(self) -> str:
        """Which side of a teacher that has several, or ""."""
        return ""


@runtime_checkable
class HasCheckpointState(Protocol):
    """An objective that remembers more than parameters, and resumes with it."""

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Tensors by names that no other part of a checkpoint has."""
        ...

    def restore_checkpoint_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse; `tensors` are those of the whole checkpoint."""
        ...
