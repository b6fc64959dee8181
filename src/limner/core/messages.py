"""Values in messages, cut to a length: a file of others may hold very long ones."""

from collections.abc import Mapping
from typing import Any


def short_repr(value: Any, width: int = 80, depth: int = 3) -> str:
    """At most `width` characters that show a value; unlike `repr`, it never walks through all of a nested value.

    >>> short_repr({"a": [1, 2, 3, 4, 5, 6, 7]}), short_repr("x" * 100, 10)
    ("{'a': [1, 2, 3, 4, 5, 6, ...]}", "'xxxxxx...")
    """
    text = _shown(value, width, depth)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _shown(value: Any, width: int, depth: int) -> str:
    if isinstance(value, (str, bytes)):
        return repr(value[: width + 1])
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return repr(value)
    opening, closing = {list: ("[", "]"), tuple: ("(", ")")}.get(type(value), ("{", "}"))
    if not depth:
        return f"{opening}...{closing}" if value else opening + closing
    first = [item for item, _ in zip(value.items() if isinstance(value, Mapping) else value, range(6), strict=False)]
    if isinstance(value, Mapping):
        shown = [f"{_shown(key, width, depth - 1)}: {_shown(item, width, depth - 1)}" for key, item in first]
    else:
        shown = [_shown(item, width, depth - 1) for item in first]
    return opening + ", ".join([*shown, *(["..."] if len(value) > len(first) else [])]) + closing
