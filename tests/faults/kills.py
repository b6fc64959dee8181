"""Kills a command at a random moment, calls it again, and compares what is there with an undisturbed call."""

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from limner.core import temporaries
from limner.runs.checkpoint import CHECKPOINT, load_checkpoint
from tests.faults.checks import Writer

UNEQUAL = ("log.jsonl", "tensorboard", ".limner-watch")  # wall times
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Outcome(NamedTuple):
    """What a kill did.  `lost` says what is wrong; "" when nothing is."""

    writer: str
    seed: int
    signal: str
    at: float  # seconds after the beginning
    lost: str


def start(
    writer: Writer,
    out: Path,
    again: bool,
    log: Path,
    forked: bool = False,
    at_end: Callable[[], object] = lambda: None,
) -> int:
    """Start a command in a forked process, which has imported everything already -> its id.

    `again`: an earlier call was killed.  `forked`: this process is the forked one.
    """
    child = 0 if forked else os.fork()
    if child:
        return child
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115  (not those of pytest)
        temporaries._swept.clear()  # as in a new process
        os.environ.update({name: value.replace("OUT", str(out)) for name, value in writer.environment.items()})
        for module, name, value in writer.patches:
            setattr(module, name, value)
        from limner.apps.cli import main

        status = main(writer.command(out, again))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        at_end()
        os._exit(status)


def finish(child: int, writer: Writer, out: Path, until: float | None = None) -> tuple[int | None, str]:
    """Poll what the process writes -> (its status; None: it still runs at the time `until`, what is not whole)."""
    wrong = ""
    while until is None or time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), wrong
        try:
            writer.whole(out)
        except BaseException as error:
            wrong = wrong or f"a reader saw {type(error).__name__}: {error:.100}"
        time.sleep(0.01)
    return None, wrong


def undisturbed(writer: Writer, folder: Path) -> tuple[dict[str, bytes], float]:
    """What the command leaves, and the seconds that it takes."""
    folder.mkdir(parents=True)
    writer.prepare(folder)
    begin = time.monotonic()
    status, wrong = finish(start(writer, folder, False, folder.parent / "log"), writer, folder)
    assert status == 0 and not wrong, (wrong, (folder.parent / "log").read_text())
    return contents(folder), time.monotonic() - begin


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their names, without those that hold wall times."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: bytes_of(path).replace(os.fsencode(folder), b"OUT")
        for name, path in files.items()
        if not any(part in name for part in UNEQUAL)
    }


def bytes_of(path: Path) -> bytes:
    """The bytes of a file; of a checkpoint, its values and its state without the wall time."""
    if path.name != CHECKPOINT:
        return path.read_bytes()
    tensors, state, _ = load_checkpoint(path.parent)
    del state["seconds"]
    values = b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors))
    return values + repr(sorted(state.items())).encode()


def kill(writer: Writer, folder: Path, expected: dict[str, bytes], seconds: float, seed: int) -> Outcome:
    """One kill, the call after it, and what was lost."""
    draw = random.Random(f"{writer.name} {seed}")
    number, at = draw.choice(SIGNALS), draw.uniform(0, seconds)
    out, log = folder / f"{seed}", folder / f"{seed}.log"
    out.mkdir(parents=True)
    writer.prepare(out)
    child = start(writer, out, False, log)
    status, wrong = finish(child, writer, out, time.monotonic() + at)
    if status is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        status, more = finish(child, writer, out)
        wrong = wrong or more
        if number != signal.SIGKILL and status not in (0, 130, -number):
            wrong = wrong or f"status {status}: {log.read_text()[-300:]}"
    again = finish(start(writer, out, True, log), writer, out)
    found = contents(out)
    if found != expected:
        names = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
        said = log.read_text()[-300:] if again[0] else ""  # it may refuse to do again what was done already
        wrong = wrong or f"the call after it ended with {again[0]}: other bytes in {sorted(names)[:4]} {said}"
    return Outcome(writer.name, seed, signal.Signals(number).name, at, wrong or again[1])
