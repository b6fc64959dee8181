"""Worker processes give the same batches as a thread, report what they found, and end with a clear message."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.types import Batch, Medium, Pixels
from limner.data.batches import TrainingBatches, evaluation_batches, from_files
from limner.data.frames import FrameSampling
from limner.data.loader import Loading, ReadAhead, default_workers
from limner.text.vocabulary import Vocabulary
from tests.training.world import clip

VOCABULARY = Vocabulary.build(["a red dog", "a blue cat"], 1)


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """Frames as float tensors of 8 x 8 pixels."""
    resized = [np.asarray(Image.fromarray(frame).resize((8, 8), Image.Resampling.BILINEAR)) for frame in frames]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Medium]:
    """Nine JPEG images, of which one is damaged and one breaks off."""
    folder = tmp_path_factory.mktemp("loader")
    media = []
    for k in range(9):
        path = folder / f"{k}.jpg"
        pixels = np.random.default_rng(k).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        media.append(Medium(f"{k}", str(path), "train", ("a red dog", "a blue cat")))
    (folder / "4.jpg").write_bytes(b"this is no picture")
    whole = (folder / "7.jpg").read_bytes()
    (folder / "7.jpg").write_bytes(whole[: len(whole) * 9 // 10])
    return media


def batches_of(media: list[Medium], workers: int, **options: object) -> tuple[TrainingBatches, dict[str, str]]:
    notes: dict[str, str] = {}
    reader = from_files(to_tensor, FrameSampling(2, "random"), notes=notes)
    made = TrainingBatches(
        media,
        VOCABULARY,
        reader,
        4,
        seed=3,
        augmentations=("full", "flip", "crop-tl"),
        random_frames=True,
        loading=Loading(workers, notes=notes),
        **options,  # type: ignore[arg-type]
    )
    return made, notes


def equal(ours: Batch, theirs: Batch) -> bool:
    assert isinstance(ours.inputs, Pixels) and isinstance(theirs.inputs, Pixels)
    same = torch.equal(ours.inputs.frames, theirs.inputs.frames) and torch.equal(ours.tokens, theirs.tokens)
    return same and (ours.ids, ours.augmentations) == (theirs.ids, theirs.augmentations)


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_batches(media: list[Medium], workers: int):
    (alone, alone_notes), (several, notes) = batches_of(media, 0), batches_of(media, workers)
    before = torch.get_rng_state()
    for epoch in range(2):  # the second one by the same processes
        wanted = list(alone.epoch(epoch))  # read before the fork, which no thread should share
        pairs = list(zip(wanted, several.epoch(epoch), strict=True))
        assert len(pairs) == 5  # 18 pairs of an image and a caption, in fours
        assert all(equal(*pair) for pair in pairs)
    rest = list(several.epoch(1, start=3))
    several.close()
    assert [batch.ids for batch in rest] == [pair[1].ids for pair in pairs[3:]]  # as a resumed run reads them
    assert torch.equal(torch.get_rng_state(), before)  # which the next dropout mask depends on
    assert several.unreadable.keys() == alone.unreadable.keys() == {"4"}
    assert notes == alone_notes
    assert notes.keys() == {"7"}


def test_clips_are_read_by_workers(media: list[Medium], tmp_path: Path):
    clip(tmp_path / "c.mp4", frames=12)
    clips = [Medium(f"c{k}", str(tmp_path / "c.mp4"), "train", ("a red dog",)) for k in range(6)]
    (alone, _), (several, _) = batches_of(clips, 0), batches_of(clips, 2)
    wanted = list(alone.epoch(4))
    assert all(equal(a, b) for a, b in zip(wanted, several.epoch(4), strict=True))
    several.close()


def test_evaluation_reads_every_medium_once_and_in_order(media: list[Medium]):
    readable = [medium for medium in media if medium.id not in "47"]
    read = from_files(to_tensor)
    for workers in (0, 2):
        batches = list(evaluation_batches(readable, read, 3, Loading(workers)))
        assert [id for batch in batches for id in batch.ids] == [medium.id for medium in readable]


def test_an_exception_of_the_work_comes_as_it_is():
    def invert(number: int) -> float:
        return 1 / number

    for workers in (0, 2):
        ahead = ReadAhead(invert, Loading(workers))
        results = ahead([4, 2, 0, 1])
        assert [next(results), next(results)] == [0.25, 0.5]
        with pytest.raises(ZeroDivisionError, match=r"^division by zero$"):
            next(results)
        ahead.close()


def test_a_killed_worker_is_told_with_its_cure():
    def work(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        return number

    ahead = ReadAhead(work, Loading(1))
    with pytest.raises(ChildProcessError, match=r"has died; it was killed, perhaps because memory ran out: set fewer"):
        list(ahead(list(range(8))))
    ahead.close()


def test_a_process_has_workers_of_its_own_only_where_they_pay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert default_workers(True, torch.device("cuda")) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert default_workers(True, torch.device("cuda")) == 1
    assert default_workers(False, torch.device("cuda")) == default_workers(True, torch.device("cpu")) == 0
    with pytest.raises(ValueError, match="workers is -1"):
        ReadAhead(abs, Loading(-1))
