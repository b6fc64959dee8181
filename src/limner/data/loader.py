"""Reading ahead: worker processes of `torch.utils.data`, or one thread, prepare the next batches in order.

What is read for a batch follows from the batch alone: its media, captions, augmentations and frame seeds are drawn
before it is read, from (seed, epoch).  So any number of workers gives the same batches in the same order, bit for bit.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from limner.data.prefetch import prefetch

Input = TypeVar("Input")
Output = TypeVar("Output")
Reports = tuple[dict[str, str], ...]

MOST_WORKERS = 8  # of those that are chosen here; JPEG batches of 8 cores feed a GPU
AHEAD = 2  # batches that each worker, or the thread, prepares before they are needed


@dataclass(frozen=True)
class Loading:
    """How batches are read ahead."""

    workers: int = 0  # processes that read; 0: a thread of this process
    pin_memory: bool = False  # batches, or lists of them, come in page-locked memory, for copies to a GPU
    notes: dict[str, str] = field(default_factory=dict)  # of the reader, by id of a medium; workers report theirs here


def default_workers(raw: bool, device: torch.device) -> int:
    """The number of workers where a recipe names none: 0, unless raw media are read for a GPU.

    Then it is one less than the cores of this process, at most MOST_WORKERS.  On a CPU the workers would take the cores
    from the model, and stored features are read faster than they are copied from process to process.

    >>> default_workers(raw=True, device=torch.device("cpu")), default_workers(raw=False, device=torch.device("cuda"))
    (0, 0)
    """
    if not raw or device.type == "cpu" or "fork" not in get_all_start_methods():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


class ReadAhead(Generic[Input, Output]):
    """Calls `work` for items in other processes or in a thread, and returns the results in the order of the items.

    `reports` are dictionaries that `work` fills, for example with the media that could not be read; entries that a
    worker adds are added here when its result is returned.  Workers are forked at the first call, stay until `close`,
    and get each item by pickle, `work` by the fork.  An exception of `work` is raised when its item is due.

    >>> ahead = ReadAhead(lambda numbers: torch.tensor(numbers).sum().item(), Loading(workers=2))
    >>> list(ahead([[1, 2], [3], [4, 5]]))
    [3, 3, 9]
    >>> ahead.close()
    """

    def __init__(self, work: Callable[[Input], Output], loading: Loading, reports: Reports = ()):
        """Raises ValueError for workers on a system without fork, or for a negative number of them."""
        if loading.workers < 0:
            raise ValueError(f"workers is {loading.workers}; it must be 0 or more")
        if loading.workers and "fork" not in get_all_start_methods():
            raise ValueError(f"workers is {loading.workers}, but this system has no fork: set workers to 0")
        self.work, self.loading, self.reports = work, loading, reports
        self._items = _Items()
        self._loader: DataLoader[Any] | None = None

    def __call__(self, items: Sequence[Input]) -> Iterator[Output]:
        """Yield `work(item)` for every item; a second call must wait for the end of the first one."""
        if self.loading.workers == 0:
            work = self._pinned if self.loading.pin_memory else self.work
            return (result for _, result in prefetch(work, items, window=AHEAD))
        return self._from_workers(items)

    def _pinned(self, item: Input) -> Any:
        result: Any = self.work(item)
        return [each.pin_memory() for each in result] if isinstance(result, list) else result.pin_memory()

    def _from_workers(self, items: Sequence[Input]) -> Iterator[Output]:
        if not items:
            return
        self._items.items = items
        if self._loader is None:
            # imports Pillow's plugins: a worker that is forked while a thread imports them would wait for ever
            Image.init()
            self._loader = DataLoader(
                _Work(self.work, self.reports),
                batch_size=None,
                sampler=self._items,
                num_workers=self.loading.workers,
                collate_fn=_unchanged,
                pin_memory=self.loading.pin_memory,
                worker_init_fn=_begin_worker,
                multiprocessing_context="fork",
                generator=torch.Generator(),  # of its own: the loader draws a seed, and training must not notice
                prefetch_factor=AHEAD,
                persistent_workers=True,
            )
        batches = iter(self._loader)
        while True:
            with died_workers(EOFError, ConnectionResetError):  # the connection ends before PyTorch notices the death
                received = next(batches, None)
            if received is None:
                return
            result, error, reported = received
            for report, entries in zip(self.reports, reported, strict=True):
                report.update(entries)
            if error is not None:
                raise error
            yield result

    def close(self) -> None:
        """End the workers; a later call starts new ones."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()  # the loader would do so only when it is collected
        self._loader = None


class _Items(Sampler[Any]):
    """The items of the current call, in order."""

    def __init__(self) -> None:
        self.items: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class _Work(Dataset[Any]):
    """What a worker does with an item -> (result, exception, new entries of the reports)."""

    def __init__(self, work: Callable[[Any], Any], reports: Reports):
        self.work, self.reports = work, reports
        self.known: list[dict[str, str]] = [dict(report) for report in reports]

    def __getitem__(self, item: Any) -> tuple[Any, Exception | None, tuple[dict[str, str], ...]]:
        result, raised = None, None
        try:
            result = self.work(item)
        except Exception as error:  # handed over as it is; DataLoader would put a traceback into its message
            raised = error
        new = tuple(
            {key: text for key, text in report.items() if known.get(key) != text}
            for report, known in zip(self.reports, self.known, strict=True)
        )
        for known, entries in zip(self.known, new, strict=True):
            known.update(entries)
        return result, raised, new


def _unchanged(value: Any) -> Any:
    return value


def _begin_worker(number: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the first one decides, and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def died_workers(*others: type[Exception]) -> Iterator[None]:
    """Context manager that makes the death of a worker a ChildProcessError with the cause and the cure.

    PyTorch raises the death of a worker wherever the program happens to be.  `others` are further errors that can have
    no other cause inside.
    """
    try:
        yield
    except (RuntimeError, *others) as error:
        text = str(error) or type(error).__name__
        if not isinstance(error, others) and "DataLoader worker" not in text:
            raise
        full = "shared memory" in text or "Bus error" in text
        cure = (
            "its shared memory (/dev/shm) is full: give the container more (docker run --ipc=host), or set fewer "
            "`workers`"
            if full
            else "it was killed, perhaps because memory ran out: set fewer `workers`, or 0"
        )
        raise ChildProcessError(f"a process that reads batches has died; {cure} ({text.splitlines()[0]})") from error
