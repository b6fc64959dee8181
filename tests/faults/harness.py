"""Runs readers on damaged files in a process of its own, and says what must not happen."""

import contextlib
import hashlib
import io
import math
import os
import pickle
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.faults.mutate import mutate
from tests.faults.readers import Reader

SECONDS = 5.0
BYTES = 1 << 30  # more than a process has at its beginning
REPORTED = (ValueError, OSError, FloatingPointError, ImportError)  # what `limner` reports in one line
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EXECUTED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn")


class Fault(NamedTuple):
    """A damaged file that did what none may do."""

    reader: str
    file: str
    seed: int
    what: str


class Tries(NamedTuple):
    """How many damaged files were read, and what went wrong."""

    count: int
    faults: list[Fault]


class NoEnd(BaseException):
    """A reader did not end."""


class Executed(BaseException):
    """Something tried to start a program."""


def one_damaged(files: dict[Path, bytes], seed: int) -> tuple[Path, bytes]:
    """One of the files, and a damaged copy of its bytes."""
    path = list(files)[seed % len(files)]
    return path, mutate(files[path], seed)


def try_damaged(
    reader: Reader,
    seeds: range,
    root: Path,
    seconds: float = math.inf,
    damage: Callable[[dict[Path, bytes], int], tuple[Path, bytes]] = one_damaged,
) -> Tries:
    """Read the files of a reader once for each seed, one of them damaged, in a forked process.

    `root` is a folder of this test alone, with the files in it: what readers write there is removed after each try.
    After so many `seconds` no further seed is tried.  `damage` gives the file for a seed, and its new bytes.
    """
    assert all(root in path.parents for path in reader.files)
    begin, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(begin)
        with os.fdopen(end, "wb") as report:
            status = 1
            try:
                _child(reader, seeds, report, root, seconds, damage)
                status = 0
            finally:
                report.flush()
                os._exit(status)
    os.close(end)
    with os.fdopen(begin, "rb") as report:
        data = report.read()
    status = os.waitpid(child, 0)[1]
    faults, last, count = [], -1, 0
    stream = io.BytesIO(data)
    with contextlib.suppress(EOFError):
        while True:
            item = pickle.load(stream)
            if isinstance(item, int):
                last, count = item, count + 1
            else:
                faults.append(Fault(*item))
    if status:
        faults.append(Fault(reader.name, "?", last, f"the process ended with {os.waitstatus_to_exitcode(status)}"))
    return Tries(count, faults)


def _child(reader: Reader, seeds: range, report: Any, root: Path, seconds: float, damage: Any) -> None:
    torch.set_num_threads(1)
    written: list[str] = []
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, written))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    whole = {path: path.read_bytes() for path in reader.files}
    before = set(root.rglob("*"))
    expected = _digest(_outcome(reader.read)[1]) if reader.sealed else ""
    size = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * BYTES, size + 2 * BYTES))
    peak, until = _peak(), time.monotonic() + seconds
    for seed in seeds:
        if time.monotonic() > until:
            break
        pickle.dump(seed, report)
        report.flush()
        path, data = damage(whole, seed)
        path.write_bytes(data)
        written.clear()
        begin = time.process_time()  # a busy machine is no fault of a reader
        kind, value = _outcome(reader.read)
        took, grown = time.process_time() - begin, _peak() - peak
        wrong = ""
        if kind == "broken":
            wrong = value
        elif took > SECONDS:
            wrong = f"it took {took:.1f} s"
        elif grown > BYTES:
            wrong = f"it took {grown >> 20} MiB"
        elif reader.sealed and kind == "read" and _digest(value) != expected:
            wrong = "accepted, and is not what was written"
        if wrong:
            pickle.dump((reader.name, path.name, seed, wrong), report)
        peak = max(peak, _peak())
        if written:
            _restore(root, before, whole)
        else:
            path.write_bytes(whole[path])


def _outcome(read: Callable[[], Any]) -> tuple[str, Any]:
    """("read", value), ("refused", message) or ("broken", what went wrong)."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(60)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return "read", read()
    except REPORTED as error:
        return "refused", str(error)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        own = next((frame for frame in reversed(place) if "/limner/" in frame.filename), place[-1])
        return "broken", f"{type(error).__name__}: {error!s:.80} ({Path(own.filename).name}:{own.lineno} {own.name})"
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise NoEnd("60 s without an end")


def _watch(event: str, arguments: tuple[Any, ...], written: list[str]) -> None:
    """Refuse to start programs, and note what is written: files are opened for writing, and folders made."""
    if event in EXECUTED:
        raise Executed(event)
    if event == "os.mkdir" or (event == "open" and (arguments[2] or 0) & WRITING):
        written.append(str(arguments[0]))


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _restore(root: Path, before: set[Path], whole: dict[Path, bytes]) -> None:
    """Remove what a reader has written below `root`, and write back what it has changed."""
    for path in sorted(set(root.rglob("*")) - before, reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path, data in whole.items():
        path.write_bytes(data)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
