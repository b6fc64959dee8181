"""Scenes of a film that plays or of a camera: a caption when the picture has changed, and never a long queue.

A change of colours is certain only after `FLASH` seconds (it may be a camera flash).  To lose no time, the picture
after the change is captioned at once; the caption is shown when the change is certain, and dropped when it was none.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from limner.core.torch_free import Caption, Failure
from limner.data.shots import SHORTEST, ShotDetector, colour_histogram, histogram_distance
from limner.data.video_pixels import upright
from limner.watching.camera import Frame

SIDE = 640  # pixels of the longer side of a picture; no encoder needs more
SAME = 0.1  # share of the pixels that may change colour between the suspicion of a change and its certainty
Event = Literal["suspected", "certain", "refuted"]
Captioned = Caption | Failure


@dataclass(eq=False)
class Scene:
    """A scene, and the picture of it that gets the caption."""

    start: float  # seconds since the beginning of the source
    picture: UInt8[np.ndarray, "H W 3"]
    due: float  # when its first frame was to be seen, on the clock of `time.perf_counter`
    certain: bool = False
    decided: threading.Event = field(default_factory=threading.Event)  # whether it is certain, or was no change


class Seen(NamedTuple):
    """A scene with its caption, and the seconds between its first frame and the caption."""

    scene: Scene
    caption: Captioned
    latency: float


def follow(frames: Iterable[Frame]) -> Iterator[tuple[Event, Scene]]:
    """What happens in frames that come one by one: a change is suspected, then it is certain or refuted.

    When the picture has gone on changing until then, the first picture is refuted, and that of the moment is certain.
    """
    from av.video.reformatter import VideoReformatter

    scale, detector = VideoReformatter(), ShotDetector(slow=True, shortest=SHORTEST)
    suspect: tuple[Scene, Any] | None = None  # a scene that is not certain yet, and its histogram
    first = True
    for frame in frames:
        histogram = colour_histogram(frame.image, scale)
        boundary = detector.update(frame.second, histogram)
        if first:
            first = False
            yield "certain", _scene(frame)
        elif boundary is not None:
            assert suspect is not None
            scene, before = suspect
            if histogram_distance(before, histogram) > SAME:
                yield "refuted", scene
                scene = Scene(scene.start, _picture(frame), scene.due)
            suspect = None
            yield "certain", scene
        elif detector.suspected is None and suspect is not None:
            yield "refuted", suspect[0]
            suspect = None
        elif detector.suspected is not None and suspect is None:
            suspect = _scene(frame), histogram
            yield "suspected", suspect[0]
    if suspect is not None:
        yield "certain", suspect[0]


def _scene(frame: Frame) -> Scene:
    return Scene(frame.second, _picture(frame), frame.due)


def _picture(frame: Frame) -> UInt8[np.ndarray, "H W 3"]:
    return upright(frame.image, SIDE, frame.pixel_aspect)


def caption_scenes(frames: Iterable[Frame], caption: Callable[[np.ndarray], Captioned]) -> Iterator[Seen]:
    """The caption of every scene, one after the other; the result depends on the frames alone."""
    for event, scene in follow(frames):
        if event == "certain":
            yield Seen(scene, caption(scene.picture), time.perf_counter() - scene.due)


class LiveScenes:
    """The captions of scenes while the frames come in: a thread looks at frames, the caller captions.

    Between the two one scene waits; a newer one takes its place, so that a caption is never about a scene long gone.
    """

    def __init__(self, frames: Iterable[Frame], caption: Callable[[np.ndarray], Captioned], stop: threading.Event):
        self.caption, self.stop = caption, stop
        self.dropped = 0  # scenes that ended before they could get a caption
        self._waiting: Scene | None = None
        self._replaced: list[Scene] = []
        self._ended = False
        self._error: BaseException | None = None
        self._suspect: Scene | None = None  # the last one, as long as it is not decided
        self._current: Scene | None = None  # the last one that is certain
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._look, args=(frames,), daemon=True)

    def __iter__(self) -> Iterator[Seen]:
        self._thread.start()
        while (scene := self._next()) is not None:
            if scene.decided.is_set() and not scene.certain:
                continue
            caption = self.caption(scene.picture)
            while not scene.decided.wait(0.1):
                if self._ended or self.stop.is_set():
                    break
            if scene.certain:
                yield Seen(scene, caption, time.perf_counter() - scene.due)
        self._thread.join(5)
        self.dropped = sum(scene.certain for scene in self._replaced)
        if self._error is not None:
            raise self._error

    def _next(self) -> Scene | None:
        with self._change:
            while self._waiting is None and not self._ended and not self.stop.is_set():
                self._change.wait(0.1)
            scene, self._waiting = self._waiting, None
            return scene

    def _look(self, frames: Iterable[Frame]) -> None:
        """Look at the frames, in a thread."""
        try:
            for event, scene in follow(frames):
                known = scene is self._suspect
                self._suspect = scene if event == "suspected" else None
                if event == "certain":
                    scene.certain, self._current = True, scene
                if event != "suspected":
                    scene.decided.set()
                if event == "refuted":
                    self._put_back()
                elif not known:
                    self._put(scene)
        except BaseException as error:
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify()

    def _put_back(self) -> None:
        """Let the scene that goes on wait again, when one that was none has taken its place."""
        if self._current in self._replaced:
            self._replaced.remove(self._current)
            self._put(self._current)

    def _put(self, scene: Scene) -> None:
        with self._change:
            if self._waiting is not None:
                self._replaced.append(self._waiting)
            self._waiting = scene
            self._change.notify()
