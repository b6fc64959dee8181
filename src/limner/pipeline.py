"""A run in use: files, pictures or arrays in, captions out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from limner.data.ahead import ahead
from limner.data.frames import UNIFORM, Sampling
from limner.data.media import MediaError, read, read_image
from limner.decode.ensemble import Average, Ensemble, Inputs, Together, share_words
from limner.decode.options import Beam, Decoding
from limner.decode.search import search
from limner.encoders.encoder import Encoder
from limner.packed import unpack
from limner.run import Run, load_run
from limner.types import BOS, EOS, PAD, Captions, Features, Layout, Medium, Pixels

Source = str | PathLike[str] | Medium | Image.Image | np.ndarray | bytes


@dataclass(frozen=True)
class Caption:
    """A sentence and where the model looked while saying each word."""

    text: str
    logprob: float  # natural log of the sentence's probability, its end included
    words: tuple[str, ...]  # what `attention` has a map for
    attention: np.ndarray  # (words, t, h, w), every word's map sums to 1
    finished: bool = True  # False: the length limit came before the end of the sentence
    others: tuple["Caption", ...] = ()  # the next best, or further ones drawn, where the decoding keeps several
    notes: tuple[str, ...] = ()  # what was damaged in the file, if it could be read all the same


@dataclass(frozen=True)
class Failure:
    """A medium that could not be captioned, and why."""

    source: str
    reason: str


class Pipeline:
    """`Pipeline.load("runs/x").caption("photo.jpg").text`"""

    def __init__(
        self,
        run: Run,
        device: str = "cpu",
        frames: int | None = None,
        others: Sequence["Pipeline"] = (),
        weights: Sequence[float] | None = None,
        average: Average = "probabilities",
    ):
        """`others` are the further members of an ensemble; `weights` and `average` are `Ensemble`'s.  Raises ValueError
        when they do not share a vocabulary."""
        if run.encoder is None:
            raise ValueError(f"{run.folder} was trained on features without a known encoder; it cannot read raw media")
        self.run, self.device = run, device
        self.frames = frames or run.recipe.frames
        self.encoder: Encoder = run.encoder.to(device).eval()
        self.model = run.model.to(device).eval()
        self.vocabulary = run.vocabulary
        self.others = tuple(others)
        if self.others:
            share_words([(str(member.run.folder), member.vocabulary) for member in (self, *self.others)])
            members = [self.model, *(other.model for other in self.others)]
            self.model = Ensemble(members, weights, average).to(device).eval()

    @classmethod
    def load(
        cls,
        run: str | PathLike[str],
        encoder: str = "",
        device: str = "cpu",
        frames: int | None = None,
        others: Sequence[str | PathLike[str]] = (),
        weights: Sequence[float] | None = None,
        average: Average = "probabilities",
    ) -> "Pipeline":
        """`run` is a run folder; `encoder` replaces the folder or hub id of a pretrained encoder that has moved;
        `frames` are sampled from a clip (None: as many as in training).  `others` are the run folders of an ensemble's
        further members."""
        members = [cls(load_run(Path(other)), device, frames) for other in others]
        return cls(load_run(Path(run), encoder), device, frames, members, weights, average)

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], device: str = "cpu", frames: int | None = None) -> "Pipeline":
        """A packed model (`limner pack`): its folder or hub id.  Every file is held against its hash first.

        Raises ValueError when one was changed, could execute code, or cannot be fetched.
        """
        return cls(load_run(unpack(source)), device, frames)

    def caption(self, source: Source, decoding: Decoding | None = None) -> Caption:
        """Caption one picture or clip: a path, PIL image, encoded bytes, or RGB uint8 array (H,W,3) or (T,H,W,3).

        Raises MediaError (a ValueError) when it cannot be read.
        """
        notes: list[str] = []
        return replace(self._decode([self._pixels(source, notes)], decoding)[0], notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many, in order; one that cannot be read gives a Failure and does not stop the others.

        `batch_size` is the number of pictures that go through the encoder together; a clip counts for all its frames.
        """
        waiting: list[tuple[Source, _Read]] = []
        for item in ahead(self._try, sources, window=batch_size, workers=2):
            waiting.append(item)
            together = sum(1 if done.pixels is None else len(done.pixels[0]) for _, done in waiting)
            if together >= batch_size:
                yield from self._flush(waiting, decoding)
                waiting = []
        yield from self._flush(waiting, decoding)

    def _flush(
        self, waiting: Sequence[tuple[Source, "_Read"]], decoding: Decoding | None
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        found: dict[int, Caption | Failure] = {
            index: item.failure for index, (_, item) in enumerate(waiting) if item.failure is not None
        }
        for indices in _alike([item.pixels for _, item in waiting]):
            pixels = [some for index in indices if (some := waiting[index][1].pixels) is not None]
            for index, caption in zip(indices, self._decode(pixels, decoding), strict=True):
                found[index] = replace(caption, notes=waiting[index][1].notes)
        return ((source, found[index]) for index, (source, _) in enumerate(waiting))

    def _try(self, source: Source) -> "_Read":
        notes: list[str] = []
        try:
            return _Read(self._pixels(source, notes), tuple(notes))
        except (ValueError, OSError) as error:  # MediaError, or a size that the encoder's preprocessing refuses
            return _Read(failure=Failure(_name(source), str(error)))

    def _pixels(self, source: Source, notes: list[str]) -> tuple[torch.Tensor, ...]:
        """What each member sees of it."""
        mine = self.encoder.preprocess(frames_of(source, self.frames, self.run.recipe.sampling, notes))
        return (mine, *(pixels for other in self.others for pixels in other._pixels(source, [])))

    def _decode(self, pixels: Sequence[tuple[torch.Tensor, ...]], decoding: Decoding | None) -> list[Caption]:
        members = (self, *self.others)
        stacked = [Pixels(torch.stack(part).to(self.device)) for part in zip(*pixels, strict=True)]
        features = [member.encode(part) for member, part in zip(members, stacked, strict=True)]
        inputs: Inputs = Together(tuple(features)) if self.others else features[0]
        options = (decoding or self.run.recipe.decoding).bind(self.vocabulary)
        found = self.read(search(self.model, inputs, options), features[0].layout)
        groups = [found[i : i + options.keep] for i in range(0, len(found), options.keep)]
        return [replace(best, others=tuple(it for it in more if isfinite(it.logprob))) for best, *more in groups]

    @torch.no_grad()
    def encode(self, pixels: Pixels) -> Features:
        return self.encoder(pixels)

    def read(self, found: Captions, layout: Layout) -> list[Caption]:
        """Token ids -> sentences, words and their maps."""
        captions = []
        for ids, logprob, weights in zip(
            found.tokens.tolist(), found.logprob.tolist(), found.attention.float().cpu().numpy(), strict=True
        ):
            finished = EOS in ids
            spoken = ids[: ids.index(EOS)] if finished else ids
            shown = [place for place, i in enumerate(spoken) if i not in (PAD, BOS)]  # imported models may say them
            words = tuple(self.vocabulary.decode([spoken[place]]) for place in shown)
            maps = weights[shown].reshape(len(shown), *layout)
            captions.append(Caption(self.vocabulary.decode(spoken), logprob, words, maps, finished))
        return captions


class _Read(NamedTuple):
    """What became of a source: pixels, or a failure."""

    pixels: tuple[torch.Tensor, ...] | None = None
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


def frames_of(source: Source, frames: int, sampling: Sampling = UNIFORM, notes: list[str] | None = None) -> np.ndarray:
    """Anything a user may hold -> uint8 (T, H, W, 3) RGB."""
    if isinstance(source, np.ndarray) and source.ndim == 4:
        if source.dtype != np.uint8 or source.shape[3] != 3 or 0 in source.shape:
            raise MediaError(
                f"<ndarray>: a clip's array is uint8 RGB (T,H,W,3) in [0, 255], got {source.dtype} {source.shape}"
            )
        return source
    if isinstance(source, (np.ndarray, Image.Image, bytes)):
        return read_image(source)
    return read(source, frames, sampling, notes)


def with_beam(decoding: Beam, size: int | None = None, length_penalty: float | None = None, **rules: object) -> Beam:
    """`decoding` with the given values replaced; None leaves a value as it is."""
    given = {name: value for name, value in rules.items() if value is not None}
    return replace(
        decoding,
        size=decoding.size if size is None else size,
        length_penalty=decoding.length_penalty if length_penalty is None else length_penalty,
        rules=replace(decoding.rules, **given) if given else decoding.rules,  # type: ignore[arg-type]
    )


def _alike(read: Sequence[tuple[torch.Tensor, ...] | None]) -> list[list[int]]:
    """The places of those that can be stacked, for every member; None stands in no group."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for place, item in enumerate(read):
        if item is not None:
            groups.setdefault(tuple(part.shape for part in item), []).append(place)
    return list(groups.values())


def _name(source: Source) -> str:
    if isinstance(source, Medium):
        return source.path
    return str(source) if isinstance(source, (str, PathLike)) else f"<{type(source).__name__}>"
