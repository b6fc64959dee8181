"""Work ahead of the reader: items are prepared in threads while earlier ones are in use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], window: int, workers: int = 1
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in order, at most `window` items ahead.  An error of `work` is raised when its turn comes.

    `workers` 0 does the work in the calling thread.  Decoding, resizing and tensor operations release the GIL.
    """
    if workers < 1:
        yield from ((item, work(item)) for item in items)
        return
    remaining = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
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
