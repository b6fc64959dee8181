"""`--exec`: a caption is never code, and a command that fails or hangs harms nothing."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from limner.watching.hook import Hook

SHOW = "import json, os, sys; json.dump([sys.argv[1:], os.environ['LIMNER_FILE'], os.environ['LIMNER_CAPTION'], "
SHOW += "json.loads(os.environ['LIMNER_ROWS'])], open('told.json', 'w'))"


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], file: str, caption: str) -> list:
    """What the command sees: its arguments, file, caption and rows."""
    monkeypatch.chdir(folder)
    assert Hook((sys.executable, "-c", SHOW, *words)).run(file, [{"file": file, "caption": caption}]) == ""
    return json.loads((folder / "told.json").read_text())


@pytest.mark.parametrize("caption", ["a dog; touch gone", "$(touch gone)", "`touch gone`", "a\n'dog' \"x\" {file}"])
def test_a_caption_stays_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caption: str):
    file = "in/a;b {caption}.jpg"
    found = told(tmp_path, monkeypatch, ("-x", "--c={caption}", "{file}"), file, caption)
    assert found == [["-x", f"--c={caption}", file], file, caption, [{"file": file, "caption": caption}]]
    assert [path.name for path in tmp_path.iterdir()] == ["told.json"]


def test_neither_a_name_nor_a_caption_becomes_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words, file, caption, _ = told(tmp_path, monkeypatch, ("{file}", "{caption}"), "-rf.jpg", "--delete\0all")
    assert words == ["./-rf.jpg", " --delete all"] and (file, caption) == ("-rf.jpg", "--delete all")


def test_several_captions_of_a_video_are_one_text(tmp_path: Path):
    words = (sys.executable, "-c", "import sys; sys.exit(sys.argv[1] != 'a dog a cat')", "{caption}")
    assert Hook(words).run("a.mp4", [{"caption": text} for text in ("a dog", "", "a cat")]) == ""


def test_failures_are_told(tmp_path: Path):
    assert Hook(("/nowhere/x",)).run("a", []) == "--exec /nowhere/x cannot be run (No such file or directory)"
    assert Hook((sys.executable, "-c", "raise SystemExit(7)")).run("a", []).endswith("ended with status 7")
    assert Hook(("env", "x" * 300_000)).run("a", []) == "--exec env cannot be run (Argument list too long)"


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_a_command_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path):
    pid = tmp_path / "pid"
    hook = Hook(("sh", "-c", 'sleep 600 & echo $! > "$LIMNER_FILE"; wait'), seconds=1)
    assert hook.run(str(pid), []) == "--exec sh was killed after 1 s"
    status = Path(f"/proc/{pid.read_text().strip()}/status")
    while status.exists() and "zombie" not in status.read_text():  # a signal takes a moment
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("", "expected a command"),
        ("say 'x", "No closing quotation"),
        ("{caption} x", "cannot be the command"),
        ("sh -c 'echo {caption}'", "a shell would run echo {caption} as code"),
        ("env bash -c 'x {file}'", "a shell would run x {file} as code"),
    ],
)
def test_what_is_refused(command: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        Hook.parse(command)


def test_a_shell_may_read_the_environment():
    assert Hook.parse("""sh -c 'test "$LIMNER_CAPTION" = "a; dog"'""").run("x", [{"caption": "a; dog"}]) == ""
