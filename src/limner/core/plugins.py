"""Plug-ins: packages that register captioners, encoders, data sets, metrics, objectives or searches.

An installed package declares an entry point of the group `limner.plugins`, or a command loads a package by name
(`limner --plugin my_package train recipe.yaml`).  Recipes and runs cannot make limner import code.
"""

import importlib
from functools import lru_cache

GROUP = "limner.plugins"


def load_plugin(package: str) -> None:
    """Import a plug-in by its package name.  Raises ValueError when Python finds no such package."""
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
    """Load all plug-ins that installed packages declare -> the names of their entry points.

    Only the first call loads them.
    """
    from importlib.metadata import entry_points  # slow to import, and `limner --help` names no plug-in

    declared = entry_points(group=GROUP)
    for entry_point in declared:
        entry_point.load()
    return tuple(entry_point.name for entry_point in declared)
