"""Environment variables in recipes: `${LIMNER_DATA:-../shared/data}/flickr8k`."""

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def substitute(
    tree: Any, skip: Collection[str] = (), environment: Mapping[str, str] = os.environ, place: str = ""
) -> Any:
    """A recipe's plain dicts, lists and values with every `${NAME}` in a string replaced by the variable's value.

    `${NAME:-default}` stands for the default when the variable is not set or empty, as in a shell.  Fields whose dotted
    names are in `skip` stay as they are.  Raises ValueError, naming field and variable, for a variable that is not set
    and has no default.

    >>> substitute({"data": {"media": "${LIMNER_DATA:-data}/images"}}, environment={"LIMNER_DATA": "/disk"})
    {'data': {'media': '/disk/images'}}
    """
    if place in skip and place:
        return tree
    if isinstance(tree, Mapping):
        return {key: substitute(value, skip, environment, f"{place}.{key}".lstrip(".")) for key, value in tree.items()}
    if isinstance(tree, list):
        return [substitute(value, skip, environment, f"{place}.{k}".lstrip(".")) for k, value in enumerate(tree)]
    if not isinstance(tree, str):
        return tree

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if default is None and not environment.get(name):
            raise ValueError(
                f"{place}: the environment variable {name} is not set: set it, or give a default as in "
                f"${{{name}:-folder}}"
            )
        return environment.get(name) or default

    return _VARIABLE.sub(value, tree)
