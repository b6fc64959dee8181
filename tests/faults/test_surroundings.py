"""Closed pipes, interrupts at any moment, homes that are missing, files that vanish."""

import itertools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from limner.apps.cli import main
from limner.data import media
from limner.inference import pieces

LIMNER = [sys.executable, "-m", "limner"]


def test_nobody_reads_the_output_any_more():
    """`limner --help | head -1`: quiet, with the status of a program that SIGPIPE ended."""
    code = (
        "class P:\n    def parse_known_args(self, words): print('x' * 100_000); 1 / 0\n"
        "import os, sys; from limner.apps import cli; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
        "cli.parser = lambda names: P()\n"
        "sys.argv = ['limner', 'caption']; cli.entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("module", ["limner.apps.cli", "limner.apps.options.caption", "limner.apps.caption"])
def test_an_interrupt_while_a_command_still_imports(module: str):
    """One line and 130, whichever module is being imported."""
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['limner', 'caption', 'x.png']\n"
        "from limner.__main__ import entry\n"
        "entry()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "limner: interrupted\n")


@pytest.mark.parametrize("surroundings", [{"HOME": "/nowhere"}, {"HOME": ""}, {"LC_ALL": "C"}, {"TMPDIR": "/nowhere"}])
def test_poor_surroundings(surroundings: dict[str, str], tiny: Path):
    """No home, an ASCII locale, no folder for temporary files."""
    environment = {**os.environ, "XDG_CACHE_HOME": "/nowhere/cache", **surroundings}
    command = [*LIMNER, "score", "--candidates", "nowhere.json", "--references", "nowhere.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "limner: there is no file or folder nowhere.json\n"


def test_a_file_that_vanishes_while_others_are_read(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = sorted((tiny / "world" / "images").iterdir())[:3]
    for path in images:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    files = [str(tmp_path / path.name) for path in images]
    (tmp_path / images[1].name).unlink()
    out = tmp_path / "c.csv"
    assert main(["caption", *files, "--model", str(tiny / "run"), "--out", str(out)]) == 3
    assert len(out.read_text().splitlines()) == 3 and images[1].name in capsys.readouterr().err


def test_a_file_that_changes_while_it_is_read(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    """A picture that is cut off between two files is reported by name, and the others are captioned."""
    images = sorted((tiny / "world" / "images").iterdir())[:3]
    copies = [tmp_path / path.name for path in images]
    for path, copy in zip(images, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    read, out = media.read_medium, tmp_path / "c.csv"

    def changing(path: Any, *more: Any, **named: Any) -> Any:
        copies[1].write_bytes(copies[1].read_bytes()[:40])
        return read(path, *more, **named)

    for module in (media, pieces):
        if hasattr(module, "read_medium"):
            monkeypatch.setattr(module, "read_medium", changing)
    status = main(["caption", *map(str, copies), "--model", str(tiny / "run"), "--batch-size", "1", "--out", str(out)])
    assert status == 3 and len(out.read_text().splitlines()) == 3
    assert copies[1].name in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.parametrize("megabytes", [200, 600, 1200])
def test_a_limit_of_memory_is_one_line(megabytes: int, tiny: Path, tmp_path: Path):
    """`ulimit -v`: too little for the imports, for the model, or enough; never a traceback, never a part of a file.

    Below what Python needs to import PyTorch, the loader of the system itself may speak.
    """
    picture, out = str(next((tiny / "world" / "images").iterdir())), tmp_path / "c.csv"
    command = [*LIMNER, "caption", picture, "--model", str(tiny / "run"), "--out", str(out)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert out.exists() == (done.returncode == 0)
    assert done.returncode == 0 or done.stderr.strip().splitlines()[-1].startswith("limner: "), done.stderr


def test_a_clock_that_is_set_back(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An hour earlier at every look, from 2030: the same bytes, for training, watching, captions."""
    begin, looks = 1_900_000_000.0, itertools.count()
    run, images = str(tiny / "run"), sorted((tiny / "world" / "images").iterdir())[:4]

    def work(out: Path) -> dict[str, bytes]:
        (out / "in").mkdir(parents=True)
        for path in images:
            (out / "in" / path.name).write_bytes(path.read_bytes())
        train = ["train", str(tiny / "tiny.yaml"), "--out", str(out / "run"), "--seed", "1", "--frames=4"]
        watch = ["watch", str(out / "in"), "--once", "--settle", "0.05", "--interval", "0.05", "--model", run]
        assert main([*train, "--checkpoint_steps", "1"]) == 0 == main([*watch, "--out", str(out / "w.jsonl")])
        assert main(["caption", str(out / "in"), "--model", run, "--out", str(out / "c.csv")]) == 0
        names = ("run/model.safetensors", "w.jsonl", "c.csv")
        return {name: (out / name).read_bytes().replace(os.fsencode(out), b"") for name in names}

    expected = work(tmp_path / "a")
    monkeypatch.setattr(time, "time", lambda: begin - 3600 * next(looks))
    assert work(tmp_path / "b") == expected


@pytest.mark.faults
def test_without_a_network_a_model_of_a_hub_is_one_line(tmp_path: Path):
    """Names are not found, and connections refused: a line that says what to do, within the time that this takes."""
    code = (
        "import socket\n"
        "def fail(*_, **__): raise socket.gaierror(-3, 'Temporary failure in name resolution')\n"
        "socket.getaddrinfo = fail\n"
        "import sys; sys.argv = ['limner', 'caption', 'x.png', '--model', 'hf:nobody/nothing']\n"
        "from limner.__main__ import entry; entry()\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    (tmp_path / "x.png").write_bytes(b"x")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("limner: ")
