"""Closed pipes, interrupts at any moment, homes that are missing, files that vanish."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from limner.apps.cli import main

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
