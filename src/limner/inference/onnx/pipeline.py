"""`OnnxPipeline`: captions files, images or arrays with an exported captioner, as `limner.Pipeline` does.

OnnxPipeline.load("model.onnx/").caption("photo.jpg").text
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import UInt8

from limner.core.torch_free import BOS, EOS, PAD, Caption, Failure, Source
from limner.data.media import frames_of
from limner.decode.clip_options import clip_method
from limner.decode.confidence import FILE as CALIBRATION
from limner.decode.confidence import load_calibration
from limner.decode.options import Beam, Decoding, with_options
from limner.decode.single_beam import FoundCaption
from limner.inference.batching import caption_in_batches, check_several_sources, source_name
from limner.inference.onnx.clips import search_media
from limner.inference.onnx.model import OnnxModel


class OnnxPipeline:
    """Captions images and clips with an exported captioner; the same interface as `Pipeline`."""

    def __init__(self, model: OnnxModel, frames: int | None = None, clip: str | None = None):
        """`frames` are sampled from a clip (None: as in training), and read as `clip` says (see `Pipeline`)."""
        self.model, manifest = model, model.manifest
        self.folder, self.vocabulary = model.folder, model.vocabulary
        self.frames = frames or manifest.frames
        self.clip = clip_method(manifest.media, clip, str(model.folder))
        self.sampling = manifest.sampling.with_frames(self.frames)
        self.decoding: Beam = manifest.decoding
        self.preprocess = manifest.preprocess
        self.calibration = load_calibration(model.folder) if CALIBRATION in manifest.files else None

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        frames: int | None = None,
        threads: int | None = None,
        clip: str | None = None,
    ) -> "OnnxPipeline":
        """Load a folder that `limner export` has written.

        `threads`: None is the number in OMP_NUM_THREADS, or else one; 0 is one per core.  Raises ValueError as
        `OnnxModel.load` does.
        """
        return cls(OnnxModel.load(folder, threads), frames, clip)

    @property
    def name(self) -> str:
        """Path of the exported folder."""
        return str(self.folder)

    def fingerprint(self) -> str:
        """Hex digest of the graphs and the vocabulary."""
        return self.model.manifest.fingerprint

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip: a path, PIL image, encoded bytes, or RGB uint8 array (H,W,3) or (T,H,W,3).

        `options` change the search, as in `Pipeline.caption`.
        Raises MediaError (a ValueError) when the source cannot be read, ValueError for a search that needs PyTorch.
        """
        notes: list[str] = []
        search = with_options(decoding or self.decoding, **options)
        return replace(self.decode([self.read(source, notes)], search)[0], notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, in order: yields (source, Caption), or (source, Failure) if it cannot be read.

        `batch_size` is the number of frames that are read, and whose captions are decoded, together: one per image, all
        sampled frames of a clip.
        """
        check_several_sources(sources)
        search = with_options(decoding or self.decoding, **options)
        return caption_in_batches(sources, self.read, lambda group: self.decode(group, search), batch_size)

    def read(self, source: Source, notes: list[str]) -> tuple[UInt8[np.ndarray, "T h w 3"]]:
        """Read and preprocess a source; see `pixels`."""
        return (self.pixels(source, notes),)

    def decode(self, pixels: Sequence[tuple[np.ndarray]], decoding: Decoding | None) -> list[Caption]:
        """Caption sources that `read` has returned, all of one shape, together."""
        media = [frames for (frames,) in pixels]
        searched = ([self._to_caption(each) for each in captions] for captions in self.search(media, decoding))
        found = [replace(best, others=tuple(more)) for best, *more in searched]
        if self.calibration is None or not self.calibration.reads(len(media[0]), self.clip == "mosaic"):
            return found
        pooled = np.stack([self.model.pooled(frames) for frames in media])
        bound = (decoding or self.decoding).bind(self.vocabulary)
        return self.calibration.rate(found, pooled, bound, len(media[0]), self.clip == "mosaic")

    def pixels(self, source: Source, notes: list[str]) -> UInt8[np.ndarray, "T h w 3"]:
        """Read and preprocess a source -> the encoder's input; a line is added to `notes` for damage that was skipped.

        Raises ValueError for a clip when the model reads images only, or the other way round.
        """
        frames = frames_of(source, self.sampling, notes, self.preprocess.reading_side)
        as_images = len(frames) == 1 or self.clip != "mosaic"
        if not (self.model.manifest.images if as_images else self.model.manifest.clips):
            other = "clips" if as_images else "images"
            raise ValueError(f"{source_name(source)}: {self.folder} was exported from a model that reads {other} only")
        return self.preprocess(frames)

    def search(
        self, media: Sequence[UInt8[np.ndarray, "T h w 3"]], decoding: Decoding | None = None
    ) -> list[list[FoundCaption]]:
        """Search for the `n_best` best captions of each medium, best first, given frames of equal shapes."""
        options = require_supported((decoding or self.decoding).bind(self.vocabulary))
        return search_media(self.model, media, options, self.clip)

    def _to_caption(self, hypothesis: FoundCaption) -> Caption:
        """Convert token ids and attention into a caption with words and maps."""
        ids = hypothesis.tokens.tolist()
        finished = EOS in ids
        tokens = ids[: ids.index(EOS)] if finished else ids
        steps = [step for step, i in enumerate(tokens) if i not in (PAD, BOS)]  # converted models may predict them
        words = tuple(self.vocabulary.decode([tokens[step]]) for step in steps)
        h, w = self.model.manifest.layout
        cells = hypothesis.attention.shape[1]
        maps = hypothesis.attention[steps].astype(np.float32).reshape(len(steps), cells // (h * w), h, w)
        return Caption(self.vocabulary.decode(tokens), hypothesis.logprob, words, maps, finished)


def require_supported(options: Decoding) -> Beam:
    """Return the options.  Raises ValueError for a search that the ONNX engine does not have."""
    if not isinstance(options, Beam):
        raise ValueError("the ONNX engine has beam search only; sampling (--sample) needs the PyTorch engine")
    if options.groups > 1 or options.must:
        raise ValueError(
            "the ONNX engine has no diverse and no constrained beams (--decoding.groups, --must): use PyTorch's"
        )
    if options.predict_start:
        raise ValueError(
            "an exported model does not predict its first token (--decoding.predict_start): use the PyTorch engine"
        )
    return options
