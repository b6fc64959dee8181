"""Plug-ins: packages that add to limner's registries.

An installed package declares itself as an entry point of the group `limner.plugins`, or a command loads it by name
(`limner --plugin my_package train recipe.yaml`).  Recipes and runs never name code to import.
"""

import importlib
import importlib.metadata
from functools import lru_cache

GROUP = "limner.plugins"


def load_plugin(package: str) -> None:
    """Import a plug-in by its package name.  Raises ValueError when there is none by that name."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0] and error.name != package:
            raise
        raise ValueError(
            f"no plug-in {package!r}: it must be a package that Python can import (installed, or on PYTHONPATH)"
        ) from error


@lru_cache(maxsize=1)
def load_entry_points() -> tuple[str, ...]:
    """Load the plug-ins that installed packages declare, once -> their names."""
    found = importlib.metadata.entry_points(group=GROUP)
    for point in found:
        point.load()
    return tuple(point.name for point in found)
