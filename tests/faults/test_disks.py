"""Disks that are full, read-only or over a quota, at every place where a command writes, up to the last one.

With `failing_disk.c` (`make faults` compiles and loads it) these are all calls of the C library that open files for
writing, write, sync, close, rename and make folders; without it, the files that Python opens, renames and folders.
"""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checks import Writer
from tests.faults.kills import contents, finish, start, undisturbed
from tests.faults.writers import NAMES, writers

SAMPLE = ("caption csv", "pack", "sidecar json")
ERRORS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PLACES = int(os.environ.get("LIMNER_PLACES", "5"))  # of a command, spread over all of them; 0: every one
LOG = os.environ.get("LIMNER_DISK_LOG", "")


@pytest.fixture(scope="module")
def all_writers(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Writer]:
    return writers(tiny, tmp_path_factory.mktemp("inputs"))


def library() -> ctypes.CDLL | None:
    """The functions of failing_disk.c; None when it is not loaded."""
    here = ctypes.CDLL(None)
    return here if hasattr(here, "limner_fail") else None


def writes(event: str, arguments: tuple[Any, ...], out: str) -> bool:
    """Whether an audit event opens a file below `out` for writing, makes a folder there, or renames something."""
    if event == "open":
        return isinstance(arguments[0], str | bytes) and os.fsdecode(arguments[0]).startswith(out) and bool(
            (arguments[2] or 0) & WRITING
        )  # fmt: skip
    names = [os.fsdecode(name) for name in arguments[:2] if isinstance(name, str | bytes | os.PathLike)]
    return event in ("os.mkdir", "os.rename") and any(name.startswith(out) for name in names)


def failing(writer: Writer, out: Path, log: Path, place: int, number: int) -> int:
    """Start a command whose write number `place` below `out`, and all after it, fail -> the process's id.

    What it writes besides to `log` is the number of places that it came to, in `log.seen`.
    """
    child = os.fork()
    if child:
        return child
    seen, disk = 0, library()

    def fail(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.mkdir", "os.rename") and writes(event, arguments, f"{out}/"):
            seen += 1
            if seen > place:
                name = arguments[0] if isinstance(arguments[0], str) else os.fsdecode(arguments[0])
                raise OSError(number, os.strerror(number), name)

    def count() -> None:
        log.with_suffix(".seen").write_text(str(disk.limner_seen() if disk else seen))

    if disk:
        disk.limner_fail(os.fsencode(f"{out}/"), ctypes.c_long(place), number)
    else:
        sys.addaudithook(fail)
    start(writer, out, False, log, forked=True, at_end=count)
    os._exit(70)


def places_of(writer: Writer, folder: Path) -> range:
    """Where a command writes: all places, or PLACES of them and the last two."""
    out, log = folder / "counted" / "out", folder / "counted" / "log"
    out.mkdir(parents=True)
    writer.prepare(out)
    status, wrong = finish(failing(writer, out, log, 1 << 30, 0), writer, out)
    assert status in (0, 3) and not wrong, log.read_text()
    return range(int(log.with_suffix(".seen").read_text()))


def lost(writer: Writer, folder: Path, places: int) -> list[str]:
    """What was lost, or not said, when the disk failed at so many places; 0: at every one."""
    expected, _ = undisturbed(writer, folder / "whole")
    every = places_of(writer, folder)
    chosen = [*every[:: max(1, len(every) // places)], *every[-2:]] if places else [*every]
    wrong = []
    for place in sorted(set(chosen)):
        number, out, log = ERRORS[place % 3], folder / "failed" / str(place), folder / "failed" / f"{place}.log"
        out.mkdir(parents=True)
        writer.prepare(out)
        before = contents(out)
        status, seen = finish(failing(writer, out, log, place, number), writer, out)
        said = log.read_text()
        left = [path.name for path in out.rglob("*") if path.name.endswith(".limner")]
        done = status == 0 and contents(out) == expected  # what failed was only for messages, or a cache
        if status not in (0, 1, 3) or "Traceback" in said or (status == 1 and os.strerror(number) not in said):
            wrong.append(f"{place}: status {status}, {said[-400:]}")
        if status in (0, 3) and not done and os.strerror(number) not in said and contents(out) != before:
            wrong.append(f"{place}: status {status}, nothing said: {said[-300:]}")
        if status == 1 and number != errno.EROFS and "free some space" not in said:
            wrong.append(f"{place}: no advice in {said}")
        if seen or left:
            wrong.append(f"{place}: {seen} {left}")
        again = finish(start(writer, out, True, log), writer, out)
        if contents(out) != expected or again[1]:  # a command may refuse to do again what is done
            wrong.append(f"{place}: then {again} {log.read_text()[-300:]}")
    if LOG:
        with open(LOG, "a", encoding="utf-8") as file:
            print(writer.name, len(every), len(set(chosen)), len(wrong), ascii(wrong[:3]), sep="\t", file=file)
    return wrong


@pytest.mark.parametrize("name", SAMPLE)
def test_a_disk_that_fails(name: str, all_writers: dict[str, Writer], tmp_path: Path):
    assert lost(all_writers[name], tmp_path, 2) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", [name for name in NAMES if name != "export"])
def test_a_disk_that_fails_at_every_write(name: str, all_writers: dict[str, Writer], tmp_path: Path):
    assert lost(all_writers[name], tmp_path, PLACES) == []


@pytest.mark.faults
@pytest.mark.parametrize("kilobytes", [64, 200, 400])
def test_a_disk_that_is_really_full(kilobytes: int, all_writers: dict[str, Writer], tmp_path: Path):
    """A small tmpfs, where that may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        for name in ("train", "pack", "extract"):
            writer, log = all_writers[name], tmp_path / "log"
            out = disk / name.replace(" ", "-")
            out.mkdir()
            status, wrong = finish(start(writer, out, False, log), writer, out)
            said = log.read_text()
            assert not wrong and "Traceback" not in said
            assert status == 0 or (status == 1 and "No space left" in said and "free some space" in said)
            assert not [path for path in disk.rglob("*") if path.name.endswith(".limner")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
