"""PyAV, with FFmpeg inside, reads clips, cameras and images of 16 bits.  limner-engine leaves it to be asked for."""

from importlib.util import find_spec


class MissingPyAvError(ValueError):
    """Raised when a file needs PyAV, which is not installed; the message says what to install."""


def require_pyav() -> None:
    """Check that PyAV is installed.  Raises MissingPyAvError, which names what to install."""
    if find_spec("av") is None:
        raise MissingPyAvError("clips and images of 16 bits need PyAV: pip install 'limner-engine[clips]'")
