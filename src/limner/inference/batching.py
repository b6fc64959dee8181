"""Captions many sources in order: reads ahead in threads and decodes sources of the same shape together."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Generic, TypeVar

from PIL import Image

from limner.core.torch_free import Caption, Failure, Medium, Source, WithContext
from limner.data.prefetch import prefetch

Parts = TypeVar("Parts", bound=tuple[Any, ...])  # one array per ensemble member, of shape (frames, ...)


@dataclass(frozen=True)
class _PreparedSource(Generic[Parts]):
    """A source after reading: its arrays, or the reason why it could not be read."""

    parts: Parts | None = None
    notes: tuple[str, ...] = ()  # damage that was skipped
    failure: Failure | None = None


def caption_in_batches(
    sources: Iterable[Source],
    read: Callable[[Source, list[str]], Parts],
    decode: Callable[[Sequence[Parts]], Sequence[Caption | Exception]],
    batch_size: int,
    group_by: Callable[[Parts], Hashable] | None = None,
) -> Iterator[tuple[Source, Caption | Failure]]:
    """Yield (source, caption) in the order of `sources`; (source, Failure) for a source that cannot be read.

    `read(source, notes)` returns the arrays of a source and adds a line to `notes` for damage that it skipped; a
    ValueError or OSError makes a Failure.  `decode` captions a list of sources with arrays of equal shapes, or whatever
    has an equal value of `group_by`; an error in the place of a caption makes a Failure.  A batch holds `batch_size`
    frames: one per image, all sampled frames of a clip.
    """

    def prepare(source: Source) -> _PreparedSource[Parts]:
        notes: list[str] = []
        try:
            return _PreparedSource(read(source, notes), tuple(notes))
        except (ValueError, OSError) as error:  # a MediaError, or an image size that preprocessing cannot handle
            return _PreparedSource(failure=Failure(source_name(source), str(error)))

    batch: list[tuple[Source, _PreparedSource[Parts]]] = []
    for item in prefetch(prepare, sources, window=batch_size, workers=2):
        batch.append(item)
        if sum(1 if prepared.parts is None else len(prepared.parts[0]) for _, prepared in batch) >= batch_size:
            yield from _caption_batch(batch, decode, group_by or _shapes)
            batch = []
    yield from _caption_batch(batch, decode, group_by or _shapes)


def _shapes(parts: tuple[Any, ...]) -> Hashable:
    return tuple(part.shape for part in parts)


def _caption_batch(
    batch: Sequence[tuple[Source, _PreparedSource[Parts]]],
    decode: Callable[[Sequence[Parts]], Sequence[Caption | Exception]],
    group_by: Callable[[Parts], Hashable],
) -> Iterator[tuple[Source, Caption | Failure]]:
    """Caption the sources of a batch, those of a group together, and return them in their order."""
    results: dict[int, Caption | Failure] = {
        index: prepared.failure for index, (_, prepared) in enumerate(batch) if prepared.failure is not None
    }
    groups: dict[Hashable, list[tuple[int, Parts]]] = {}
    for index, (_, prepared) in enumerate(batch):
        if prepared.parts is not None:
            groups.setdefault(group_by(prepared.parts), []).append((index, prepared.parts))
    for group in groups.values():
        for (index, _), caption in zip(group, decode([parts for _, parts in group]), strict=True):
            source, prepared = batch[index]
            if isinstance(caption, Caption):
                results[index] = replace(caption, notes=prepared.notes + caption.notes)
            else:
                results[index] = Failure(source_name(source), f"{source_name(source)}: {caption}", unreadable=False)
    return ((source, results[index]) for index, (source, _) in enumerate(batch))


def check_several_sources(sources: object) -> None:
    """Raise TypeError, which names the right call, when `sources` is a single image or clip."""
    if isinstance(sources, (str, PathLike, Medium, WithContext, Image.Image, bytes)) or not isinstance(
        sources, Iterable
    ):
        raise TypeError(f"captions() takes several images or clips, got one {type(sources).__name__}: use caption()")


def source_name(source: Source) -> str:
    """Return the path of a source, or its type in angle brackets, for messages."""
    if isinstance(source, WithContext):
        return source_name(source.source)
    if isinstance(source, Medium):
        return source.path
    return str(source) if isinstance(source, (str, PathLike)) else f"<{type(source).__name__}>"
