"""An exported captioner in use: files, pictures or arrays in, captions out, as `limner.Pipeline` does it.

OnnxPipeline.load("model.onnx/").caption("photo.jpg").text
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import UInt8

from limner.core.torch_free import BOS, EOS, PAD, Caption, Failure, Source
from limner.data.media import frames_of
from limner.decode.options import Beam, Decoding, with_options
from limner.inference.batching import caption_in_batches, check_several_sources, source_name
from limner.inference.onnx.beam import OnnxHypothesis, OnnxStepOutput, State, beam, require_supported
from limner.inference.onnx.model import OnnxModel


class OnnxPipeline:
    def __init__(self, model: OnnxModel, frames: int | None = None):
        """`frames` are sampled from a clip (None: as many as in training)."""
        self.model, card = model, model.card
        self.folder, self.vocabulary = model.folder, model.vocabulary
        self.frames = frames or card.frames
        self.sampling = card.sampling.with_frames(self.frames)
        self.decoding: Beam = card.decoding
        self.preprocess = card.preprocess

    @classmethod
    def load(cls, folder: str | PathLike[str], frames: int | None = None, threads: int = 0) -> "OnnxPipeline":
        """A folder of `limner export`.  Raises ValueError that names what is wrong with it."""
        return cls(OnnxModel.load(folder, threads), frames)

    @property
    def name(self) -> str:
        """What it is called: its folder."""
        return str(self.folder)

    def fingerprint(self) -> str:
        """Hex digest of what it has learnt."""
        return self.model.card.fingerprint

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one picture or clip: a path, PIL image, encoded bytes, or RGB uint8 array (H,W,3) or (T,H,W,3).

        Raises MediaError (a ValueError) when it cannot be read.
        """
        notes: list[str] = []
        search = with_options(decoding or self.decoding, **options)
        return replace(self._decode(self.pixels(source, notes), search), notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many, in order; one that cannot be read gives a Failure and does not stop the others.

        Media are captioned one at a time; `batch_size` of them are read together.
        """
        check_several_sources(sources)
        search = with_options(decoding or self.decoding, **options)
        return caption_in_batches(
            sources,
            lambda source, notes: (self.pixels(source, notes),),
            lambda group: [self._decode(pixels, search) for (pixels,) in group],
            batch_size,
        )

    def pixels(self, source: Source, notes: list[str]) -> UInt8[np.ndarray, "T h w 3"]:
        """What the encoder sees of it; what was damaged is added to `notes`."""
        frames = frames_of(source, self.sampling, notes)
        if not (self.model.card.pictures if len(frames) == 1 else self.model.card.clips):
            other = "clips" if len(frames) == 1 else "pictures"
            raise ValueError(f"{source_name(source)}: {self.folder} was exported from a model that reads {other} only")
        return self.preprocess(frames)

    def search(self, pixels: UInt8[np.ndarray, "T h w 3"], decoding: Decoding | None = None) -> list[OnnxHypothesis]:
        """The best captions of preprocessed frames, best first."""
        options = require_supported((decoding or self.decoding).bind(self.vocabulary))
        memory, start = self.model.encode(pixels)

        def step(token: np.ndarray, state: State) -> OnnxStepOutput:
            return self.model.step(memory, token, state)

        return beam(step, start, options)

    def _decode(self, pixels: UInt8[np.ndarray, "T h w 3"], decoding: Decoding | None) -> Caption:
        best, *more = [self._read(found) for found in self.search(pixels, decoding)]
        return replace(best, others=tuple(more))

    def _read(self, found: OnnxHypothesis) -> Caption:
        """Token ids -> a sentence, words and their maps."""
        ids = found.tokens.tolist()
        finished = EOS in ids
        spoken = ids[: ids.index(EOS)] if finished else ids
        shown = [place for place, i in enumerate(spoken) if i not in (PAD, BOS)]  # imported models may say them
        words = tuple(self.vocabulary.decode([spoken[place]]) for place in shown)
        h, w = self.model.card.layout
        cells = found.attention.shape[1]
        maps = found.attention[shown].astype(np.float32).reshape(len(shown), cells // (h * w), h, w)
        return Caption(self.vocabulary.decode(spoken), found.logprob, words, maps, finished)
