"""The nouns of the toolkit that need no tensors; what they hold is plain Python and NumPy.

Whoever reads only these starts without PyTorch: the engine of exported models, and the commands before they know what
they are asked for.
"""

from dataclasses import dataclass
from os import PathLike

import numpy as np
from PIL import Image

PAD, BOS, EOS, UNK = 0, 1, 2, 3


@dataclass(frozen=True)
class Medium:
    """One picture or clip and what is known about it.  `start` and `end` cut a clip, in seconds; `frame_seed` is
    the seed of a random choice among its frames (None: the choice is deterministic)."""

    id: str
    path: str
    split: str = ""
    references: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    frame_seed: int | None = None


Source = str | PathLike[str] | Medium | Image.Image | np.ndarray | bytes


@dataclass(frozen=True, repr=False)
class Caption:
    """A sentence, and where the model looked for each of its words."""

    text: str
    logprob: float  # natural log of the sentence's probability, its end included
    words: tuple[str, ...]  # what `attention` has a map for
    attention: np.ndarray  # (words, t, h, w), every word's map sums to 1
    finished: bool = True  # False: the length limit came before the end of the sentence
    others: tuple["Caption", ...] = ()  # the next best, or further ones drawn, where the decoding keeps several
    notes: tuple[str, ...] = ()  # what was damaged in the file, if it could be read all the same

    def __repr__(self) -> str:
        maps = f", attention {'x'.join(map(str, self.attention.shape))}" if len(self.words) else ""
        others = f", {len(self.others)} others" if self.others else ""
        return f"Caption({self.text!r}, logprob={self.logprob:.2f}{maps}{others})"


@dataclass(frozen=True)
class Failure:
    """A medium that could not be captioned, and why."""

    source: str
    reason: str
