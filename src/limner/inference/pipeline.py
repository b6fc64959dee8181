"""A run in use: files, pictures or arrays in, captions out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import isfinite
from os import PathLike

import torch

from limner import shipped
from limner.core.files import sha256
from limner.core.torch_free import Caption, Failure, Source
from limner.core.types import BOS, EOS, PAD, Captions, Features, Layout, Pixels
from limner.data.frames import Sampling
from limner.data.media import frames_of
from limner.decode.ensemble import Average, Ensemble, EnsembleInputs, Inputs, share_words
from limner.decode.options import Beam, Decoding, together, with_beam
from limner.decode.search import search
from limner.encoders.encoder import Encoder
from limner.inference.batching import captions_of
from limner.runs.package import found, unpack
from limner.runs.run import Run, load_others, load_run

__all__ = ["Caption", "Failure", "Pipeline", "Source", "frames_of", "with_beam"]


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
        run: str | PathLike[str] | None = None,
        encoder: str = "",
        device: str = "cpu",
        frames: int | None = None,
        others: Sequence[str | PathLike[str]] = (),
        weights: Sequence[float] | None = None,
        average: Average = "probabilities",
    ) -> "Pipeline":
        """`run` is a run folder, or the folder or hub id of a packed model; None is the model that the package ships.

        `encoder` replaces the folder or hub id of a pretrained encoder that has moved; `frames` are sampled from a clip
        (None: as many as in training).  `others` are the runs of an ensemble's further members; those on the same
        encoder find it there too.  Raises ValueError or FileNotFoundError when a run is missing or damaged.
        """
        first = load_run(found(shipped.model() if run is None else run), encoder)
        more = load_others(first, [found(other) for other in others], encoder)
        members = [cls(other, device, frames) for other in more]
        return cls(first, device, frames, members, weights, average)

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], device: str = "cpu", frames: int | None = None) -> "Pipeline":
        """A packed model (`limner pack`): its folder or hub id.  Every file is held against its hash first.

        Raises ValueError when one was changed, could execute code, or cannot be fetch_from_hub.
        """
        return cls(load_run(unpack(source)), device, frames)

    @property
    def name(self) -> str:
        """What it is called: its folder."""
        return str(self.run.folder)

    @property
    def decoding(self) -> Beam:
        """How it searches unless told otherwise."""
        return self.run.recipe.decoding

    @property
    def sampling(self) -> Sampling:
        """How it takes frames from a clip."""
        return self.run.recipe.sampling

    def fingerprint(self) -> str:
        """Hex digest of what it has learnt."""
        return sha256(self.run.folder / "model.safetensors")

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
        With words that must appear it is fewer.
        """
        options = (decoding or self.decoding).bind(self.vocabulary)  # what cannot be is said before anything is read
        size = together(options, batch_size)
        yield from captions_of(sources, self._pixels, lambda pixels: self._decode(pixels, options), size)

    def _pixels(self, source: Source, notes: list[str]) -> tuple[torch.Tensor, ...]:
        """What each member sees of it."""
        mine = self.encoder.preprocess(frames_of(source, self.frames, self.sampling, notes))
        return (mine, *(pixels for other in self.others for pixels in other._pixels(source, [])))

    def _decode(self, pixels: Sequence[tuple[torch.Tensor, ...]], decoding: Decoding | None) -> list[Caption]:
        members = (self, *self.others)
        stacked = [Pixels(torch.stack(part).to(self.device)) for part in zip(*pixels, strict=True)]
        features = [member.encode(part) for member, part in zip(members, stacked, strict=True)]
        inputs: Inputs = EnsembleInputs(tuple(features)) if self.others else features[0]
        options = (decoding or self.decoding).bind(self.vocabulary)
        found = self.read(search(self.model, inputs, options), features[0].layout)
        groups = [found[i : i + options.n_best] for i in range(0, len(found), options.n_best)]
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
