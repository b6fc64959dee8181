"""Disks that are full, read-only or over a quota, at every file that a command opens, makes or renames."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kills import contents, finish, start, undisturbed
from tests.faults.writers import Writer, writers

SAMPLE = ("caption csv", "pack")
ALL = (
    "caption csv", "caption jsonl", "caption html", "subtitles", "extract", "train", "pack",
    "convert", "shapes", "score", "evaluate", "explain",
)  # fmt: skip
ERRORS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def writes(event: str, arguments: tuple[Any, ...], out: str) -> bool:
    """Whether an audit event opens a file below `out` for writing, makes a folder there, or renames something."""
    if event == "open":
        return isinstance(arguments[0], str | bytes) and os.fsdecode(arguments[0]).startswith(out) and bool(
            (arguments[2] or 0) & WRITING
        )  # fmt: skip
    names = [os.fsdecode(name) for name in arguments[:2] if isinstance(name, str | bytes | os.PathLike)]
    return event in ("os.mkdir", "os.rename") and any(name.startswith(out) for name in names)


def failing(words: list[str], out: Path, log: Path, place: int, number: int) -> int:
    """Start a command whose write number `place` below `out`, and all after it, fail -> the process's id."""
    child = os.fork()
    if child:
        return child
    seen = 0

    def fail(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.mkdir", "os.rename") and writes(event, arguments, f"{out}/"):
            seen += 1
            if seen > place:
                name = arguments[0] if isinstance(arguments[0], str) else os.fsdecode(arguments[0])
                raise OSError(number, os.strerror(number), name)

    sys.addaudithook(fail)
    grandchild = start(words, log)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) % 256)


def lost(writer: Writer, folder: Path, places: range) -> list[str]:
    """What was lost, or not said, when the disk failed at these writes."""
    expected, _ = undisturbed(writer, folder / "whole")
    wrong = []
    for place in places:
        number, out, log = ERRORS[place % 3], folder / "failed" / str(place), folder / "failed" / f"{place}.log"
        out.mkdir(parents=True)
        status, seen = finish(failing(writer.command(out, False), out, log, place, number), writer, out)
        said = log.read_text()
        left = [path.name for path in out.rglob("*") if path.name.endswith(".limner")]
        if status not in (0, 1) or "Traceback" in said or (status == 1 and os.strerror(number) not in said):
            wrong.append(f"{place}: status {status}, {said[-400:]}")
        if status == 1 and number != errno.EROFS and "free some space" not in said:
            wrong.append(f"{place}: no advice in {said}")
        if seen or left:
            wrong.append(f"{place}: {seen} {left}")
        again = finish(start(writer.command(out, True), log), writer, out)
        if again != (0, "") or contents(out) != expected:
            wrong.append(f"{place}: then {again} {log.read_text()[-300:]}")
        if status == 0:  # there are no more writes
            break
    return wrong


@pytest.mark.parametrize("name", SAMPLE)
def test_a_disk_that_fails(name: str, tiny: Path, tmp_path: Path):
    assert lost(writers(tiny, tmp_path)[name], tmp_path, range(1, 6, 4)) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", ALL)
def test_a_disk_that_fails_at_every_write(name: str, tiny: Path, tmp_path: Path):
    assert lost(writers(tiny, tmp_path)[name], tmp_path, range(60)) == []


@pytest.mark.faults
@pytest.mark.parametrize("kilobytes", [64, 200, 400])
def test_a_disk_that_is_really_full(kilobytes: int, tiny: Path, tmp_path: Path):
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
            writer, log = writers(tiny, tmp_path)[name], tmp_path / "log"
            out = disk / name.replace(" ", "-")
            out.mkdir()
            status, wrong = finish(start(writer.command(out, False), log), writer, out)
            said = log.read_text()
            assert not wrong and "Traceback" not in said
            assert status == 0 or (status == 1 and "No space left" in said and "free some space" in said)
            assert not [path for path in disk.rglob("*") if path.name.endswith(".limner")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
