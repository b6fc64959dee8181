"""Data types that need no PyTorch: special token ids, Medium, Source, Caption, Failure.

The ONNX engine and the start of every command import only these, so that they start without loading PyTorch.
"""

from dataclasses import dataclass
from os import PathLike

import numpy as np
from PIL import Image

PAD, BOS, EOS, UNK = 0, 1, 2, 3


@dataclass(frozen=True)
class Medium:
    """One image or video clip with its reference captions."""

    id: str
    path: str
    split: str = ""  # "train", "val", "test" ...
    references: tuple[str, ...] = ()
    start: float | None = None  # seconds: a clip begins here (None: at the beginning of the file) ...
    end: float | None = None  # ... and ends here (None: at the end of the file)
    frame_seed: int | None = None  # seed for a random choice of frames (None: the choice is deterministic)
    part: str = ""  # label of its data set, with which the id begins (LABEL/ID), in a recipe with several data sets

    @property
    def own_id(self) -> str:
        """The id in its data set: `id` without the label in front.

        >>> Medium("coco/42", "42.jpg", part="coco").own_id
        '42'
        """
        return self.id.removeprefix(f"{self.part}/") if self.part else self.id


@dataclass(frozen=True)
class WithContext:
    """A source with words that are known about it, for models that take a request; other models refuse it."""

    source: "Source"
    text: str


Source = str | PathLike[str] | Medium | Image.Image | np.ndarray | bytes | WithContext


@dataclass(frozen=True, repr=False)
class Caption:
    """A caption with its log-probability and one attention map per word."""

    text: str
    logprob: float  # natural log of the caption's probability, the end token included
    words: tuple[str, ...]  # one word per map in `attention`
    attention: np.ndarray  # (words, t, h, w) float32; every word's map sums to 1
    finished: bool = True  # False: the length limit was reached before the end token
    others: tuple["Caption", ...] = ()  # the next best captions, or further samples, when n_best > 1
    notes: tuple[str, ...] = ()  # a line for each damaged part of the file that could be skipped
    confidence: float | None = None  # probability that people's captions agree; None: not calibrated (limner calibrate)
    unfamiliar: bool | None = None  # True: the picture is far from those of training; None: not calibrated

    def __repr__(self) -> str:
        maps = f", attention {'x'.join(map(str, self.attention.shape))}" if len(self.words) else ""
        others = f", {len(self.others)} others" if self.others else ""
        confidence = "" if self.confidence is None else f", confidence={self.confidence:.2f}"
        return f"Caption({self.text!r}, logprob={self.logprob:.2f}{confidence}{maps}{others})"


@dataclass(frozen=True)
class Failure:
    """A source that could not be captioned, and the reason."""

    source: str
    reason: str
    unreadable: bool = True  # False: it was read, and the model or the server gave no caption
    answer: str | None = None  # what a server answered in place of a caption, for example a refusal
