"""Feature extraction: run an encoder on media and write the cells to a feature store.

Threads read media ahead.  Media that cannot be read are skipped and listed.  The same call continues an extraction
that was interrupted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.locks import lock_folder
from limner.core.types import Features, Layout, Medium, Pixels
from limner.data.augmentations import AUGMENTATIONS, side_before
from limner.data.frames import FrameSampling
from limner.data.media import is_clip, read_medium
from limner.data.parts import Part, part_of
from limner.data.prefetch import prefetch
from limner.data.store import Float16RangeError, StoreWriter, entry_key
from limner.data.store_parts import begin_store_part, require_undivided
from limner.encoders.encoder import Encoder, group_by_shape


@dataclass(frozen=True)
class ExtractReport:
    """Counts of one extraction, in entries (one medium with one augmentation)."""

    written: int
    already_stored: int  # entries that the store held before
    failures: tuple[tuple[str, str], ...]  # (id, reason), one per medium
    damaged: tuple[str, ...] = ()  # one line for each damaged medium that could still be read

    def __str__(self) -> str:
        damaged = f", {len(self.damaged)} damaged but read" if self.damaged else ""
        return (
            f"{self.written} entries written, {self.already_stored} already there, "
            f"{len(self.failures)} media failed{damaged}"
        )


class ExtractionJob(NamedTuple):
    """One medium with one augmentation."""

    medium: Medium
    augmentation: str


class LoadedFrames(NamedTuple):
    """A job with its preprocessed frames, or with the reason why it has none."""

    job: ExtractionJob
    frames: Float[Tensor, "T 3 h w"] | None
    reason: str
    notes: tuple[str, ...] = ()  # one line for each damage that was found


def extract(
    media: Sequence[Medium],
    encoder: Encoder,
    out: Path,
    augmentations: Sequence[str] = ("full",),
    *,
    augment_splits: Sequence[str] = ("train",),
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    sampling: FrameSampling = FrameSampling(),
    part: Part | None = None,
) -> ExtractReport:
    """Encode every medium once per augmentation and write the cells to the store at `out`.

    All media with the first augmentation come first.  Augmentations other than "full" are applied only to media of
    the splits `augment_splits`.  `sampling` chooses the frames of every clip.  `batch_size` is the number of
    frames that are encoded together; a clip is never divided.  `progress` is called with (done, total) entries.
    Entries that the store already holds are kept, so the same call continues an interrupted extraction.  With `part`,
    only the media of this part are encoded, and the store says which part it holds; `merge_stores` makes one store of
    all parts.  Raises ValueError for unknown augmentations, duplicate ids, or a store that another encoder wrote or
    that holds another part; LockedError when another process is writing the store.  A medium that cannot be read is
    only listed in the report.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    jobs = _list_jobs(media, augmentations, augment_splits)
    encoder = encoder.to(device).eval()
    with lock_folder(out):
        jobs = _begin_part(jobs, media, part, out, encoder, sampling)
        return _extract(jobs, encoder, out, batch_size, device, workers, progress, sampling, part is not None)


def _begin_part(
    jobs: Sequence[ExtractionJob],
    media: Sequence[Medium],
    part: Part | None,
    out: Path,
    encoder: Encoder,
    sampling: FrameSampling,
) -> list[ExtractionJob]:
    """The jobs of a part, which is recorded in the store; all jobs without one."""
    if part is None:
        require_undivided(out)
        return list(jobs)
    chosen = set(part_of([medium.id for medium in media], part))
    places = [(place, job) for place, job in enumerate(jobs) if job.medium.id in chosen]
    made_with = {
        "encoder": encoder.provenance(),
        "augmentations": list(dict.fromkeys(job.augmentation for job in jobs)),
        "sampling": asdict(sampling),
    }
    keys = [(place, entry_key(job.medium.id, job.augmentation)) for place, job in places]
    begin_store_part(out, part, media, keys, made_with)
    return [job for _, job in places]


