"""Fields changed by dotted names, as `--stages.0.lr 1e-4` does.  Needs no PyTorch, unlike recipes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from limner.core.messages import short_repr
from limner.core.untrusted import load_yaml

Options = TypeVar("Options")


def parse_value(name: str, text: str) -> Any:
    """The value of an override as YAML reads it; `name` is for the error.

    >>> parse_value("stages.0.betas", "[0.9, 0.98]")
    [0.9, 0.98]
    """
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError(
            f"--{name} {text}: it cannot be read in this locale, whose encoding is {sys.getfilesystemencoding()}; "
            "set PYTHONUTF8=1, or rename what is not UTF-8"
        )
    try:
        return load_yaml(text) if text else ""
    except yaml.YAMLError as error:
        raise ValueError(f"--{name} {text}: not a YAML value; put quotes inside the quotes") from error


def override(tree: Any, path: Sequence[str], value: Any, name: str, default: Any = None) -> Any:
    """A copy of `tree` with `value` at the dotted place; list items by number.  What `tree` leaves out begins as in
    `default`, and missing objects are made."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    tree = default if tree is None else tree
    if isinstance(tree, list):
        if not head.lstrip("-").isdigit() or not -len(tree) <= int(head) < len(tree):
            raise ValueError(f"{name}: the list has items 0 to {len(tree) - 1}, got '{head}'")
        index = int(head) % len(tree)
        inner = default[0] if isinstance(default, list) and default else None
        return [override(item, rest, value, name, inner) if i == index else item for i, item in enumerate(tree)]
    if tree is not None and not isinstance(tree, Mapping):
        raise ValueError(f"{name}: '{head}' is below a plain value, {short_repr(tree, 200)}")
    inner = default.get(head) if isinstance(default, Mapping) else None
    return {**(tree or {}), head: override((tree or {}).get(head), rest, value, name, inner)}


def override_options(options: Options, changes: Mapping[str, Any], where: str) -> Options:
    """A copy of a dataclass of options with fields changed by dotted names, checked as those of a recipe are.

    `where` is the name of the options in a recipe.  Raises ValueError that names the field, for a field that does not
    exist and for a value that is not valid.

    >>> from limner.decode.options import Beam
    >>> override_options(Beam(5), {"size": 3, "rules.max_length": 12}, "decoding").rules.max_length
    12
    """
    adapter = TypeAdapter(type(options))
    tree = adapter.dump_python(options)
    for name, value in changes.items():
        _check_name(type(options), name, where)
        tree = override(tree, name.split("."), value, f"{where}.{name}")
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # of __post_init__, which names its fields itself
            raise ValueError(str(first["ctx"]["error"])) from error
        name = ".".join([where, *_existing(first["loc"], tree)])
        raise ValueError(f"{name}: {first['msg']}, got {short_repr(first['input'], 200)}") from error


def _check_name(kind: Any, name: str, where: str) -> None:
    """Raise ValueError, which lists the fields, when a dataclass has no field of this dotted name."""
    for part in name.split("."):
        if not is_dataclass(kind):
            raise ValueError(f"{where} has no fields, so there is no '{part}' in it")
        hints = get_type_hints(kind)
        if part not in hints:
            inner = [field for field, hint in hints.items() if is_dataclass(hint) and part in get_type_hints(hint)]
            advice = f" (did you mean {where}.{inner[0]}.{part}?)" if inner else ""
            raise ValueError(f"{where} has no field '{part}'{advice}; it has {', '.join(hints)}")
        kind, where = hints[part], f"{where}.{part}"


def _existing(place: Sequence[str | int], tree: Any) -> list[str]:
    """The part of `place` that is in the tree: pydantic adds the names of union members."""
    names = []
    for part in place:
        if not (isinstance(tree, Mapping) and part in tree):
            break
        names.append(str(part))
        tree = tree[part]
    return names
