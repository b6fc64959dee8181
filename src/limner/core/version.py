"""The installed version."""

import importlib.metadata

try:
    __version__ = importlib.metadata.version("limner")
except importlib.metadata.PackageNotFoundError:
    __version__ = "uninstalled"
