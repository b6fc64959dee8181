"""Which pairs come when, what is padded, and what happens to media that cannot be read."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.types import BOS, EOS, PAD, Batch, Features, Layout, Medium, Pixels
from limner.data import batches
from limner.data.batches import (
    AugmentedMedium,
    MixedShapesError,
    TrainingBatches,
    evaluation_batches,
    from_files,
    from_store,
)
from limner.data.frames import FrameSampling
from limner.data.media import MediaError
from limner.data.store import FeatureStore, StoreWriter
from limner.text.vocabulary import Vocabulary
from tests.data.videos import greys, write

WORDS = ("zero", "one", "two", "three", "four")
VOCABULARY = Vocabulary.build([" ".join(WORDS)], 1)
# medium k has k + 1 captions, and the number k is in each of them; the last has none
MEDIA = [Medium(f"m{k}", "", "train", tuple(f"{WORDS[k]} " + "one " * n for n in range(k + 1))) for k in range(5)]
MEDIA.append(Medium("bare", "", "train"))


class Reader:
    """One cell per medium holding its number; remembers what it was asked for; media in `bad` cannot be read."""

    def __init__(self, bad: Sequence[str] = ()):
        self.bad, self.asked = set(bad), []

    def __call__(self, items: Sequence[AugmentedMedium]) -> Features:
        self.asked += [(medium.id, augmentation) for medium, augmentation in items]
        for medium, _ in items:
            if medium.id in self.bad:
                raise MediaError(f"{medium.id}: broken")
        grid = torch.tensor([[[float(medium.id[1:])]] for medium, _ in items])
        return Features(grid, torch.ones(len(items), 1, dtype=torch.bool), Layout(1, 1, 1))


def make(reader: Reader | None = None, batch_size: int = 4, **options) -> TrainingBatches:
    return TrainingBatches(MEDIA, VOCABULARY, reader or Reader(), batch_size, **options)


def content(batches) -> list[tuple[str, tuple[int, ...]]]:
    return [(id, tuple(row)) for batch in batches for id, row in zip(batch.ids, batch.tokens.tolist(), strict=True)]


def pairs(batches) -> Counter:
    return Counter((id, tuple(t for t in row if t != PAD)) for id, row in content(batches))


EVERY = Counter((m.id, tuple(VOCABULARY.encode(text))) for m in MEDIA for text in m.references)


def test_an_epoch_is_every_pair_once():
    batches = make()
    assert len(batches) == 4  # 1 + 2 + 3 + 4 + 5 = 15 pairs in fours
    assert [len(batch.ids) for batch in batches.epoch(0)] == [4, 4, 4, 3]
    assert pairs(batches.epoch(0)) == pairs(batches.epoch(7)) == EVERY


def test_the_order_depends_on_seed_and_epoch_only():
    batches = make(seed=3, augmentations=("full", "flip"))
    first = content(batches.epoch(2))
    list(batches.epoch(0))
    torch.manual_seed(9)
    assert content(batches.epoch(2)) == first == content(make(seed=3, augmentations=("full", "flip")).epoch(2))
    assert content(batches.epoch(1)) != first and content(make(seed=4).epoch(2)) != first


@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
def test_an_interrupted_epoch_goes_on_where_it_stopped(start: int):
    whole = [content([batch]) for batch in make().epoch(1)]
    assert [content([batch]) for batch in make().epoch(1, start)] == whole[start:]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_partition_every_batch(world: int):
    ranks = [list(make(rank=rank, world_size=world).epoch(0)) for rank in range(world)]
    for n, whole in enumerate(make().epoch(0)):
        shares = [ranks[rank][n] for rank in range(world)]
        asked = pairs([whole])
        got = sum((pairs([share]) for share in shares), Counter())
        if n == 3 and world == 4:  # three pairs for four ranks: the last one repeats the first, since all must step
            assert got - asked == pairs(shares[:1]) == pairs(shares[3:])
        else:
            assert got == asked


def test_one_caption_per_medium_and_epoch():
    batches = make(captions_per_medium=1)
    assert len(batches) == 2  # 5 captioned media in fours
    seen = Counter()
    for epoch in range(60):
        found = pairs(batches.epoch(epoch))
        assert sorted(id for id, _ in found) == ["m0", "m1", "m2", "m3", "m4"]
        seen += found
    assert seen.keys() == EVERY.keys()  # the rarest, one of five, is missed in 60 epochs with probability .8^60


def test_several_captions_of_a_medium_are_neighbouring_rows():
    """Three of each medium's captions without repeats; a medium that has fewer shows all of them, and some again."""
    for batch in make(captions_per_medium=3).epoch(0):
        assert len(batch.tokens) == 3 * len(batch.ids) == 3 * len(batch.inputs)
        for k, id in enumerate(batch.ids):
            rows = [tuple(t for t in row if t != PAD) for row in batch.tokens[3 * k : 3 * k + 3].tolist()]
            own = {tuple(VOCABULARY.encode(text)) for text in MEDIA[int(id[1:])].references}
            assert set(rows) <= own and len(set(rows)) == min(3, len(own))
    assert [len(batch.ids) for batch in make(captions_per_medium=3).epoch(0)] == [4, 1]


