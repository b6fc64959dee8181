"""`Registry`: a dictionary of all entries of one kind, by the names that recipes and commands use."""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

Entry = TypeVar("Entry")


class UnknownName(ValueError):
    """Raised for a name that no registry entry has."""


class Registry(dict[str, Entry], Generic[Entry]):
    """A dictionary {name: entry} of one kind.  An unknown name raises UnknownName, which lists the known ones.

    >>> shapes = Registry("shape", {"square": 4})
    >>> shapes.add("triangle", 3)
    >>> shapes["triangle"]
    3
    >>> shapes["circle"]
    Traceback (most recent call last):
    limner.core.registry.UnknownName: unknown shape 'circle'; known are square, triangle
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.kind = kind

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry.  Raises ValueError when a different entry already has the name."""
        if name in self and self[name] != entry:
            raise ValueError(f"there already is a {self.kind} called {name!r}: choose another name")
        self[name] = entry

    def __missing__(self, name: str) -> Entry:
        raise UnknownName(f"unknown {self.kind} {name!r}; known are {', '.join(self)}")


class Buildable(NamedTuple):
    """A registry entry that a recipe configures."""

    config: type  # a frozen dataclass with a literal field `name`
    build: type  # the class that is constructed from the config


def defining_package(entry: object) -> str:
    """Return the name of the package that defines an entry: "limner" or that of a plug-in.

    >>> defining_package(Registry)
    'limner'
    """
    target = entry.build if isinstance(entry, Buildable) else entry
    target = getattr(target, "func", target)  # functools.partial holds the function in `func`
    return getattr(target, "__module__", "limner").partition(".")[0]