def _extract(
    jobs: Sequence[ExtractionJob],
    encoder: Encoder,
    out: Path,
    batch_size: int,
    device: torch.device | str,
    workers: int,
    progress: Callable[[int, int], None] | None,
    sampling: FrameSampling,
    may_be_empty: bool,
) -> ExtractReport:
    """`extract` of its jobs, while the lock of the store is held."""
    writer = StoreWriter(out, encoder.provenance())
    todo = [job for job in jobs if entry_key(job.medium.id, job.augmentation) not in writer]
    before, already_stored = len(writer), len(jobs) - len(todo)
    done = already_stored
    failures: dict[str, str] = {}
    if progress:
        progress(done, len(jobs))
    damaged: dict[str, None] = {}  # a set that keeps its order
    clips = any(is_clip(job.medium.path) for job in todo)
    window = max(workers, 2 * batch_size // (sampling.frames if clips else 1))
    run_encoder = encoder.inference_form()
    reading = prefetch(lambda job: _load_frames(job, encoder, sampling), todo, window=window, workers=workers)
    for chunk in _chunks((loaded for _, loaded in reading), batch_size):
        damaged |= dict.fromkeys(note for item in chunk for note in item.notes)
        for job, grid, layout, boxes, reason in _encode(chunk, run_encoder, device):
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
    writer.finish(may_be_empty)
    return ExtractReport(len(writer) - before, already_stored, tuple(failures.items()), tuple(damaged))


def _list_jobs(
    media: Sequence[Medium], augmentations: Sequence[str], augment_splits: Sequence[str]
) -> list[ExtractionJob]:
    """All jobs in their order.  Raises ValueError for unknown augmentations and duplicate ids."""
    unknown = [augmentation for augmentation in augmentations if augmentation not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"unknown augmentations {unknown}; known are {', '.join(AUGMENTATIONS)}")
    seen: set[str] = set()
    for medium in media:
        if medium.id in seen:
            raise ValueError(f"the id {medium.id!r} occurs twice ({medium.path}); ids must be unique")
        seen.add(medium.id)
    return [
        ExtractionJob(medium, augmentation)
        for augmentation in dict.fromkeys(augmentations)
        for medium in media
        if augmentation == "full" or medium.split in augment_splits
    ]


def _load_frames(job: ExtractionJob, encoder: Encoder, sampling: FrameSampling) -> LoadedFrames:
    """Read, augment and preprocess the frames of one job."""
    notes: list[str] = []
    try:
        side = side_before(job.augmentation, encoder.reading_side())
        pixels = encoder.preprocess(AUGMENTATIONS[job.augmentation](read_medium(job.medium, sampling, notes, side)))
        return LoadedFrames(job, pixels, "", tuple(notes))
    except ValueError as error:  # MediaError, or an image size that the encoder's preprocessing refuses
        return LoadedFrames(job, None, str(error))


def _chunks(loaded: Iterable[LoadedFrames], frames: int) -> Iterator[list[LoadedFrames]]:
    """Group consecutive jobs until they hold at least `frames` frames; a job that could not be read counts as one."""
    chunk: list[LoadedFrames] = []
    for item in loaded:
        chunk.append(item)
        if sum(1 if job.frames is None else len(job.frames) for job in chunk) >= frames:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@torch.no_grad()
def _encode(
    chunk: Sequence[LoadedFrames], run_encoder: Callable[[Pixels], Features], device: torch.device | str
) -> list[tuple[ExtractionJob, Tensor | None, Layout, Tensor | None, str]]:
    """Encode the jobs of a chunk -> (job, grid, layout, boxes, reason) of each, in order.

    Frames of equal shape are encoded together.  Where frames are missing, the grid is None and the reason is given.
    """
    cells: dict[int, tuple[Tensor, Layout, Tensor | None]] = {}
    for indices in group_by_shape([item.frames for item in chunk]):
        stack = torch.stack([frames for index in indices if (frames := chunk[index].frames) is not None])
        features = run_encoder(Pixels(stack.to(device)))
        boxes = [None] * len(indices) if features.regions is None else features.regions.cpu()
        for index, grid, box in zip(indices, features.grid.cpu(), boxes, strict=True):
            cells[index] = (grid, features.layout, box)
    no_cells = (None, Layout(0, 0, 0), None)
    return [(item.job, *cells.get(index, no_cells), item.reason) for index, item in enumerate(chunk)]
