"""`limner watch FOLDER` with the tiny model: slow writers, renames, kills, bad files, sidecars."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import limner
from limner.apps.cli import main
from limner.apps.shared.watch_folder import append_rows, drop_cut_line
from tests.data.videos import greys, write
from tests.service.world import images

QUICK = ("--settle", "0.1", "--interval", "0.02", "--patience", "0.3")


def watch(tiny: Path, folder: Path, *more: str | Path) -> int:
    """`limner watch --once` with an output beside the folder."""
    out = folder.with_suffix(".jsonl")
    return main(
        ["watch", str(folder), "--model", str(tiny / "run"), "--once", "--out", str(out), *QUICK, *map(str, more)]
    )


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in folder.with_suffix(".jsonl").read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return [Path(row["file"]).name for row in rows(folder)]


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A folder with three images, one of them in a subfolder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for path, name in zip(images(tiny, 3), ("a.png", "b.png", "sub/c.png"), strict=True):
        shutil.copy(path, tmp_path / "in" / name)
    return tmp_path / "in"


def test_every_file_gets_the_caption_of_limner_caption_once(
    tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert watch(tiny, folder, "--sidecar", "txt", "--prefix", "x ") == 0
    captioner = limner.load(tiny / "run")
    expected = {f"{folder}/{name}": captioner.caption(folder / name).text for name in ("a.png", "b.png", "sub/c.png")}
    assert {row["file"]: row["caption"] for row in rows(folder)} == expected
    assert (folder / "sub" / "c.txt").read_text() == f"x {expected[f'{folder}/sub/c.png']}\n"
    out = capsys.readouterr().out
    assert f"{folder}/a.png: {expected[f'{folder}/a.png']}\n" in out and out.endswith("done: 3 captions, 0 problems\n")
    before = folder.with_suffix(".jsonl").read_bytes()
    assert watch(tiny, folder, "--sidecar", "txt", "--prefix", "x ") == 0
    assert folder.with_suffix(".jsonl").read_bytes() == before
    assert capsys.readouterr().out == "done: 0 captions, 0 problems\n"


def test_renamed_touched_copied_and_changed_files(tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert watch(tiny, folder, "--sidecar", "txt") == 0
    caption = (folder / "a.txt").read_text()
    os.rename(folder / "a.png", folder / "sub" / "renamed.png")
    os.utime(folder / "b.png", (1, 1))
    shutil.copy(folder / "b.png", folder / "copy.png")
    shutil.copy(images(tiny, 4)[3], folder / "sub" / "c.png")  # another picture
    capsys.readouterr()
    assert watch(tiny, folder, "--sidecar", "txt") == 0
    assert names(folder) == ["a.png", "b.png", "c.png", "copy.png"]  # c.png keeps its sidecar, as --existing says
    assert (folder / "sub" / "renamed.txt").read_text() == caption and (folder / "copy.txt").exists()
    said = capsys.readouterr()
    assert f"{folder}/sub/renamed.png: was {folder}/a.png\n" in said.out and "keep it: 1" in said.err
    (folder / "sub" / "c.txt").unlink()
    assert watch(tiny, folder, "--sidecar", "txt") == 0
    assert names(folder)[4:] == ["c.png"]


def test_a_file_that_is_written_slowly_gets_one_caption(tiny: Path, folder: Path):
    """Whether a pause of the writer is shorter or longer than the time to settle."""
    content = images(tiny, 5)[4].read_bytes()
    begun = threading.Event()

    def write_slowly() -> None:
        with open(folder / "slow.png", "wb", buffering=0) as file:
            for at in range(0, len(content), len(content) // 6 + 1):
                file.write(content[at : at + len(content) // 6 + 1])
                begun.set()
                time.sleep(0.15)
        with open(folder / "moved.png.part", "wb") as file:
            file.write(content[::-1])
            time.sleep(0.3)
            file.seek(0)
            file.write(images(tiny, 6)[5].read_bytes())
            file.truncate()
        os.rename(folder / "moved.png.part", folder / "moved.png")

    writer = threading.Thread(target=write_slowly)
    writer.start()
    begun.wait()
    assert watch(tiny, folder, "--patience", "60") == 0
    writer.join()
    assert watch(tiny, folder, "--patience", "60") == 0
    assert Counter(names(folder)) == dict.fromkeys(("a.png", "b.png", "c.png", "slow.png", "moved.png"), 1)
    found = {Path(row["file"]).name: row["caption"] for row in rows(folder)}
    assert found["slow.png"] == limner.load(tiny / "run").caption(content).text


def test_bad_files_are_reported_once_and_read_again_when_they_change(
    tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "bad.jpg").write_text("<!doctype html><p>not found</p>")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-30])
    assert watch(tiny, folder) == 3
    said = capsys.readouterr()
    begins = sorted(" ".join(line.split()[:2]) for line in said.err.splitlines())
    assert begins == [f"! {folder}/bad.jpg:", f"! {folder}/empty.png:", f"note: {folder}/cut.png:"]
    assert said.out.endswith("done: 4 captions, 2 problems\n")  # a damaged picture gets a caption in the end
    os.rename(folder / "bad.jpg", folder / "worse.jpg")
    assert watch(tiny, folder) == 0  # nothing is tried or said again
    assert capsys.readouterr().out == "done: 0 captions, 0 problems\n"
    shutil.copy(images(tiny, 4)[3], folder / "worse.jpg")
    assert watch(tiny, folder) == 0 and names(folder)[4:] == ["worse.jpg"]


def test_two_files_with_one_sidecar(tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert watch(tiny, folder, "--sidecar", "txt", "--existing", "overwrite") == 0
    before = (folder / "a.txt").read_text()
    shutil.copy(images(tiny, 4)[3], folder / "a.jpg")
    assert watch(tiny, folder, "--sidecar", "txt", "--existing", "overwrite") == 3
    assert f"{folder}/a.txt is the sidecar of {folder}/a.png and stays as it is" in capsys.readouterr().err
    assert (folder / "a.txt").read_text() == before and names(folder)[3:] == ["a.jpg"]


def test_videos_and_commands(tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(folder / "clip.mp4", greys(20))
    code = "import os; open(os.environ['LOG'], 'a').write(os.environ['LIMNER_FILE'] + '\\n'); os._exit(3)"
    os.environ["LOG"] = str(tmp_path / "log")
    assert watch(tiny, folder, "--every", "1", "--exec", f'{sys.executable} -c "{code}"') == 3
    assert sorted((tmp_path / "log").read_text().split()) == sorted({row["file"] for row in rows(folder)})
    assert [(row["start"], row["end"]) for row in rows(folder) if "start" in row] == [(0, 1), (1, 2)]
    assert f"! {folder}/clip.mp4: --exec {sys.executable} ended with status 3\n" in capsys.readouterr().err


def started(tiny: Path, folder: Path, *more: str) -> "subprocess.Popen[str]":
    out = folder.with_suffix(".jsonl")
    words = ["watch", folder, "--model", tiny / "run", "--out", out, "--sidecar", "txt", "--batch-size", "1", *more]
    command = [sys.executable, "-m", "limner", *map(str, words), *QUICK]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_and_the_next_one_caption_every_file_once(tiny: Path, tmp_path: Path):
    """SIGKILL in the middle of 30 files; then a process that goes on is ended by SIGTERM, and finishes."""
    folder = tmp_path / "in"
    shutil.copytree(tiny / "world" / "images", folder)
    count = len(list(folder.iterdir()))
    with started(tiny, folder) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline().startswith(str(folder))
        process.kill()
    assert 5 <= len(rows(folder)) < count
    for path in (min(folder.glob("*.png")), max(folder.glob("*.png"))):  # with and without a caption
        os.rename(path, path.with_name(f"new_{path.name}"))
    with started(tiny, folder) as process:
        while not all(path.with_suffix(".txt").exists() for path in folder.glob("*.png")):
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 0 and error == "" and "stopped; what was begun is finished: " in out
    captions = {row["file"]: row["caption"] for row in rows(folder)}
    assert len(rows(folder)) == len(captions) == count
    assert all(path.with_suffix(".txt").read_text() == f"{captions[str(path)]}\n" for path in folder.glob("[!n]*.png"))


def test_what_a_kill_left_undone_is_done_at_the_start(tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    """As if the kill came after the captions were kept, in the middle of the line of the output."""
    assert watch(tiny, folder) == 0
    whole = folder.with_suffix(".jsonl").read_bytes()
    state = folder / ".limner-watch"
    lines = state.read_text().splitlines(keepends=True)
    state.write_text("".join(line for line in lines if '"delivered": "' not in line)[:-1] + "\n{")
    folder.with_suffix(".jsonl").write_bytes(whole[:-20])
    assert watch(tiny, folder) == 0
    assert folder.with_suffix(".jsonl").read_bytes() == whole


def test_appending(tmp_path: Path):
    out = tmp_path / "a.jsonl"
    append_rows(out, [{"a": 1}, {"b": "\u2028"}])
    append_rows(out, [{"b": "\u2028"}, {"c": 3}], missing_only=True)
    assert out.read_text().split("\n") == ['{"a": 1}', '{"b": "\u2028"}', '{"c": 3}', ""]
    out.write_bytes(out.read_bytes() + b'{"d": "\xe2')
    drop_cut_line(out)
    assert out.read_text().split("\n")[2:] == ['{"c": 3}', ""]


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ([], 2, "name a folder to watch, or give --camera SOURCE, and not both"),
        (["{}", "--camera", "0"], 2, "name a folder to watch"),
        (["{}", "--preview", "http"], 2, "--preview is about --camera"),
        (["--camera", "0", "--once"], 2, "--once is about a folder"),
        (["{}", "--out", "x.csv"], 2, "captions are appended as they come, so the ending is .jsonl"),
        (["{}", "--existing", "append"], 2, "--existing is about captions beside the files"),
        (["{}", "--exec", "sh -c {caption}"], 2, "a shell would run {caption} as code"),
        (["{}/nowhere"], 1, "is no folder: name the folder in which files arrive, or give --camera"),
    ],
)
def test_what_cannot_be(folder: Path, words: list[str], status: int, reason: str, capsys: pytest.CaptureFixture[str]):
    assert main(["watch", *(word.replace("{}", str(folder)) for word in words)]) == status
    assert reason in capsys.readouterr().err


def test_captions_of_another_model_are_not_mixed(tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert watch(tiny, folder) == 0
    assert watch(tiny, folder, "--beam", "1") == 1
    assert ".limner-watch is of captions with another decoding: give the same options" in capsys.readouterr().err
    (folder / ".limner-watch").unlink()
    assert watch(tiny, folder) == 1
    assert "which would tell what made its captions: choose another name for --out" in capsys.readouterr().err
