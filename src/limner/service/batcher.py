"""Dynamic batching: one thread owns the models and captions together what waits with the same shape and decoding."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from limner.core.torch_free import Caption
from limner.decode.options import Decoding, Sample, media_per_search


@runtime_checkable
class Decoder(Protocol):
    """What the batcher needs of a `CaptionPipeline`."""

    def decode(self, pixels: Sequence[Any], decoding: Decoding) -> Sequence[Caption]:
        """Caption media that were read, all of one shape."""
        ...


@dataclass
class _Job:
    """A medium that waits for its caption, or with `call` anything else that needs the models."""

    future: Future[Any]
    pipeline: Decoder | None = None
    decoding: Decoding | None = None
    parts: tuple[Any, ...] = ()  # what `pipeline.read` returned
    seed: int = 0
    call: Callable[[], Any] | None = None
    since: float = field(default_factory=monotonic)

    @property
    def frames(self) -> int:
        return len(self.parts[0]) if self.parts else 1

    def joins(self, other: "_Job") -> bool:
        """Whether the two can be captioned in one batch.  Sampled captions depend on their seed, so each is alone."""
        if self.call or other.call or isinstance(self.decoding, Sample):
            return self is other
        shapes = [[part.shape for part in job.parts] for job in (self, other)]
        return self.pipeline is other.pipeline and self.decoding == other.decoding and shapes[0] == shapes[1]


class Batcher:
    """Captions media that were read elsewhere, in batches of up to `size` frames.

    A medium waits at most `wait` seconds for others; while a batch is captioned, the next one gathers.  The oldest
    medium is always in the next batch, so none starves.  An error of a batch is repeated for each of its media alone,
    so that one medium harms no other.
    """

    def __init__(self, size: int = 16, wait: float = 0.005, on_batch: Callable[[int], Any] = lambda media: None):
        """`on_batch` is called with the number of media of every batch."""
        self.size, self.wait, self.on_batch = size, wait, on_batch
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="limner-model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether new work would be done."""
        return self._thread.is_alive() and not self._closed

    def caption(
        self, pipeline: Decoder, parts: tuple[Any, ...], decoding: Decoding, seed: int = 0
    ) -> "Future[Caption]":
        """The caption of a medium that `pipeline.read` has read, later.  `seed` is for sampling."""
        return self._put(_Job(Future(), pipeline, decoding, parts, seed))

    def call(self, function: Callable[[], Any]) -> "Future[Any]":
        """The result of a function that uses the models, later."""
        return self._put(_Job(Future(), call=function))

    def close(self) -> None:
        """Finish what waits, then stop.  Raises RuntimeError in later calls of `caption`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _put(self, job: _Job) -> "Future[Any]":
        with self._changed:
            if self._closed:
                raise RuntimeError("the service is stopping")
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    def _run(self) -> None:
        while batch := self._next_batch():
            self._work(batch)

    def _next_batch(self) -> list[_Job]:
        """The oldest job and those that join it; empty when the batcher is closed and nothing waits."""
        with self._changed:
            while True:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return []
                first = self._waiting[0]
                left = first.since + self.wait - monotonic()
                if left > 0 and not self._closed and not first.call and self._joining_frames(first) < self.size:
                    self._changed.wait(left)
                    continue
                if batch := self._take(first):
                    return batch

    def _joining_frames(self, first: _Job) -> int:
        return sum(job.frames for job in self._waiting if first.joins(job))

    def _take(self, first: _Job) -> list[_Job]:
        """Remove a batch from those who wait; without the media whose clients have gone."""
        room = self.size if first.decoding is None else media_per_search(first.decoding, self.size)
        batch: list[_Job] = []
        kept: deque[_Job] = deque()
        for job in self._waiting:
            if room <= 0 or not first.joins(job):
                kept.append(job)
            elif job.future.set_running_or_notify_cancel():
                batch.append(job)
                room -= job.frames
        self._waiting = kept
        return batch

    def _work(self, batch: list[_Job]) -> None:
        try:
            results = _results(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:
                self._work([job])
            return
        if not batch[0].call:
            self.on_batch(len(batch))
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)


def _results(batch: list[_Job]) -> list[Any]:
    """The captions of a batch."""
    first = batch[0]
    if first.call:
        return [first.call()]
    assert first.pipeline is not None
    assert first.decoding is not None
    if isinstance(first.decoding, Sample):
        import torch  # imported here: exported models do without

        torch.manual_seed(first.seed)
    return list(first.pipeline.decode([job.parts for job in batch], first.decoding))
