"""Prefetching: threads prepare the next items while earlier ones are in use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")


def prefetch(
    work: Callable[[Input], Output], items: Iterable[Input], window: int, workers: int = 1
) -> Iterator[tuple[Input, Output]]:
    """Yield (item, work(item)) in order, while threads compute up to `window` items in advance.

    An exception of `work` is raised when its item is due.  `workers` 0 does the work in the calling thread.  Threads
    are enough because decoding, resizing and tensor operations release the GIL.
    """
    if workers < 1:
        yield from ((item, work(item)) for item in items)
        return
    remaining = iter(items)
    waiting: deque[tuple[Input, Future[Output]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            waiting.extend((item, pool.submit(work, item)) for item in islice(remaining, max(1, window)))
            while waiting:
                item, future = waiting.popleft()
                yield item, future.result()
                waiting.extend((item, pool.submit(work, item)) for item in islice(remaining, 1))
        finally:
            for _, future in waiting:
                future.cancel()
