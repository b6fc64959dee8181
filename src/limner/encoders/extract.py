"""Media -> encoder -> feature store: read ahead in threads, bad media skipped and listed, resumed by a rerun."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.types import Layout, Medium, Pixels
from limner.data.augmentations import AUGMENTATIONS
from limner.data.frames import FrameSampling
from limner.data.media import is_clip, read_medium
from limner.data.prefetch import prefetch
from limner.data.store import Float16RangeError, StoreWriter, entry_key
from limner.encoders.encoder import Encoder, same_shape


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did, in entries (one medium in one view)."""

    written: int
    present: int  # found in the store and kept
    failures: tuple[tuple[str, str], ...]  # (id, reason), one per medium
    mended: tuple[str, ...] = ()  # damaged media that could be read all the same, a line each

    def __str__(self) -> str:
        mended = f", {len(self.mended)} damaged but read" if self.mended else ""
        return (
            f"{self.written} entries written, {self.present} already there, {len(self.failures)} media failed{mended}"
        )


class Job(NamedTuple):
    """One medium in one view."""

    medium: Medium
    augmentation: str


class Loaded(NamedTuple):
    """A job and its preprocessed frames, or the reason why there are none."""

    job: Job
    frames: Float[Tensor, "T 3 h w"] | None
    reason: str
    notes: tuple[str, ...] = ()  # what was damaged


def extract(
    media: Sequence[Medium],
    encoder: Encoder,
    out: Path,
    augmentations: Sequence[str] = ("full",),
    *,
    view_splits: Sequence[str] = ("train",),
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    sampling: FrameSampling = FrameSampling(),
) -> ExtractReport:
    """Encode every medium once per view into the store at `out`; all media in the first view come first.

    Views other than "full" are made only for media of `view_splits`.  Frames of clips are chosen by `sampling`;
    `batch_size` counts frames that go through the encoder together, of one clip at least.
    `progress` is told (done, total) entries.  Entries that are there already are kept, so the same call continues a
    killed run.  Raises ValueError for unknown augmentations, duplicate ids, or a store of another encoder; a bad
    medium is never fatal.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    jobs = _jobs(media, augmentations, view_splits)
    encoder = encoder.to(device).eval()
    writer = StoreWriter(out, encoder.provenance())
    todo = [job for job in jobs if entry_key(job.medium.id, job.augmentation) not in writer]
    before, present = len(writer), len(jobs) - len(todo)
    done = present
    failures: dict[str, str] = {}
    if progress:
        progress(done, len(jobs))
    mended: dict[str, None] = {}
    clips = any(is_clip(job.medium.path) for job in todo)
    window = max(workers, 2 * batch_size // (sampling.frames if clips else 1))
    reading = prefetch(lambda job: _load(job, encoder, sampling), todo, window=window, workers=workers)
    for chunk in _chunks((found for _, found in reading), batch_size):
        mended |= dict.fromkeys(note for item in chunk for note in item.notes)
        for job, grid, layout, boxes, reason in _encode(chunk, encoder, device):
            try:
                if grid is None:
                    failures.setdefault(job.medium.id, reason)
                else:
                    writer.add(job.medium.id, job.augmentation, grid, layout, boxes)
            except Float16RangeError as error:
                failures.setdefault(job.medium.id, str(error))
        done += len(chunk)
        if progress:
            progress(done, len(jobs))
    for id, reason in failures.items():
        writer.fail(id, reason)
    writer.finish()
    return ExtractReport(len(writer) - before, present, tuple(failures.items()), tuple(mended))


def _jobs(media: Sequence[Medium], augmentations: Sequence[str], view_splits: Sequence[str]) -> list[Job]:
    unknown = [augmentation for augmentation in augmentations if augmentation not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"unknown augmentations {unknown}; known are {', '.join(AUGMENTATIONS)}")
    seen: set[str] = set()
    for medium in media:
        if medium.id in seen:
            raise ValueError(f"the id {medium.id!r} occurs twice ({medium.path}); ids must be unique")
        seen.add(medium.id)
    return [
        Job(medium, augmentation)
        for augmentation in dict.fromkeys(augmentations)
        for medium in media
        if augmentation == "full" or medium.split in view_splits
    ]


def _load(job: Job, encoder: Encoder, sampling: FrameSampling) -> Loaded:
    notes: list[str] = []
    try:
        pixels = encoder.preprocess(AUGMENTATIONS[job.augmentation](read_medium(job.medium, sampling, notes)))
        return Loaded(job, pixels, "", tuple(notes))
    except ValueError as error:  # MediaError, or a size that the encoder's preprocessing refuses
        return Loaded(job, None, str(error))


def _chunks(loaded: Iterable[Loaded], frames: int) -> Iterator[list[Loaded]]:
    """Neighbours that hold at least `frames` frames together; what could not be read counts as one."""
    chunk: list[Loaded] = []
    for item in loaded:
        chunk.append(item)
        if sum(1 if some.frames is None else len(some.frames) for some in chunk) >= frames:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@torch.no_grad()
def _encode(
    chunk: Sequence[Loaded], encoder: Encoder, device: torch.device | str
) -> list[tuple[Job, Tensor | None, Layout, Tensor | None, str]]:
    """Cells of every loaded job, in the order of the chunk; frames of equal shape go through the encoder together."""
    cells: dict[int, tuple[Tensor, Layout, Tensor | None]] = {}
    for places in same_shape([item.frames for item in chunk]):
        stack = torch.stack([frames for place in places if (frames := chunk[place].frames) is not None])
        features = encoder(Pixels(stack.to(device)))
        boxes = [None] * len(places) if features.regions is None else features.regions.cpu()  # a detector's
        for place, grid, found in zip(places, features.grid.cpu(), boxes, strict=True):
            cells[place] = (grid, features.layout, found)
    nothing = (None, Layout(0, 0, 0), None)
    return [(item.job, *cells.get(place, nothing), item.reason) for place, item in enumerate(chunk)]
