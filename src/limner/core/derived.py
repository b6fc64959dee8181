"""`Derived`: a value that is computed from weights, for example a packed copy of them, and kept until they change."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class Derived(Generic[Value]):
    """A value that is computed from weights at the first use, and again after the weights have changed.

    It may be an attribute of a module: it is neither saved nor copied with it.

    >>> import torch
    >>> weight, doubled = torch.ones(1), Derived()
    >>> doubled.get([weight], lambda: 2 * weight).item()
    2.0
    >>> _ = weight.add_(1)
    >>> doubled.get([weight], lambda: 2 * weight).item()
    4.0
    """

    def __init__(self) -> None:
        self.cached: tuple[tuple[tuple[int, int], ...], Value] | None = None  # (which weights, the value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Derived[Value]":
        return Derived()

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Derived, ()

    def get(self, weights: Iterable[Tensor], compute: Callable[[], Value]) -> Value:
        """The value for these weights; a tensor has changed when its memory or its version is another one."""
        key = tuple([(weight.data_ptr(), weight._version) for weight in weights])
        cached = self.cached
        if cached is None or cached[0] != key:
            self.cached = cached = key, compute()
        return cached[1]
