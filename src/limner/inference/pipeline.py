"""`Pipeline`: captions files, images or arrays with a run or a packed model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import isfinite
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from limner import shipped
from limner.core.files import sha256
from limner.core.torch_free import Caption, Failure, Source
from limner.core.types import BOS, EOS, PAD, Captions, Features, Layout, Pixels
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.confidence import load_calibration
from limner.decode.ensemble import Ensemble, EnsembleInputs, Inputs, check_same_vocabulary
from limner.decode.options import EQUAL_WEIGHTS, Averaging, Beam, Decoding, media_per_search, with_options
from limner.encoders.encoder import Encoder
from limner.inference.batching import caption_in_batches, check_several_sources
from limner.runs.clip_search import search_clips
from limner.runs.resolve import open_package, resolve_model
from limner.runs.run import Run, load_ensemble_members, load_run
from limner.runs.trained_media import clip_method_of

__all__ = ["Caption", "Failure", "Pipeline", "Source", "frames_of"]


class Pipeline:
    """Captions images and clips with a run or a packed model, or with an ensemble of them.

    `limner.load` returns one for these models.

    >>> pipeline = Pipeline.load("runs/mine")
    >>> caption = pipeline.caption("photo.jpg", beam=3)
    >>> caption.attention.shape[1:]  # frames, rows and columns of cells
    (1, 4, 4)
    """

    def __init__(
        self,
        run: Run,
        device: str = "cpu",
        frames: int | None = None,
        others: Sequence["Pipeline"] = (),
        averaging: Averaging = EQUAL_WEIGHTS,
        clip: str | None = None,
        calibrated: bool = True,
    ):
        """`frames` are sampled from a clip (None: as in training); `others` are the other members of an ensemble.

        `clip` says how a captioner of images reads clips: "consensus" (the default), "mosaic" or "middle" (see
        `limner.decode.clip_options`).  `calibrated` False leaves the run's calibration unread.
        Raises ValueError when the run has no encoder for raw media, or the members have different vocabularies, and for
        a `clip` that the run does not have.
        """
        if run.encoder is None:
            raise ValueError(f"{run.folder} was trained on features without a known encoder; it cannot read raw media")
        self.run, self.device = run, device
        self.frames = frames or run.recipe.frames
        self.encoder: Encoder = run.encoder.to(device).eval()
        self._run_encoder = self.encoder.inference_form()
        self.model = run.model.to(device).eval()
        self.vocabulary = run.vocabulary
        self.others = tuple(others)
        self.calibration = load_calibration(run.folder) if calibrated and not self.others else None
        self.clip = clip_method_of([run, *(member.run for member in others)], clip)
        if self.others:
            check_same_vocabulary([(str(member.run.folder), member.vocabulary) for member in (self, *self.others)])
            members = [self.model, *(other.model for other in self.others)]
            self.model = Ensemble(members, averaging).to(device).eval()

    @classmethod
    def load(
        cls,
        run: str | PathLike[str] | None = None,
        encoder: str = "",
        device: str = "cpu",
        frames: int | None = None,
        others: Sequence[str | PathLike[str]] = (),
        averaging: Averaging = EQUAL_WEIGHTS,
        clip: str | None = None,
    ) -> "Pipeline":
        """Load a run folder, or a packed model by its folder or hub id; None is the model that comes with limner.

        `encoder` replaces the path or hub id of a pretrained encoder that has moved; `frames` are sampled from a clip
        (None: as in training).  `others` are the other runs of an ensemble; `encoder` is used for those with the same
        encoder too.  `clip` is how a captioner of images reads clips (None: by consensus of the frames).
        Raises FileNotFoundError when a run is missing, ValueError when it is damaged.
        """
        first = load_run(resolve_model(shipped.model() if run is None else run), encoder)
        more = load_ensemble_members(first, [resolve_model(other) for other in others], encoder)
        members = [cls(other, device, frames) for other in more]
        return cls(first, device, frames, members, averaging, clip)

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], device: str = "cpu", frames: int | None = None) -> "Pipeline":
        """Load a packed model (`limner pack`) by its folder or hub id; the hash of every file is checked first.

        Raises ValueError when a file was changed, could execute code, or cannot be fetched.
        """
        return cls(load_run(open_package(source)), device, frames)

    @property
    def name(self) -> str:
        """Path of the run folder."""
        return str(self.run.folder)

    @property
    def decoding(self) -> Beam:
        """Beam search of the run's recipe."""
        return self.run.recipe.beam

    @property
    def sampling(self) -> FrameSampling:
        """How frames are taken from a clip."""
        return self.run.recipe.sampling.with_frames(self.frames)

    def fingerprint(self) -> str:
        """Hex digest of the weights."""
        return sha256(self.run.folder / "model.safetensors")

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip: a path, PIL image, encoded bytes, or RGB uint8 array (H,W,3) or (T,H,W,3).

        `decoding` None is the recipe's; `options` change it: `beam=5`, `n_best=3`, `max_length=12` and the other fields
        of `Beam` and `Rules`.
        Raises MediaError (a ValueError) when the source cannot be read, TypeError when it is not a single image or
        clip.
        """
        notes: list[str] = []
        search = with_options(decoding or self.run.recipe.decoding, **options)
        return replace(self.decode([self.read(source, notes)], search)[0], notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, in order: yields (source, Caption), or (source, Failure) if it cannot be read.

        `batch_size` is the number of frames that go through the encoder together: one per image, all sampled frames of
        a clip; it is lowered for constrained search.  `decoding` and `options` as in `caption`.
        """
        check_several_sources(sources)
        search = with_options(decoding or self.run.recipe.decoding, **options)
        search = search.bind(self.vocabulary)  # raises for unknown words before anything is read
        size = media_per_search(search, batch_size)
        return caption_in_batches(sources, self.read, lambda pixels: self.decode(pixels, search), size)

    def read(self, source: Source, notes: list[str]) -> tuple[torch.Tensor, ...]:
        """Read and preprocess a source: frames (T, 3, h, w), one tensor per ensemble member.

        A line is added to `notes` for damage that was skipped.  Raises MediaError when the source cannot be read.
        """
        own = self.encoder.preprocess(frames_of(source, self.sampling, notes, self.encoder.reading_side()))
        return (own, *(pixels for other in self.others for pixels in other.read(source, [])))

    def decode(self, pixels: Sequence[tuple[torch.Tensor, ...]], decoding: Decoding) -> list[Caption]:
        """Caption sources that `read` has returned, all of one shape, together, with confidences if calibrated."""
        captions, pooled = self.captions_and_pooled(pixels, decoding)
        if self.calibration is None:
            return captions
        bound = decoding.bind(self.vocabulary)
        return self.calibration.rate(captions, pooled, bound, len(pixels[0][0]), self.clip == "mosaic")

    def captions_and_pooled(
        self, pixels: Sequence[tuple[torch.Tensor, ...]], decoding: Decoding
    ) -> tuple[list[Caption], Float[np.ndarray, "B D"]]:
        """Caption media of equal shapes (see `read`), and return the mean over the cells of each medium too."""
        members = (self, *self.others)
        stacked = [Pixels(torch.stack(part).to(self.device)) for part in zip(*pixels, strict=True)]
        features = [member.encode(part) for member, part in zip(members, stacked, strict=True)]
        inputs: Inputs = EnsembleInputs(tuple(features)) if self.others else features[0]
        options = decoding.bind(self.vocabulary)
        captions = self.to_captions(search_clips(self.model, inputs, options, self.clip), features[0].layout)
        groups = [captions[i : i + options.n_best] for i in range(0, len(captions), options.n_best)]
        # where a search found fewer than n_best captions, the rest have the log-probability -inf
        best = [replace(best, others=tuple(each for each in more if isfinite(each.logprob))) for best, *more in groups]
        return best, features[0].pooled.float().cpu().numpy()

    def pooled(self, pixels: Sequence[torch.Tensor]) -> Float[np.ndarray, "B D"]:
        """The mean over the cells of media with preprocessed frames (T, 3, h, w) of equal shapes."""
        return self.encode(Pixels(torch.stack([*pixels]).to(self.device))).pooled.float().cpu().numpy()

    @torch.no_grad()
    def encode(self, pixels: Pixels) -> Features:
        """Return the encoder's features of preprocessed frames."""
        return self._run_encoder(pixels)

    def to_captions(self, output: Captions, layout: Layout) -> list[Caption]:
        """Convert the output of a search, token ids and attention, into captions with words and maps."""
        captions = []
        for ids, logprob, weights in zip(
            output.tokens.tolist(), output.logprob.tolist(), output.attention.float().cpu().numpy(), strict=True
        ):
            finished = EOS in ids
            tokens = ids[: ids.index(EOS)] if finished else ids
            steps = [step for step, i in enumerate(tokens) if i not in (PAD, BOS)]  # converted models may predict them
            words = tuple(self.vocabulary.decode([tokens[step]]) for step in steps)
            maps = weights[steps].reshape(len(steps), *layout)
            captions.append(Caption(self.vocabulary.decode(tokens), logprob, words, maps, finished))
        return captions
