"""The installed version of limner, `__version__`."""

import importlib.metadata

try:
    __version__ = importlib.metadata.version("limner")
except importlib.metadata.PackageNotFoundError:
    __version__ = "uninstalled"