def test_augmentations_are_drawn_evenly():
    reader = Reader()
    batches = make(reader, augmentations=("full", "flip"))
    for epoch in range(40):
        list(batches.epoch(epoch))
    share = sum(augmentation == "flip" for _, augmentation in reader.asked) / len(reader.asked)
    assert len(reader.asked) == 600 and abs(share - 0.5) < 0.0612  # three standard deviations


def test_tokens_are_padded_and_cut():
    media = [Medium("m1", "", "train", ("one", "one two three four"))]
    (batch,) = TrainingBatches(media, VOCABULARY, Reader(), 2, max_words=3).epoch(0)
    ids = {word: VOCABULARY.ids[word] for word in WORDS}
    rows = sorted(batch.tokens.tolist(), key=lambda row: row[2])
    assert rows == [[BOS, ids["one"], EOS, PAD, PAD], [BOS, ids["one"], *sorted([ids["two"], ids["three"]])[::-1], EOS]]
    assert batch.references == (("one", "one two three four"),) * 2 and batch.ids == ("m1", "m1")


def test_an_unreadable_medium_is_left_out_and_remembered():
    batches = make(Reader(bad=["m3"]))
    expected = Counter({pair: n for pair, n in EVERY.items() if pair[0] != "m3"})
    assert pairs(batches.epoch(0)) == expected and batches.unreadable == {"m3": "m3: broken"}
    for batch in batches.epoch(1):  # what is left still fits together
        assert batch.inputs.grid.flatten().tolist() == [float(id[1:]) for id in batch.ids]


def test_a_batch_in_which_nothing_is_readable_gets_a_readable_pair():
    batches = make(Reader(bad=["m2"]), batch_size=1)
    found = [batch.ids for batch in batches.epoch(0)]
    assert len(found) == 15 and set(batches.unreadable) == {"m2"}
    assert Counter(found) == {("m0",): 1 + 3, ("m1",): 2, ("m3",): 4, ("m4",): 5}  # m0 stands in for m2's three
    with pytest.raises(MediaError, match=r"none of 5 training media can be read: m[0-4]: broken"):
        list(make(Reader(bad=["m0", "m1", "m2", "m3", "m4"])).epoch(0))


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match=r"batch_size 1 counts all ranks together and must be at least .*, 2"):
        make(batch_size=1, world_size=2)
    with pytest.raises(ValueError, match="none of 1 training media has a caption"):
        TrainingBatches(MEDIA[-1:], VOCABULARY, Reader(), 4)


def store_of(tmp_path: Path, layouts: Sequence[Layout], boxed: bool = False) -> FeatureStore:
    writer = StoreWriter(tmp_path, {"name": "test"})
    for k, layout in enumerate(layouts):
        boxes = torch.full((layout.cells, 4), 0.5 + k) if boxed else None
        writer.add(f"m{k}", "full", torch.full((layout.cells, 2), float(k + 1)), layout, boxes)
    writer.finish()
    return FeatureStore(tmp_path)


def read(store: FeatureStore, count: int) -> Features:
    found = from_store(store)([(Medium(f"m{k}", ""), "full") for k in range(count)])
    assert isinstance(found, Features)
    return found


@pytest.mark.parametrize(
    ("layouts", "together"),
    [
        ([Layout(1, 2, 3), Layout(1, 2, 3)], Layout(1, 2, 3)),
        ([Layout(2, 2, 2), Layout(5, 2, 2)], Layout(5, 2, 2)),  # clips of different length: frames are padded
        ([Layout(1, 2, 3), Layout(1, 3, 1)], Layout(1, 1, 6)),  # nothing in common: a row of cells
        ([Layout(1, 1, 4), Layout(1, 1, 7)], Layout(1, 1, 7)),
    ],
)
def test_media_with_different_cell_counts_share_a_batch(tmp_path: Path, layouts: list[Layout], together: Layout):
    features = read(store_of(tmp_path, layouts), 2)
    assert features.layout == together
    for row, layout in enumerate(layouts):
        real = torch.arange(together.cells) < layout.cells
        assert torch.equal(features.mask[row], real)
        assert torch.equal(features.grid[row], torch.where(real, row + 1.0, 0.0)[:, None].expand(-1, 2))
    torch.testing.assert_close(features.pooled, torch.tensor([[1.0, 1.0], [2.0, 2.0]]))  # padding is not averaged in


def test_boxes_follow_their_cells(tmp_path: Path):
    given = read(store_of(tmp_path / "a", [Layout(1, 1, 2), Layout(1, 1, 3)], boxed=True), 2).boxes
    assert given[:, :, 0].tolist() == [[0.5, 0.5, 0.0], [1.5, 1.5, 1.5]]
    mixed = read(store_of(tmp_path / "b", [Layout(1, 2, 1), Layout(1, 1, 4)]), 2).boxes
    assert mixed[0].tolist() == [[0, 0, 1, 0.5], [0, 0.5, 1, 1], [0] * 4, [0] * 4]  # two rows, not two columns
    assert mixed[1, 1].tolist() == [0.25, 0, 0.5, 1]


