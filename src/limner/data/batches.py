"""Media -> batches: inputs read from a store or from files, paired with captions, in an order that can be resumed."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from limner.core.types import PAD, Batch, Features, Layout, Medium, Pixels
from limner.data.augmentations import AUGMENTATIONS
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, read_medium
from limner.data.prefetch import prefetch
from limner.data.pseudo_captions import PseudoCaptions
from limner.data.store import FeatureStore
from limner.text.vocabulary import Vocabulary

Item = tuple[Medium, str]  # a medium and the name of the view to read it in
Reader = Callable[[Sequence[Item]], Features | Pixels]


class ShapesError(ValueError):
    """Raw media of different shapes that cannot share a batch; each of them can be read."""


def from_store(store: FeatureStore) -> Reader:
    """Reads features; cells are padded to the longest medium of the batch and masked."""

    def collate(items: Sequence[Item]) -> Features:
        entries = [store.get(medium.id, augmentation) for medium, augmentation in items]
        grids = [torch.as_tensor(grid).float() for grid, _, _ in entries]
        layouts, boxes = [Layout(*layout) for _, layout, _ in entries], [box for _, _, box in entries]
        boxed = any(box is not None for box in boxes)
        if all(layout == layouts[0] for layout in layouts):
            layout = layouts[0]
        elif len({layout[1:] for layout in layouts}) == 1:
            layout = Layout(max(layout.t for layout in layouts), *layouts[0][1:])
        else:  # grids of different shape: a row of cells, each with the box it had in its own grid
            layout, boxed = Layout(1, 1, max(layout.cells for layout in layouts)), True
        mask = torch.zeros(len(grids), layout.cells, dtype=torch.bool)
        for row, grid in enumerate(grids):
            mask[row, : len(grid)] = True
        regions = None
        if boxed:
            both = zip(layouts, boxes, strict=True)
            each = [own.boxes() if box is None else torch.as_tensor(box) for own, box in both]
            regions = pad_sequence(each, batch_first=True)
        return Features(pad_sequence(grids, batch_first=True), mask, layout, regions)

    return collate


def from_files(
    preprocess: Callable[[np.ndarray], Tensor], sampling: FrameSampling = FrameSampling(), room: int = 0
) -> Reader:
    """Reads and preprocesses raw media; the first of them are kept, up to `room` bytes: decoded, or preprocessed where
    that takes less."""
    kept: dict[tuple[str, str], np.ndarray | Tensor] = {}
    left = room

    def pixels(item: Item) -> Tensor:
        nonlocal left
        medium, augmentation = item
        known = kept.get((medium.id, augmentation))
        if isinstance(known, Tensor):
            return known
        decoded = AUGMENTATIONS[augmentation](read_medium(medium, sampling)) if known is None else known
        tensor = preprocess(decoded)
        if known is None and not (medium.frame_seed is not None and sampling.policy == "random"):
            smaller = decoded if decoded.nbytes < tensor.nbytes else tensor
            if smaller.nbytes <= left:
                kept[medium.id, augmentation] = smaller
                left -= smaller.nbytes
        return tensor

    def collate(items: Sequence[Item]) -> Pixels:
        found = [pixels(item) for item in items]
        for item, tensor in zip(items, found, strict=True):
            if tensor.shape != found[0].shape:
                raise ShapesError(
                    f"{items[0][0].id} has frames {tuple(found[0].shape)} but {item[0].id} has {tuple(tensor.shape)}: "
                    "pictures and clips cannot share a batch of raw frames; train on one kind, or extract features"
                )
        return Pixels(torch.stack(found))

    return collate


@dataclass(frozen=True)
class Example:
    """A medium and the encoded captions it is shown with."""

    medium: Medium
    captions: tuple[tuple[int, ...], ...]


class TrainingBatches:
    """Shuffled examples: every (medium, caption) pair for itself, or each medium with `captions` of its captions.

    With several captions per medium a batch's tokens have that many neighbouring rows for each of its media: what is
    computed once per medium then serves them all.

    The order depends on (seed, epoch) alone, so `epoch(n, start=k)` continues exactly where an interrupted run
    stopped.  With several ranks each reads its share of every batch; `batch_size` counts all ranks together.  With
    `draws` every medium has a seed of its own in every epoch, for frames that are drawn from it at random.
    `pseudo_captions` are captions that take the place of some of the media's own, drawn anew each epoch.
    """

    def __init__(
        self,
        media: Sequence[Medium],
        vocabulary: Vocabulary,
        read: Reader,
        batch_size: int,
        seed: int = 0,
        augmentations: Sequence[str] = ("full",),
        max_words: int = 30,
        captions: int | None = None,
        rank: int = 0,
        world: int = 1,
        draws: bool = False,
        pseudo_captions: PseudoCaptions | None = None,
    ):
        if batch_size < world:
            raise ValueError(
                f"batch_size {batch_size} counts all ranks together and must be at least their number, {world}"
            )
        self.read, self.batch_size, self.seed, self.augmentations = read, batch_size, seed, tuple(augmentations)
        self.rank, self.world, self.draws, self.pseudo_captions = rank, world, draws, pseudo_captions
        captioned = [medium for medium in media if medium.references]
        if not captioned:
            raise ValueError(f"none of {len(media)} training media has a caption")
        self.groups = [
            [Example(medium, (tuple(vocabulary.encode(text, max_words)),)) for text in medium.references]
            for medium in captioned
        ]
        self.captions = captions
        self.problems: dict[str, str] = {}  # media that could not be read, and why

    def __len__(self) -> int:
        """Batches per epoch."""
        items = sum(len(group) for group in self.groups) if self.captions is None else len(self.groups)
        return math.ceil(items / self.batch_size)

    def order(self, epoch: int) -> list[tuple[Example, str]]:
        """The examples of an epoch with the view each is read in."""
        draw = random.Random(f"{self.seed}/{epoch}")
        if self.captions is None:
            examples = list(chain(*self.groups))
        else:
            examples = [_some(group, self.captions, draw) for group in self.groups]
        draw.shuffle(examples)
        if self.draws:
            examples = [replace(it, medium=replace(it.medium, frame_seed=draw.getrandbits(32))) for it in examples]
        order = [(example, draw.choice(self.augmentations)) for example in examples]
        if self.pseudo_captions is None:
            return order
        coins = random.Random(f"{self.seed}/{epoch}/told")  # its own: the order is the same with and without
        return [
            (_with_pseudo_captions(example, self.pseudo_captions, coins), augmentation)
            for example, augmentation in order
        ]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, ... of an epoch; the next ones are read while one is in use."""
        order = self.order(epoch)
        chunks = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)][start:]
        return (batch for _, batch in prefetch(self.batch, chunks, window=2))

    def batch(self, chunk: Sequence[tuple[Example, str]]) -> Batch:
        mine = chunk[self.rank :: self.world] or chunk[:1]  # a rank without a share repeats an example: all must step
        try:
            inputs = self.read([(example.medium, augmentation) for example, augmentation in mine])
        except ShapesError:
            raise
        except ValueError:  # MediaError, or a size that the encoder's preprocessing refuses
            mine = [(it, augmentation) for it, augmentation in mine if self.readable(it.medium, augmentation)] or [
                self.substitute()
            ]
            inputs = self.read([(example.medium, augmentation) for example, augmentation in mine])
        rows = [torch.tensor(caption) for example, _ in mine for caption in example.captions]
        ids = tuple(example.medium.id for example, _ in mine)
        references = tuple(example.medium.references for example, _ in mine)
        augmentations = tuple(augmentation for _, augmentation in mine)
        return Batch(ids, inputs, pad_sequence(rows, batch_first=True, padding_value=PAD), references, augmentations)

    def readable(self, medium: Medium, augmentation: str) -> bool:
        """Can it be read?  If not, it is remembered in `problems` and left out of its batch."""
        try:
            self.read([(medium, augmentation)])
        except ValueError as error:
            self.problems[medium.id] = str(error)
            return False
        return True

    def substitute(self) -> tuple[Example, str]:
        """The first example that can be read, for a share in which nothing can: all ranks must step."""
        for group in self.groups:
            if self.readable(group[0].medium, self.augmentations[0]):
                return _some(group, self.captions or 1, random.Random(0)), self.augmentations[0]
        raise MediaError(f"none of {len(self.groups)} training media can be read: {next(iter(self.problems.values()))}")


