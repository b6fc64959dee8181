"""Many media, captioned in order: read ahead in threads, those of a shape together, failures in their places."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Generic, TypeVar

from PIL import Image

from limner.core.torch_free import Caption, Failure, Medium, Source
from limner.data.prefetch import prefetch

Parts = TypeVar("Parts", bound=tuple[Any, ...])  # arrays of which those of a medium's first dimension are frames


@dataclass(frozen=True)
class _PreparedSource(Generic[Parts]):
    """What became of a source."""

    parts: Parts | None = None
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


def caption_in_batches(
    sources: Iterable[Source],
    read: Callable[[Source, list[str]], Parts],
    decode: Callable[[Sequence[Parts]], Sequence[Caption]],
    batch_size: int,
) -> Iterator[tuple[Source, Caption | Failure]]:
    """`read` makes arrays of a source, and adds to its notes what was damaged; `decode` captions those that can be
    stacked.  What cannot be read (ValueError, OSError) is a Failure and does not stop the others.

    `batch_size` pictures are decoded together; a clip counts for all its frames.
    """

    def attempt(source: Source) -> _PreparedSource[Parts]:
        notes: list[str] = []
        try:
            return _PreparedSource(read(source, notes), tuple(notes))
        except (ValueError, OSError) as error:  # MediaError, or a size that the preprocessing refuses
            return _PreparedSource(failure=Failure(source_name(source), str(error)))

    waiting: list[tuple[Source, _PreparedSource[Parts]]] = []
    for item in prefetch(attempt, sources, window=batch_size, workers=2):
        waiting.append(item)
        if sum(1 if done.parts is None else len(done.parts[0]) for _, done in waiting) >= batch_size:
            yield from _caption_group(waiting, decode)
            waiting = []
    yield from _caption_group(waiting, decode)


def _caption_group(
    waiting: Sequence[tuple[Source, _PreparedSource[Parts]]], decode: Callable[[Sequence[Parts]], Sequence[Caption]]
) -> Iterator[tuple[Source, Caption | Failure]]:
    found: dict[int, Caption | Failure] = {k: it.failure for k, (_, it) in enumerate(waiting) if it.failure is not None}
    alike: dict[tuple[Any, ...], list[tuple[int, Parts]]] = {}
    for place, (_, item) in enumerate(waiting):
        if item.parts is not None:
            alike.setdefault(tuple(part.shape for part in item.parts), []).append((place, item.parts))
    for group in alike.values():
        captions = decode([parts for _, parts in group])
        for (place, _), caption in zip(group, captions, strict=True):
            found[place] = replace(caption, notes=waiting[place][1].notes)
    return ((source, found[place]) for place, (source, _) in enumerate(waiting))


def check_several_sources(sources: object) -> None:
    """Raises TypeError that names the right call when `sources` is one picture or clip."""
    if isinstance(sources, (str, PathLike, Medium, Image.Image, bytes)) or not isinstance(sources, Iterable):
        raise TypeError(f"captions() takes several pictures or clips, got one {type(sources).__name__}: use caption()")


def source_name(source: Source) -> str:
    if isinstance(source, Medium):
        return source.path
    return str(source) if isinstance(source, (str, PathLike)) else f"<{type(source).__name__}>"
