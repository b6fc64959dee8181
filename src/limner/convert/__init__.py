"""Old checkpoints -> run folders.  `SYSTEMS` is what `limner convert --from` knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from limner.convert.show_attend_tell import convert

# (checkpoint, word map, run folder to write, transformers encoder or "", channel order) -> what was done, in words
SYSTEMS: dict[str, Callable[[Path, Path, Path, str, Literal["RGB", "BGR"]], str]] = {"show-attend-tell": convert}

__all__ = ["SYSTEMS"]
