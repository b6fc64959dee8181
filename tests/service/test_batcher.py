"""Dynamic batching, with a pipeline that only notes what it was given."""

import threading
from typing import Any

import numpy as np
import pytest

from limner.core.torch_free import Caption
from limner.decode.options import Beam, Sample
from limner.decode.rules import Rules
from limner.service.batcher import Batcher

NO_MAPS = np.zeros((0, 1, 1, 1), np.float32)


class Recorder:
    """Captions each medium with the number in it; fails at negative numbers.  `open` holds up the first batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.entered = threading.Event()

    def decode(self, pixels: Any, decoding: Any) -> list[Caption]:
        self.entered.set()
        assert self.open.wait(10)
        numbers = [int(frames[0, 0]) for (frames,) in pixels]
        self.batches.append(numbers)
        if min(numbers) < 0:
            raise RuntimeError("a medium that cannot be captioned")
        return [Caption(str(number), 0.0, (), NO_MAPS) for number in numbers]


def medium(number: int, frames: int = 1) -> tuple[np.ndarray]:
    return (np.full((frames, 2), number),)


def held(**options: Any) -> tuple[Batcher, Recorder]:
    """A batcher whose thread is busy with a first medium, 0, until `open` is set."""
    recorder, batcher = Recorder(), Batcher(**options)
    batcher.caption(recorder, medium(0), Beam())
    assert recorder.entered.wait(10)
    return batcher, recorder


def test_what_gathers_during_a_batch_is_the_next_batch():
    batcher, recorder = held(size=4, wait=0)
    futures = [batcher.caption(recorder, medium(number), Beam()) for number in range(1, 7)]
    recorder.open.set()
    assert [future.result(10).text for future in futures] == ["1", "2", "3", "4", "5", "6"]
    assert recorder.batches == [[0], [1, 2, 3, 4], [5, 6]]
    batcher.close()


def test_media_wait_for_others_up_to_the_time_and_no_longer_than_for_a_full_batch():
    recorder = Recorder()
    recorder.open.set()
    batcher = Batcher(size=3, wait=30)
    futures = [batcher.caption(recorder, medium(number), Beam()) for number in range(3)]
    assert [future.result(10).text for future in futures] == ["0", "1", "2"]  # full, long before 30 s
    assert recorder.batches == [[0, 1, 2]]
    last = batcher.caption(recorder, medium(3), Beam())
    batcher.close()  # does not wait for others either
    assert last.result(0).text == "3"


def test_shapes_decodings_and_models_are_not_mixed_and_the_oldest_goes_first():
    batcher, recorder = held(size=8, wait=0)
    other = Recorder()
    other.open.set()
    short = Beam(rules=Rules(max_length=5))
    jobs = [(medium(1), Beam()), (medium(2, 3), Beam()), (medium(3), short), (medium(4), Beam()), (medium(5), short)]
    futures = [batcher.caption(recorder, parts, decoding) for parts, decoding in jobs]
    futures.append(batcher.caption(other, medium(6), Beam()))
    recorder.open.set()
    assert [future.result(10).text for future in futures] == ["1", "2", "3", "4", "5", "6"]
    assert recorder.batches == [[0], [1, 4], [2], [3, 5]] and other.batches == [[6]]
    batcher.close()


def test_a_batch_holds_frames_not_media():
    batcher, recorder = held(size=8, wait=0)
    futures = [batcher.caption(recorder, medium(number, 4), Beam()) for number in (1, 2, 3)]
    recorder.open.set()
    assert [future.result(10).text for future in futures] == ["1", "2", "3"]
    assert recorder.batches == [[0], [1, 2], [3]]
    batcher.close()


def test_required_words_make_batches_smaller():
    """Two required words need four beams per medium, so a batch of 8 takes 2 media."""
    batcher, recorder = held(size=8, wait=0)
    futures = [batcher.caption(recorder, medium(number), Beam(must=(4, 5))) for number in (1, 2, 3)]
    recorder.open.set()
    assert [future.result(10).text for future in futures] == ["1", "2", "3"]
    assert recorder.batches == [[0], [1, 2], [3]]
    batcher.close()


def test_a_medium_that_fails_harms_no_other():
    batcher, recorder = held(size=4, wait=0)
    futures = [batcher.caption(recorder, medium(number), Beam()) for number in (1, -2, 3)]
    recorder.open.set()
    assert futures[0].result(10).text == "1" and futures[2].result(10).text == "3"
    with pytest.raises(RuntimeError, match="cannot be captioned"):
        futures[1].result(10)
    assert recorder.batches == [[0], [1, -2, 3], [1], [-2], [3]]
    batcher.close()


def test_a_client_that_left_is_not_captioned():
    batcher, recorder = held(size=4, wait=0)
    futures = [batcher.caption(recorder, medium(number), Beam()) for number in (1, 2, 3)]
    assert futures[0].cancel() and futures[1].cancel()
    recorder.open.set()
    assert futures[2].result(10).text == "3"
    batcher.close()
    assert recorder.batches == [[0], [3]]


def test_samples_are_drawn_alone_with_their_seed(monkeypatch: pytest.MonkeyPatch):
    seeds: list[int] = []
    monkeypatch.setattr("torch.manual_seed", seeds.append)
    batcher, recorder = held(size=4, wait=0)
    futures = [batcher.caption(recorder, medium(number), Sample(), seed=number) for number in (7, 8)]
    recorder.open.set()
    assert [future.result(10).text for future in futures] == ["7", "8"]
    assert recorder.batches == [[0], [7], [8]] and seeds == [7, 8]
    batcher.close()


def test_calls_have_the_models_for_themselves():
    batcher, recorder = held(size=4, wait=0)
    called = batcher.call(lambda: threading.current_thread().name)
    failed = batcher.call(lambda: 1 / 0)
    recorder.open.set()
    assert called.result(10) == "limner-model"
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    batcher.close()


def test_closing_finishes_what_waits_and_takes_nothing_more():
    counted: list[int] = []
    batcher, recorder = held(size=2, wait=0, on_batch=counted.append)
    futures = [batcher.caption(recorder, medium(number), Beam()) for number in (1, 2, 3)]
    threading.Timer(0.05, recorder.open.set).start()
    assert batcher.is_alive
    batcher.close()
    assert [future.result(0).text for future in futures] == ["1", "2", "3"] and counted == [1, 2, 1]
    assert not batcher.is_alive
    with pytest.raises(RuntimeError, match="stopping"):
        batcher.caption(recorder, medium(4), Beam())
