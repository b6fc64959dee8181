"""`Registry`: everything of one kind by the name that recipes and commands use; plug-ins add to it."""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

Entry = TypeVar("Entry")


class UnknownName(ValueError):
    """A name that no registry entry has."""


class Registry(dict[str, Entry], Generic[Entry]):
    """A dictionary of one kind of thing.  Looking up an unknown name lists the known ones.

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
        """Raises ValueError when another entry has the name."""
        if name in self and self[name] != entry:
            raise ValueError(f"there already is a {self.kind} called {name!r}: choose another name")
        self[name] = entry

    def __missing__(self, name: str) -> Entry:
        raise UnknownName(f"unknown {self.kind} {name!r}; known are {', '.join(self)}")


class Buildable(NamedTuple):
    """An entry that a recipe configures: a frozen dataclass with a unique `name`, and what is made of it."""

    config: type
    build: type


def origin(entry: object) -> str:
    """The package that an entry comes from: "limner", or a plug-in's.

    >>> origin(Registry)
    'limner'
    """
    found = entry.build if isinstance(entry, Buildable) else entry
    found = getattr(found, "func", found)  # of functools.partial
    return getattr(found, "__module__", "limner").partition(".")[0]
