r"""Consoles that are not UTF-8 stop no command, and no file name steers a terminal."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.table import Table

from limner.apps.cli import error_message, main
from limner.apps.shared.console import open_console
from limner.apps.shared.input_files import expand
from limner.apps.shared.streams import EscapingStream, escaped_output, input_lines
from limner.runs.overrides import parse_value


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str, errors: str = "strict"):
        super().__init__(io.BytesIO(), encoding=encoding, errors=errors, write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def bytes(self) -> bytes:
        return self.buffer.getvalue()


ENCODINGS = pytest.mark.parametrize("encoding", ["cp1252", "ascii"])


def consoles(encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, Terminal]:
    """A standard output and a standard error with this encoding; pytest sets its own ones before a test is called."""
    pair = Terminal(encoding), Terminal(encoding)
    for name, stream in zip(("stdout", "stderr"), pair, strict=True):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return pair


@ENCODINGS
def test_what_a_console_lacks_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch):
    streams = consoles(encoding, monkeypatch)
    before = sys.stdout
    with escaped_output():
        print("狗 é \udcff")
        print("狗", file=sys.stderr)
        open_console().print("狗", markup=False)
    accent = rb"\xe9" if streams[0].encoding == "ascii" else b"\xe9"
    assert streams[0].bytes == rb"\u72d7 " + accent + rb" \udcff" + b"\n" + rb"\u72d7" + b"\n"
    assert streams[1].bytes == rb"\u72d7" + b"\n"
    assert sys.stdout is before


@ENCODINGS
def test_tables_are_drawn_with_ascii(encoding: str, monkeypatch: pytest.MonkeyPatch):
    streams = consoles(encoding, monkeypatch)
    table = Table(title="x")
    table.add_column("狗")
    with escaped_output():
        open_console().print(table)
    assert b"+" in streams[0].bytes and rb"\u2500" not in streams[0].bytes


@ENCODINGS
def test_commands_on_such_consoles(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    streams = consoles(encoding, monkeypatch)
    (tmp_path / "c.json").write_text(json.dumps({"狗": "一只黑狗在草地上奔跑", "x": "a dog"}))
    given = ["score", "--candidates", str(tmp_path / "c.json"), "--references", str(tmp_path / "c.json")]
    assert main([*given, "--metrics", "BLEU-1"]) == 0
    assert rb"for example '\u4e00\u53ea\u9ed1\u72d7" in streams[1].bytes
    assert main(["score", "--candidates", str(tmp_path / "狗.json"), "--references", "r"]) == 1
    assert rb"there is no file or folder" in streams[1].bytes and rb"\u72d7.json" in streams[1].bytes
    Image.new("RGB", (32, 32)).save(tmp_path / "狗.png")
    (tmp_path / "ả.png").write_bytes(b"")
    assert main(["caption", str(tmp_path)]) == 3
    assert rb"\u72d7.png: " in streams[0].bytes and rb"\u1ea3.png: the file is empty" in streams[1].bytes


NAME = "a\x1b[31mred\x1b]0;title\x07\x9b2J.png"
ESCAPED = r"a\x1b[31mred\x1b]0;title\x07\x9b2J.png"


def test_terminal_escapes_in_names(tmp_path: Path, capsys):
    for name in (NAME, "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    (tmp_path / f"empty-{NAME}").write_bytes(b"")
    assert main(["caption", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert f"{tmp_path}/{ESCAPED}: " in out and f"empty-{ESCAPED}: the file is empty" in err
    assert main(["explain", str(tmp_path / f"none-{NAME}")]) == 1
    assert f"none-{ESCAPED}" in (more := capsys.readouterr().err)
    assert not {"\x1b", "\x07", "\x9b"} & {*out, *err, *more}


def test_rich_keeps_its_colours_and_escapes_what_it_is_given():
    terminal = Terminal("utf-8")
    before, sys.stdout = sys.stdout, terminal
    try:
        with escaped_output(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("TERM", "xterm")
            patch.delenv("NO_COLOR", raising=False)
            table = Table()
            table.add_column("\x1b[2J")
            open_console().print("[bold]x[/] \x1b[2J", table, highlight=False)
    finally:
        sys.stdout = before
    shown = terminal.bytes
    assert b"\x1b[1mx\x1b[0m" in shown and b"\x1b[2J" not in shown and shown.count(rb"\x1b[2J") == 2


def test_progress_bars_of_other_packages_may_move():
    stream = io.StringIO()
    escaping = EscapingStream(stream)
    for text in ("\r 50%|#", "\n\x1b[A", "x\ry", "\x1b[A x"):
        escaping.write(text)
    assert stream.getvalue() == "\r 50%|#" + "\n\x1b[A" + r"x\ry" + r"\x1b[A x"


def test_a_list_of_names_is_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The names of a list are those of the file system, whatever the encoding of the console; a BOM is none of them."""
    names = ["狗.png", "é b.png"]
    data = b"\xef\xbb\xbf" + "\r\n".join([*names, ""]).encode() + b"lat\xe9.png\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="cp1252"))
    assert [*input_lines()] == [*names, "lat\udce9.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeffa.png\n\nb.png"))
    assert expand(["-"]) == (["a.png", "b.png"], [])


def test_a_path_that_the_locale_cannot_read(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"--data\.media \udce7: it cannot be read in this locale.* set PYTHONUTF8=1"):
        parse_value("data.media", "\udce7")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    error = UnicodeEncodeError("ascii", "狗.png", 0, 1, "ordinal not in range(128)")
    assert error_message(error).startswith(
        "the file name 狗.png cannot be opened in this locale, whose encoding is ascii"
    )


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    ],
)
def test_whole_processes(locale: dict[str, str], tmp_path: Path):
    (tmp_path / "狗.json").write_text(json.dumps({"狗": "一只黑狗在草地上奔跑"}))
    given = ["score", "--candidates", "狗.json", "--references", "狗.json", "--metrics", "BLEU-1"]
    done = subprocess.run(
        [sys.executable, "-m", "limner", *given],
        env=os.environ | locale,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and rb"'\u4e00\u53ea" in done.stderr and b"+---" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="elsewhere names are UTF-8 in every locale")
def test_files_that_a_file_names_are_found_in_every_locale(tmp_path: Path):
    folder = tmp_path / "狗"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (16, 16), (60 * k, 0, 0)).save(folder / f"é{k}.png")
    rows = "".join(f"é{k}.png,一只狗,{'val' if k == 3 else 'train'}\n" for k in range(4))
    (folder / "标.csv").write_text("file,caption,split\n" + rows, encoding="utf-8")
    (tmp_path / "配.yaml").write_text(
        "data: {name: captions, media: 狗, annotations: 狗/标.csv}\n"
        "encoder: {name: small_cnn, size: 16, width: 8, dim: 8}\n"
        "vocabulary: {min_count: 1, tokenizer: characters}\n"
        "model: {name: show_attend_tell, hidden: 8, embed: 8, attention: 8, dropout: 0.0}\n"
        "stages: [{epochs: 1, batch_size: 3}]\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "limner", "train", "配.yaml", "--out", "跑"],
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and (tmp_path / "跑" / "run.json").is_file()
    assert rb"run folder: \u8dd1" in done.stdout and not [byte for byte in done.stdout if byte > 127]