def test_regions_and_a_grid_in_one_store(tmp_path: Path):
    """Shards with and without a detector's boxes: what has none keeps the places of its layout, in its own row."""
    for k, boxes in enumerate((None, torch.full((2, 4), 0.5))):
        writer = StoreWriter(tmp_path, {"name": "test"})
        writer.add(f"m{k}", "full", torch.ones(2, 3), Layout(1, 1, 2), boxes)
        writer.finish()
    features = read(FeatureStore(tmp_path), 2)
    assert features.layout == Layout(1, 1, 2)
    assert features.boxes.tolist() == [[[0, 0, 0.5, 1], [0.5, 0, 1, 1]], [[0.5] * 4, [0.5] * 4]]


def test_files_are_read_with_their_augmentation_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As 240 bytes each."""
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[:, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    calls: list[Medium] = []
    monkeypatch.setattr(batches, "read_medium", lambda medium, *_: calls.append(medium) or pixels[None])

    def preprocess(frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()

    medium = Medium("a", str(tmp_path / "a.png"))
    for room, expected in ((0, 4), (239, 4), (240, 3), (480, 2)):
        calls.clear()
        reader = from_files(preprocess, cache_bytes=room)
        for _ in range(2):
            frames = reader([(medium, "full"), (medium, "flip")]).frames
            bright = frames.amax((1, 2, 3)).argmax(1).tolist()
            assert bright == [0, 9]
        assert len(calls) == expected


def mixed(items: Sequence[AugmentedMedium]) -> Pixels:
    """Odd numbers are clips of two frames, even ones are pictures."""
    frames = [torch.full((1 + int(medium.id[1:]) % 2, 3, 1, 1), float(medium.id[1:])) for medium, _ in items]
    if len({tensor.shape for tensor in frames}) > 1:
        raise MixedShapesError("cannot share a batch")
    return Pixels(torch.stack(frames))


def test_evaluation_gives_pictures_and_clips_batches_of_their_own():
    batches = list(evaluation_batches(MEDIA[:5], mixed, 4))
    assert [batch.ids for batch in batches] == [("m0", "m2"), ("m1", "m3"), ("m4",)]
    assert [tuple(batch.inputs.frames.shape[:2]) for batch in batches] == [(2, 1), (2, 2), (1, 1)]
    for batch in batches:
        assert batch.inputs.frames[:, 0, 0, 0, 0].tolist() == [float(id[1:]) for id in batch.ids]
    assert batches[1].references == (MEDIA[1].references, MEDIA[3].references)


def test_training_on_pictures_and_clips_is_refused_and_none_is_called_unreadable():
    batches = TrainingBatches(MEDIA, VOCABULARY, mixed, 15)
    with pytest.raises(MixedShapesError, match="cannot share a batch"):
        list(batches.epoch(0))
    assert batches.unreadable == {}


def test_evaluation_reads_every_medium_once_in_order():
    batches: list[Batch] = list(evaluation_batches(MEDIA[:5], Reader(), 2))
    assert [batch.ids for batch in batches] == [("m0", "m1"), ("m2", "m3"), ("m4",)]
    assert all(batch.tokens.shape == (len(batch.ids), 0) for batch in batches)
    assert batches[2].references == (MEDIA[4].references,)


def test_every_medium_gets_its_own_frame_seed_in_every_epoch():
    class Remembering(Reader):
        def __call__(self, items):
            self.draws = [*getattr(self, "draws", []), *((medium.id, medium.frame_seed) for medium, _ in items)]
            return super().__call__(items)

    def seeds(start: int, **options) -> list:
        reader = Remembering()
        for epoch in (0, 1):
            for batch in make(reader, captions_per_medium=1, **options).epoch(epoch, start if epoch else 0):
                assert batch.inputs is not None
        return reader.draws

    whole = seeds(0, random_frames=True)
    assert len({draw for _, draw in whole}) == 10  # five media in two epochs
    assert seeds(1, random_frames=True) == whole[:5] + whole[9:]  # resumed in the middle of the second
    assert {draw for _, draw in seeds(0)} == {None}


def test_randomly_sampled_frames_are_not_cached(tmp_path: Path):
    """One of 20 frames: the seed's own draw, and without a seed the middle one, each time it is asked for."""
    path = str(write(tmp_path / "a.mp4", greys(20)))

    def preprocess(frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float()

    reader = from_files(preprocess, FrameSampling(1, "random"), 1 << 20)

    def frame(draw: int | None) -> int:
        return round(reader([(Medium("a", path, frame_seed=draw), "full")]).frames.mean().item() / 10)

    drawn = [int(20 * random.Random(k).randrange(1 << 20) / (1 << 20)) for k in range(12)]
    assert [frame(k) for k in range(12)] == drawn
    assert [frame(None) for _ in range(3)] == [10, 10, 10]
