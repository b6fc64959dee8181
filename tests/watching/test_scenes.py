"""Scenes: what is suspected, certain and refuted; and which scenes get a caption when there is no time for all."""

import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
import pytest

from limner.core.torch_free import Caption
from limner.watching.camera import Frame
from limner.watching.scenes import LiveScenes, caption_scenes, follow

RED, GREEN, BLUE, WHITE = (
    np.full((48, 64, 3), colour, np.uint8) for colour in ((220, 20, 20), (20, 200, 40), (20, 30, 210), (250, 250, 250))
)
RATE = 10


def frames(pictures: Sequence[np.ndarray]) -> Iterator[Frame]:
    """Pictures, ten a second."""
    for number, picture in enumerate(pictures):
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        yield Frame(number / RATE, image, Fraction(1), 0.0)


def events(pictures: Sequence[np.ndarray]) -> list[tuple[str, float, int]]:
    """(event, start of the scene, red of its picture)."""
    return [(event, scene.start, int(scene.picture[0, 0, 0])) for event, scene in follow(frames(pictures))]


def colour(picture: np.ndarray) -> Caption:
    """A caption that names the colour of the first pixel."""
    return Caption(",".join(map(str, picture[0, 0])), 0.0, (), np.zeros((0, 1, 1, 1), np.float32))


def mixed(a: np.ndarray, b: np.ndarray, count: int) -> list[np.ndarray]:
    """The right part of the picture changes from one colour to another, column by column."""
    columns = [round(64 * (k + 1) / count) for k in range(count)]
    return [np.concatenate([b[:, :column], a[:, column:]], 1) for column in columns]


def test_a_cut_is_suspected_at_once_and_certain_later():
    assert events([RED] * 20 + [GREEN] * 20) == [("certain", 0, 220), ("suspected", 2, 20), ("certain", 2, 20)]


def test_a_flash_is_refuted():
    assert events([RED] * 20 + [WHITE] + [RED] * 9) == [("certain", 0, 220), ("suspected", 2, 250), ("refuted", 2, 250)]


def test_a_change_at_the_very_end_counts():
    assert events([RED] * 20 + [GREEN])[1:] == [("suspected", 2, 20), ("certain", 2, 20)]


def test_somebody_who_walks_in_slowly_is_a_new_scene():
    """Each frame changes a twelfth of the picture: more than 35 % after five, and .2 s later again more than 10 %."""
    found = events([RED] * 20 + mixed(RED, GREEN, 12) + [GREEN] * 20)
    assert [event for event, *_ in found[:4]] == ["certain", "suspected", "refuted", "certain"]
    assert [start for _, start, _ in found[1:4]] == [2.4, 2.4, 2.4]
    assert found[-1][0] == "certain" and found[-1][2] == 20  # the caption is of the picture as it is in the end


def test_scenes_follow_each_other_after_a_second_at_least():
    found = [start for event, start, _ in events([RED, RED, GREEN, GREEN, BLUE, BLUE] * 10) if event == "certain"]
    assert 3 < len(found) <= 7  # 30 changes in 6 s


def test_captions_of_frames_alone():
    pictures = [RED] * 20 + [GREEN] * 20 + [WHITE] + [GREEN] * 9 + [BLUE] * 20
    seen = list(caption_scenes(frames(pictures), colour))
    assert [(each.scene.start, each.caption.text) for each in seen] == [
        (0, "220,20,20"), (2, "20,200,40"), (5, "20,30,210"),
    ]  # fmt: skip


def test_live_captions_are_the_same_when_there_is_time():
    pictures = [RED] * 20 + [GREEN] * 20 + [BLUE] * 20
    captioned = threading.Semaphore(0)

    def caption(picture: np.ndarray) -> Caption:
        captioned.release()
        return colour(picture)

    def slow() -> Iterator[Frame]:
        for number, frame in enumerate(frames(pictures)):
            if number in (1, 21, 41):
                assert captioned.acquire(timeout=60)  # the picture before it has its caption
            yield frame

    live = LiveScenes(slow(), caption, threading.Event())
    assert [each.caption.text for each in live] == ["220,20,20", "20,200,40", "20,30,210"] and live.dropped == 0


@pytest.mark.parametrize("flash", [False, True])
def test_a_scene_that_waits_gives_way_to_a_newer_one(flash: bool):
    """A flash takes the place of the scene that waits, and gives it back."""
    pictures = [RED] * 20 + [GREEN] * 20 + [BLUE] * 20 + ([WHITE] + [BLUE] * 9 if flash else [])
    first, produced = threading.Event(), threading.Event()

    def caption(picture: np.ndarray) -> Caption:
        first.set()
        assert produced.wait(60)
        return colour(picture)

    def all_at_once() -> Iterator[Frame]:
        for number, frame in enumerate(frames(pictures)):
            if number == 1:
                assert first.wait(60)
            yield frame
        produced.set()

    live = LiveScenes(all_at_once(), caption, threading.Event())
    assert [(each.scene.start, each.caption.text) for each in live] == [(0, "220,20,20"), (4, "20,30,210")]
    assert live.dropped == 1


def test_an_error_while_looking_is_raised_and_a_stop_ends_it():
    def broken() -> Iterator[Frame]:
        yield from frames([RED])
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(LiveScenes(broken(), colour, threading.Event()))
    stop = threading.Event()
    stop.set()
    assert list(LiveScenes(frames([]), colour, stop)) == []
