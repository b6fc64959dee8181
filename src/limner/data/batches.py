"""Batches for training and evaluation: inputs from a store or from files, with captions, in a resumable order."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from limner.core.types import PAD, Batch, Features, Layout, Medium, Pixels
from limner.data.augmentations import AUGMENTATIONS, side_before
from limner.data.frames import FrameSampling
from limner.data.loader import Loading, ReadAhead
from limner.data.media import MediaError, read_medium
from limner.data.mixture import draw_share, share_size
from limner.data.pseudo_captions import PseudoCaptions
from limner.data.store import FeatureStore
from limner.text.vocabulary import Vocabulary

AugmentedMedium = tuple[Medium, str]  # a medium and the name of the augmentation in which it is read
Reader = Callable[[Sequence[AugmentedMedium]], Features | Pixels]


class MixedShapesError(ValueError):
    """Raised when raw media of different shapes are read as one batch; each of them can be read alone."""


def from_store(store: FeatureStore) -> Reader:
    """A reader of stored features; cells are padded to the longest medium of the batch, and padding is masked.

    Boxes are those of the store, or else follow from the layout.
    """

    def collate(items: Sequence[AugmentedMedium]) -> Features:
        entries = [store.get(medium.id, augmentation) for medium, augmentation in items]
        grids = [torch.as_tensor(grid).float() for grid, _, _ in entries]
        layouts, boxes = [Layout(*layout) for _, layout, _ in entries], [box for _, _, box in entries]
        has_boxes = any(box is not None for box in boxes)
        if all(layout == layouts[0] for layout in layouts):
            layout = layouts[0]
        elif len({layout[1:] for layout in layouts}) == 1:
            layout = Layout(max(layout.t for layout in layouts), *layouts[0][1:])
        else:  # grids of different shape become one row of cells; each cell keeps the box of its own grid
            layout, has_boxes = Layout(1, 1, max(layout.cells for layout in layouts)), True
        mask = torch.zeros(len(grids), layout.cells, dtype=torch.bool)
        for row, grid in enumerate(grids):
            mask[row, : len(grid)] = True
        regions = None
        if has_boxes:
            pairs = zip(layouts, boxes, strict=True)
            known_boxes = [own.boxes() if box is None else torch.as_tensor(box) for own, box in pairs]
            regions = pad_sequence(known_boxes, batch_first=True)
        return Features(pad_sequence(grids, batch_first=True), mask, layout, regions)

    return collate


def from_files(
    preprocess: Callable[[np.ndarray], Tensor],
    sampling: FrameSampling = FrameSampling(),
    cache_bytes: int = 0,
    side: int = 0,
    notes: dict[str, str] | None = None,
) -> Reader:
    """A reader that decodes and preprocesses raw media.

    The first media are kept in memory, up to `cache_bytes`: the decoded frames or the preprocessed tensor, whichever is
    smaller.  Randomly sampled frames are not kept.  `side` is the shorter side in pixels to which `preprocess` resizes,
    0 if that is not known; large images are read reduced to at least twice this.  `notes` gets, by id, what a user
    should know about a medium that was read, for example that it breaks off.  The reader raises MixedShapesError when
    frames differ in shape.
    """
    cache: dict[tuple[str, str], np.ndarray | Tensor] = {}
    cache_left = cache_bytes

    def pixels(item: AugmentedMedium) -> Tensor:
        nonlocal cache_left
        medium, augmentation = item
        cached = cache.get((medium.id, augmentation))
        if isinstance(cached, Tensor):
            return cached
        if cached is None:
            found: list[str] = []
            frames = read_medium(medium, sampling, found, side_before(augmentation, side))
            decoded = AUGMENTATIONS[augmentation](frames)
            if found and notes is not None:
                notes[medium.id] = "; ".join(found)
        else:
            decoded = cached
        tensor = preprocess(decoded)
        if cached is None and not (medium.frame_seed is not None and sampling.policy == "random"):
            smaller = decoded if decoded.nbytes < tensor.nbytes else tensor
            if smaller.nbytes <= cache_left:
                cache[medium.id, augmentation] = smaller
                cache_left -= smaller.nbytes
        return tensor

    def collate(items: Sequence[AugmentedMedium]) -> Pixels:
        tensors = [pixels(item) for item in items]
        for item, tensor in zip(items, tensors, strict=True):
            if tensor.shape != tensors[0].shape:
                raise MixedShapesError(
                    f"{items[0][0].id} has frames {tuple(tensors[0].shape)} but {item[0].id} has "
                    f"{tuple(tensor.shape)}: "
                    "images and clips cannot share a batch of raw frames; train on one kind, give frames: 1, or "
                    "extract features"
                )
        return Pixels(torch.stack(tensors))

    return collate


@dataclass(frozen=True)
class Example:
    """A medium and one or several of its captions, as token ids."""

    medium: Medium
    captions: tuple[tuple[int, ...], ...]


class TrainingBatches:
    """Shuffled training batches, whose order depends on (seed, epoch) alone.

    captions_per_medium  None: every (medium, caption) pair is an example.  K: every medium is an example with K of its
                         captions, drawn again in each epoch; its K rows of tokens are neighbours in the batch, and
                         whatever is computed once per medium serves all of them
    batch_size           examples per batch over all `world_size` ranks; each rank reads its part of every batch
    max_words            longer captions are truncated, and `truncated` counts them
    augmentations        each example is read in one of them, drawn at random
    random_frames        give every medium another `frame_seed` in each epoch, for the sampling policy "random"
    pseudo_captions      captions that replace some of the human captions, drawn again in each epoch
    shares               label of a data set -> share of its examples in an epoch (`draw_share`); the others have all
    loading              worker processes or a thread that read the next batches; the batches are the same
    `epoch(n, start=k)` continues exactly where an interrupted run stopped.  `unreadable` maps the id of each medium
    that could not be read to the reason.  Raises ValueError when no medium has a caption, or `batch_size` is below
    `world_size`.
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
        captions_per_medium: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        random_frames: bool = False,
        pseudo_captions: PseudoCaptions | None = None,
        shares: Mapping[str, float] | None = None,
        loading: Loading | None = None,
    ):
        if batch_size < world_size:
            raise ValueError(
                f"batch_size {batch_size} counts all ranks together and must be at least their number, {world_size}"
            )
        self.read, self.batch_size, self.seed, self.augmentations = read, batch_size, seed, tuple(augmentations)
        self.rank, self.world_size = rank, world_size
        self.random_frames, self.pseudo_captions = random_frames, pseudo_captions
        captioned = [medium for medium in media if medium.references]
        if not captioned:
            raise ValueError(f"none of {len(media)} training media has a caption")
        self.truncated = 0
        self.groups = [
            [Example(medium, (self._encode(vocabulary, text, max_words),)) for text in medium.references]
            for medium in captioned
        ]
        self.captions_per_medium, self.shares = captions_per_medium, shares or {}
        self.unreadable: dict[str, str] = {}
        loading = loading or Loading()
        self.ahead = ReadAhead(self.batch, loading, (self.unreadable, loading.notes))

    def _encode(self, vocabulary: Vocabulary, text: str, max_words: int) -> tuple[int, ...]:
        ids = vocabulary.encode(text)  # BOS, the words, EOS
        if len(ids) - 2 <= max_words:
            return tuple(ids)
        self.truncated += 1
        return (*ids[: 1 + max_words], ids[-1])

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(sum(self.examples_per_epoch().values()) / self.batch_size)

    def examples_per_epoch(self) -> dict[str, int]:
        """The number of examples in an epoch, by the label of their data set."""
        sizes: Counter[str] = Counter()
        for group in self.groups:
            sizes[group[0].medium.part] += len(group) if self.captions_per_medium is None else 1
        return {part: share_size(size, self.shares.get(part, 1.0)) for part, size in sizes.items()}

    def order(self, epoch: int) -> list[tuple[Example, str]]:
        """The examples of an epoch, each with the augmentation in which it is read."""
        rng = random.Random(f"{self.seed}/{epoch}")
        drawn = self._draw_shares(epoch)
        if self.captions_per_medium is None:
            examples = list(chain(*drawn))
        else:
            examples = [_sample_captions(group, self.captions_per_medium, rng) for group in drawn]
        rng.shuffle(examples)
        if self.random_frames:
            examples = [replace(it, medium=replace(it.medium, frame_seed=rng.getrandbits(32))) for it in examples]
        order = [(example, rng.choice(self.augmentations)) for example in examples]
        if self.pseudo_captions is None:
            return order
        # a generator of its own, so the order is the same with and without pseudo-captions
        pseudo_rng = random.Random(f"{self.seed}/{epoch}/told")
        return [
            (_with_pseudo_captions(example, self.pseudo_captions, pseudo_rng), augmentation)
            for example, augmentation in order
        ]

    def _draw_shares(self, epoch: int) -> list[list[Example]]:
        """The groups of an epoch.  Of a data set with a share they hold that share of its examples: of its groups, or
        without `captions_per_medium` of its pairs of a medium and a caption."""
        by_part: dict[str, list[list[Example]]] = {}
        for group in self.groups:
            by_part.setdefault(group[0].medium.part, []).append(group)
        drawn: list[list[Example]] = []
        for part, groups in by_part.items():
            share = self.shares.get(part, 1.0)
            pairs = share < 1 and self.captions_per_medium is None
            items = [[example] for example in chain(*groups)] if pairs else groups
            drawn += draw_share(items, share, epoch, f"{self.seed}/{part}")
        return drawn

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, ... of an epoch; the next ones are read while one is in use."""
        order = self.order(epoch)
        chunks = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)][start:]
        return self.ahead(chunks)

    def close(self) -> None:
        """End the worker processes, if there are any; `epoch` starts new ones."""
        self.ahead.close()

    def batch(self, chunk: Sequence[tuple[Example, str]]) -> Batch:
        """This rank's part of a batch; examples that cannot be read are left out."""
        # every rank must take the step, so a rank without examples repeats the first one
        part = chunk[self.rank :: self.world_size] or chunk[:1]
        try:
            inputs = self.read([(example.medium, augmentation) for example, augmentation in part])
        except MixedShapesError:
            raise
        except ValueError:  # MediaError, or a size that the encoder's preprocessing refuses
            part = [(it, augmentation) for it, augmentation in part if self.is_readable(it.medium, augmentation)] or [
                self.first_readable()
            ]
            inputs = self.read([(example.medium, augmentation) for example, augmentation in part])
        rows = [torch.tensor(caption) for example, _ in part for caption in example.captions]
        ids = tuple(example.medium.id for example, _ in part)
        references = tuple(example.medium.references for example, _ in part)
        augmentations = tuple(augmentation for _, augmentation in part)
        return Batch(ids, inputs, pad_sequence(rows, batch_first=True, padding_value=PAD), references, augmentations)

    def is_readable(self, medium: Medium, augmentation: str) -> bool:
        """Try to read a medium; when that fails, add it to `unreadable`."""
        try:
            self.read([(medium, augmentation)])
        except ValueError as error:
            self.unreadable[medium.id] = str(error)
            return False
        return True

    def first_readable(self) -> tuple[Example, str]:
        """The first example that can be read, for a rank whose part of a batch is unreadable.

        Raises MediaError when no medium can be read.
        """
        for group in self.groups:
            if self.is_readable(group[0].medium, self.augmentations[0]):
                return _sample_captions(group, self.captions_per_medium or 1, random.Random(0)), self.augmentations[0]
        raise MediaError(
            f"none of {len(self.groups)} training media can be read: {next(iter(self.unreadable.values()))}"
        )


