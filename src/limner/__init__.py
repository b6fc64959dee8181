"""limner: train, run, evaluate and explain image and video captioners."""

from typing import Any

from limner.core.version import __version__

__all__ = ["Caption", "Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """`from limner import Pipeline` loads PyTorch only when it is asked for."""
    if name in ("Pipeline", "Caption"):
        from limner.inference import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"limner has no attribute '{name}'")