def _with_pseudo_captions(example: Example, pseudo: PseudoCaptions, draw: random.Random) -> Example:
    """With some of its captions replaced by what is told of its medium."""
    captions = (pseudo.replacement(example.medium.id, caption, draw) for caption in example.captions)
    return replace(example, captions=tuple(captions))


def _some(group: Sequence[Example], count: int, draw: random.Random) -> Example:
    """One medium with `count` of its captions; a medium that has fewer repeats some."""
    captions = [example.captions[0] for example in group]
    chosen = draw.sample(captions, min(count, len(captions)))
    return Example(group[0].medium, tuple(chosen + draw.choices(captions, k=count - len(chosen))))


def in_order(media: Sequence[Medium], read: Reader, batch_size: int) -> Iterator[Batch]:
    """Every medium once, for evaluation; the tokens are empty.  Pictures and clips among `batch_size` neighbours come
    in a batch for each shape."""
    for i in range(0, len(media), batch_size):
        part = media[i : i + batch_size]
        try:
            batches = [(part, read([(medium, "full") for medium in part]))]
        except ShapesError:
            batches = list(_by_shape(part, read))
        for some, inputs in batches:
            empty = torch.empty(len(some), 0, dtype=torch.long)
            yield Batch(tuple(m.id for m in some), inputs, empty, tuple(m.references for m in some))


def _by_shape(media: Sequence[Medium], read: Reader) -> Iterator[tuple[Sequence[Medium], Pixels]]:
    groups: dict[torch.Size, list[tuple[Medium, Tensor]]] = {}
    for medium in media:
        inputs = read([(medium, "full")])
        assert isinstance(inputs, Pixels), "features are padded, not refused"
        groups.setdefault(inputs.frames.shape, []).append((medium, inputs.frames))
    for group in groups.values():
        some, frames = zip(*group, strict=True)
        yield some, Pixels(torch.cat(frames))