def _with_pseudo_captions(example: Example, pseudo: PseudoCaptions, rng: random.Random) -> Example:
    """The example with some of its captions replaced by pseudo-captions."""
    captions = (pseudo.replacement(example.medium.id, caption, rng) for caption in example.captions)
    return replace(example, captions=tuple(captions))


def _sample_captions(group: Sequence[Example], count: int, rng: random.Random) -> Example:
    """One medium with `count` of its captions; when it has fewer, some are repeated."""
    captions = [example.captions[0] for example in group]
    chosen = rng.sample(captions, min(count, len(captions)))
    return Example(group[0].medium, tuple(chosen + rng.choices(captions, k=count - len(chosen))))


def evaluation_batches(
    media: Sequence[Medium], read: Reader, batch_size: int, loading: Loading | None = None
) -> Iterator[Batch]:
    """Every medium once, in order and without tokens; the next batches are read while one is in use.

    When `batch_size` neighbouring raw media differ in shape, they are split into one batch per shape.
    """
    parts = [media[i : i + batch_size] for i in range(0, len(media), batch_size)]
    loading = loading or Loading()
    ahead = ReadAhead(partial(_evaluation_batches, read), loading, (loading.notes,))
    try:
        yield from chain.from_iterable(ahead(parts))
    finally:
        ahead.close()


def _evaluation_batches(read: Reader, media: Sequence[Medium]) -> list[Batch]:
    """Media as one batch, or as one for each of their shapes."""
    try:
        groups = [(media, read([(medium, "full") for medium in media]))]
    except MixedShapesError:
        groups = list(_split_by_shape(media, read))
    return [
        Batch(
            tuple(medium.id for medium in group),
            inputs,
            torch.empty(len(group), 0, dtype=torch.long),
            tuple(medium.references for medium in group),
        )
        for group, inputs in groups
    ]


def _split_by_shape(media: Sequence[Medium], read: Reader) -> Iterator[tuple[Sequence[Medium], Pixels]]:
    groups: dict[torch.Size, list[tuple[Medium, Tensor]]] = {}
    for medium in media:
        inputs = read([(medium, "full")])
        assert isinstance(inputs, Pixels), "features of different shape are padded"
        groups.setdefault(inputs.frames.shape, []).append((medium, inputs.frames))
    for group in groups.values():
        alike, frames = zip(*group, strict=True)
        yield alike, Pixels(torch.cat(frames))
