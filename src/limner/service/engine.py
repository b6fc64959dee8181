"""`Engine`: models that are loaded once, and the threads that read, caption and draw for all requests.

image  -> reading thread -> batcher (one thread owns the models) -> caption
clip   -> clip thread: shots, frames -> batcher, a few pieces at a time -> captions
explanation: reading thread -> batcher: maps -> drawing thread -> PNG or MP4
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import numpy as np

from limner.core.torch_free import Caption
from limner.data.archives import temporary_file
from limner.data.clips import index_clip
from limner.decode.options import Decoding
from limner.inference.load import CaptionPipeline
from limner.inference.pieces import Cut, Piece, Problems, pieces
from limner.service.batcher import Batcher
from limner.service.errors import RequestError
from limner.service.limits import Limits
from limner.service.media import Upload, check_clip, check_image
from limner.service.metrics import Metrics

AHEAD = 4  # pieces of a clip that wait for their captions while the next one is read
DEFAULTS, USUAL_CUT = Limits(), Cut()
Result = TypeVar("Result")
Progress = Callable[[float], Any]  # called with a fraction from 0 to 1


@dataclass(frozen=True)
class Captions:
    """The captions of one medium: one of an image; of a clip one for each piece."""

    pieces: tuple[tuple[Piece, Caption], ...]
    is_clip: bool
    notes: tuple[str, ...] = ()  # damage that was skipped


class Engine:
    """Captions media for many requests at a time."""

    def __init__(
        self,
        models: Mapping[str, CaptionPipeline],
        limits: Limits = DEFAULTS,
        metrics: Metrics | None = None,
        batch_size: int = 16,
        wait: float = 0.005,
        readers: int = 2,
    ):
        """`models` by name, the first one is the default.  `batch_size` and `wait` (seconds) are those of `Batcher`.

        `readers` threads decode images.  Raises ValueError when there is no model.
        """
        if not models:
            raise ValueError("a service needs at least one model")
        self.models, self.limits, self.metrics = dict(models), limits, metrics or Metrics()
        self.fingerprints = {name: pipeline.fingerprint() for name, pipeline in models.items()}
        self.batcher = Batcher(batch_size, wait, self._count_batch)
        self._reading = ThreadPoolExecutor(readers, "limner-read")
        self._clips = ThreadPoolExecutor(2, "limner-clip")
        self._fetching = ThreadPoolExecutor(8, "limner-fetch")  # a slow host holds up nobody who sends the image itself
        self._drawing = ThreadPoolExecutor(1, "limner-draw")  # matplotlib is not made for several threads
        self._admitted, self._recent = 0, 0.1  # media in the house; seconds per caption lately

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self.batcher.is_alive

    def close(self) -> None:
        """Finish what was begun, and end the threads."""
        for pool in (self._fetching, self._reading, self._clips):
            pool.shutdown()
        self.batcher.close()
        self._drawing.shutdown()

    def model(self, name: str) -> tuple[str, CaptionPipeline]:
        """A model by its name, with or without Ollama's `:latest`; "" is the default.

        Raises RequestError when there is none by that name.
        """
        known = name.removesuffix(":latest") or next(iter(self.models))
        if known not in self.models:
            names = ", ".join(self.models)
            raise RequestError(404, f"there is no model {name[:100]!r}; this service has {names}", "model_not_found")
        return known, self.models[known]

    @contextmanager
    def admit(self, media: int) -> Iterator[None]:
        """Inside, places for so many media are taken.  Raises RequestError (429) when there are not enough."""
        if media > self.limits.media:
            message = f"{media} media in one request; at most {self.limits.media} are allowed: send several requests"
            raise RequestError(413, message, "too_many_media")
        if self._admitted + media > max(self.limits.waiting, media):
            seconds = min(60, max(1, round(self._admitted * self._recent)))
            raise RequestError(429, "too many requests are waiting: try again", "busy", retry_after=seconds)
        self._change(media)
        try:
            yield
        finally:
            self._change(-media)

    def _change(self, media: int) -> None:
        self._admitted += media
        self.metrics.waiting.set(self._admitted)

    def _count_batch(self, media: int) -> None:
        self.metrics.batches.observe(media)
        self.metrics.captions.inc(media)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a short function in a reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, function, *arguments)

    async def fetch(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that waits for other hosts."""
        return await asyncio.get_running_loop().run_in_executor(self._fetching, function, *arguments)

    async def within_time(self, work: Awaitable[Result]) -> Result:
        """The result of some work.  Raises RequestError (504) when it takes longer than `limits.seconds`."""
        began = monotonic()
        try:
            result = await asyncio.wait_for(work, self.limits.seconds)
        except asyncio.TimeoutError as error:
            message = f"it took longer than {self.limits.seconds:g} s; a shorter clip or a smaller beam may help"
            raise RequestError(504, message, "timeout") from error
        self._recent += 0.1 * ((monotonic() - began) / max(1, self._admitted) - self._recent)
        return result

    async def caption(
        self,
        upload: Upload,
        pipeline: CaptionPipeline,
        decoding: Decoding,
        cut: Cut = USUAL_CUT,
        seed: int = 0,
        on_progress: Progress = lambda fraction: None,
    ) -> Captions:
        """Caption an image or a clip.  Raises RequestError (413), MediaError, or ValueError when it cannot be done.

        `on_progress` is called from another thread, after every piece of a clip, with the fraction that is captioned.
        """
        if await self.run(lambda: upload.is_clip):
            return await self._caption_clip(upload, pipeline, decoding, cut, seed, on_progress)
        notes: list[str] = []

        def read() -> tuple[Any, ...]:
            check_image(upload, self.limits)
            return pipeline.read(upload.content, notes)

        parts = await self.run(read)
        caption = await _result(self.batcher.caption(pipeline, parts, decoding, seed))
        return Captions(((Piece(upload.label), caption),), False, _named(upload, notes))

    async def _caption_clip(
        self,
        upload: Upload,
        pipeline: CaptionPipeline,
        decoding: Decoding,
        cut: Cut,
        seed: int,
        on_progress: Progress,
    ) -> Captions:
        stop = threading.Event()

        def work() -> Captions:
            return self._clip(upload, pipeline, decoding, cut, seed, stop, on_progress)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._clips, work)
        finally:
            stop.set()

    def _clip(
        self,
        upload: Upload,
        pipeline: CaptionPipeline,
        decoding: Decoding,
        cut: Cut,
        seed: int,
        stop: threading.Event,
        on_progress: Progress,
    ) -> Captions:
        """Caption a clip in the calling thread; gives up between two pieces when `stop` is set."""
        problems = Problems()
        waiting: list[tuple[Piece, Future[Caption]]] = []
        with self.local_clip(upload) as path:
            begin, end = index_clip(path).span
            for piece, source in pieces([path], cut, pipeline.sampling, problems):
                if stop.is_set():
                    break
                parts = pipeline.read(source, problems.notes)
                waiting.append((piece, self.batcher.caption(pipeline, parts, decoding, seed)))
                if len(waiting) > AHEAD:
                    waiting[-AHEAD - 1][1].result()
                    on_progress(((waiting[-AHEAD - 1][0].end or end) - begin) / (end - begin))
            problems.notes = [note.replace(path, upload.local_name) for note in problems.notes]
        if problems.unreadable:
            raise ValueError(problems.unreadable[0])
        found = tuple((piece._replace(file=upload.label), future.result()) for piece, future in waiting)
        return Captions(found, True, _named(upload, problems.notes))

    @contextmanager
    def local_clip(self, upload: Upload) -> Iterator[str]:
        """The path of a temporary file with a clip, whose bounds were checked; errors name `upload.local_name`."""
        check_image(upload, self.limits)  # for animations; a video has no image's header
        with temporary_file(upload.content, upload.local_name) as path:
            check_clip(path, upload, self.limits)
            yield path

    async def on_worker(self, function: Callable[[], Result]) -> Result:
        """The result of a function that uses a model."""
        return await _result(self.batcher.call(function))

    async def draw(self, function: Callable[[], Result]) -> Result:
        """The result of a function that draws."""
        return await asyncio.get_running_loop().run_in_executor(self._drawing, function)

    def warm_up(self) -> None:
        """Caption a grey image with every model, so that the first request does not wait for what is loaded late."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        for pipeline in self.models.values():
            try:
                self.batcher.caption(pipeline, pipeline.read(grey, []), pipeline.decoding).result()
            except ValueError:  # a model of clips
                continue


async def _result(future: "Future[Result]") -> Result:
    """The result of a job of the batcher; the job is cancelled with the task that waits for it."""
    return await asyncio.wrap_future(future)


def _named(upload: Upload, notes: list[str]) -> tuple[str, ...]:
    """Notes about a file, with the name that the client knows."""
    return tuple(upload.reason(ValueError(note)) for note in notes)
