"""Locks, temporary folders and replaced folders: what a process that is killed leaves, and what the next one does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from limner.core import replace_folder, temporaries
from limner.core.files import atomic_folder, atomic_write, check_writable, write_text
from limner.core.locks import LONGEST, LockedError, lock_folder, lock_output, short_name
from limner.core.temporaries import temporary_folder
from limner.core.tensors import save_tensors


@contextmanager
def another_process(code: str) -> Iterator[subprocess.Popen]:
    """A process that has run `code` and waits; it is killed afterwards."""
    code = f"import sys, time\n{code}\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def holding(call: str) -> str:
    """Code that enters a context manager of limner and stays in it."""
    module, _, rest = call.partition(":")
    name = rest.partition("(")[0]
    return f"from limner.core.{module} import {name}\nwith {rest}:\n    print('ready', flush=True)\n    time.sleep(60)"


@pytest.mark.parametrize("lock", [lock_output, lock_folder])
def test_a_lock_excludes_another_process_and_ends_with_it(lock, tmp_path: Path):
    out = tmp_path / "x" / "c.csv"
    with another_process(holding(f"locks:{lock.__name__}({str(out)!r})")) as process:
        message = rf"c\.csv is being written by another process \({process.pid}\)"
        with pytest.raises(LockedError, match=message):
            lock(out).__enter__()
    (left,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert left.name.endswith(".lock")  # it was killed
    with lock(out):
        pass
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_lock_leaves_no_folder_that_it_made(tmp_path: Path):
    with lock_output(tmp_path / "a" / "b" / "c.csv"):
        assert (tmp_path / "a" / "b").is_dir()
    with lock_folder(tmp_path / "run"):
        (tmp_path / "run" / "x").touch()
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == ["x"]


def test_two_outputs_have_two_locks(tmp_path: Path):
    long = "ä" * (LONGEST // 2)
    with lock_output(tmp_path / f"{long}1.csv"), lock_output(tmp_path / f"{long}2.csv"):
        assert len(os.listdir(tmp_path)) == 2
    assert short_name("a") == "a" and len(short_name(long + "x")) == 32


def test_temporaries_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(tmp_path: Path, monkeypatch):
    living, dead = (holding(f"temporaries:temporary_folder({str(tmp_path)!r}, {name!r})") for name in ("a", "b"))
    with another_process(dead) as process:
        (made,) = os.listdir(tmp_path)
        (tmp_path / made / "content").write_bytes(b"x" * 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with another_process(living):
        write_text(tmp_path / "other.txt", "x")  # any writer in this folder
        (left,) = {path.name for path in tmp_path.iterdir()} - {"other.txt"}
        assert left.startswith(".a.") and made.startswith(".b.")
    monkeypatch.setattr(temporaries, "_swept", set())  # the next process
    (tmp_path / ".mine.12345678.limner").touch()  # a file of somebody
    (tmp_path / ".limner").mkdir()
    write_text(tmp_path / "other.txt", "y")
    assert sorted(os.listdir(tmp_path)) == [".limner", ".mine.12345678.limner", "other.txt"]


def test_a_file_that_could_not_be_written_stays_as_it_was(tmp_path: Path):
    write_text(tmp_path / "x", "old")

    def fail() -> None:
        with atomic_write(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert (tmp_path / "x").read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_names_of_255_bytes(tmp_path: Path):
    write_text(tmp_path / ("ä" * 125 + ".json"), "x")
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("exchangeable", [True, False])
def test_a_folder_is_replaced_whole(exchangeable: bool, tmp_path: Path, monkeypatch):
    """Also where folders cannot be exchanged."""
    if not exchangeable:
        monkeypatch.setattr(replace_folder, "exchange", lambda first, second: False)
    out = tmp_path / "m"
    for files in (("a", "b"), ("b", "c")):
        with atomic_folder(out) as new:
            for name in files:
                (new / name).write_text(" ".join(files))
        assert sorted(os.listdir(out)) == list(files) and (out / "b").read_text() == " ".join(files)
        assert os.listdir(tmp_path) == ["m"]

    def fail() -> None:
        with atomic_folder(out) as new:
            (new / "x").touch()
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert sorted(os.listdir(out)) == ["b", "c"] and os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("renames", [1, 2])
def test_a_kill_between_the_renames_loses_no_folder(renames: int, tmp_path: Path, monkeypatch):
    """Where folders cannot be exchanged, a process is killed after the first or the second of three renames."""
    out, new = tmp_path / "m", tmp_path / "new"
    for folder, text in ((out, "old"), (new, "new")):
        folder.mkdir()
        (folder / "x").write_text(text)
    rename, done = os.rename, []

    def killed(source: Path, target: Path) -> None:
        if len(done) == renames:
            os._exit(9)
        done.append(rename(source, target))

    monkeypatch.setattr(replace_folder, "exchange", lambda first, second: False)
    monkeypatch.setattr(replace_folder.os, "rename", killed)
    child = os.fork()
    if child == 0:
        replace_folder.replace_folder(new, out)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    assert out.exists() is (renames == 2)
    replace_folder.recover_folder(out)
    assert (out / "x").read_text() == ("old" if renames == 1 else "new")
    assert not list(tmp_path.glob(".m.previous"))


def test_folders_can_be_exchanged_here(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert replace_folder.exchange(tmp_path / "a", tmp_path / "b") is (sys.platform in ("linux", "darwin"))
    assert os.listdir(tmp_path / "a") == ["b"] and os.listdir(tmp_path / "b") == ["a"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "m").symlink_to("real")
    with atomic_folder(tmp_path / "m") as new:
        (new / "x").touch()
    assert (tmp_path / "m").is_symlink() and os.listdir(tmp_path / "real") == ["x"]


def test_what_cannot_be_written_is_found_before(tmp_path: Path):
    check_writable(tmp_path / "new" / "folder" / "x.csv")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as failed:
        check_writable(tmp_path / "file" / "x.csv")
    assert failed.value.filename == str(tmp_path / "file" / "x.csv")
    with pytest.raises(OSError) as failed, temporary_folder("/proc/self", "x.csv"):
        pass
    assert failed.value.filename == "/proc/self/x.csv"


def test_weights_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(1)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
