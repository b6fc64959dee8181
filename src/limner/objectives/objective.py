"""The interface of objectives: a config in a recipe that builds a function (model, batch, epoch) -> Loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from limner.core.types import Batch, Loss
from limner.models.captioner import Captioner
from limner.objectives.context import Context

ObjectiveFunction = Callable[[Captioner, Batch, int], Loss]


class ObjectiveConfig(ABC):
    """Base class of the configs of objectives: frozen dataclasses, each with a literal `name` of its own.

    An objective with parameters builds an nn.Module.  Its parameters are trained, saved and resumed together with the
    captioner's, in a file of their own.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str
    # True: it also trains parameters of a `partial` captioner that its captions do not depend on
    trains_all_parameters: ClassVar[bool] = False
    highest_lr: ClassVar[float | None] = None  # a higher rate usually destroys the weights that training starts from

    @abstractmethod
    def build(self, context: Context) -> ObjectiveFunction:
        """The function (model, batch, epoch) -> Loss.  Its new parameters, if it has any, are on the CPU."""

    @property
    def skips_gradients(self) -> bool:
        """Whether some trained parameters may get no gradient.  Data-parallel training must know: it waits for each."""
        return False

    @property
    def parameters_name(self) -> str:
        """A name for the objective's own parameters; a stage or run with the same name continues to train them."""
        return self.name

    @property
    def teacher_run(self) -> str:
        """The run folder of the teacher, or "" without one."""
        return ""

    @property
    def teacher_side(self) -> str:
        """The side of a teacher that has several, or ""."""
        return ""


@runtime_checkable
class HasCheckpointState(Protocol):
    """An objective with state beyond its parameters, which checkpoints save and restore."""

    def checkpoint_state(self) -> dict[str, Tensor]:
        """The state as tensors, under names that no other part of a checkpoint uses."""
        ...

    def restore_checkpoint_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state; `tensors` are all tensors of the checkpoint."""
        ...
