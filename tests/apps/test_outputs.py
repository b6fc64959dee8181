"""A finished output is replaced only with --overwrite, and that is asked before any work is done."""

import json
from pathlib import Path

import pytest

from limner.apps import caption, evaluate, explain
from limner.apps.cli import main
from limner.apps.shared.journal import finished_rows, printable, to_csv, to_jsonl
from limner.core.locks import lock_folder, lock_output
from limner.data.captions_file import read_captions
from tests.apps.test_cli import one_line
from tests.data.videos import noise, write

OLD = "something of the user's"


@pytest.fixture
def picture(tiny: Path) -> str:
    return str(tiny / "world" / "images" / "000001.png")


def refused(arguments: list[str], out: Path, capsys) -> None:
    """Refused with --overwrite missing, and nothing changed; done with it."""
    out.write_text(OLD)
    assert main(arguments) == 1
    assert f"{out} exists: give --overwrite to replace it" in one_line(capsys) and out.read_text() == OLD
    assert main([*arguments, "--overwrite"]) == 0
    assert out.read_bytes() != OLD.encode()
    capsys.readouterr()


def test_captions_and_subtitles(tiny: Path, picture: str, tmp_path: Path, capsys):
    model = ["--model", str(tiny / "run")]
    for ending in ("csv", "jsonl", "json", "html"):
        out = tmp_path / f"c.{ending}"
        refused(["caption", picture, *model, "--out", str(out)], out, capsys)
    clip = write(tmp_path / "clip.mp4", noise(8))
    for name in ("srt", "vtt"):
        refused(["caption", str(clip), *model, f"--{name}"], tmp_path / f"clip.{name}", capsys)
    command = ["caption", str(clip), *model, "--srt", "--out", str(tmp_path / "d.csv")]
    assert main([*command, "--overwrite"]) == 0 and main([*command, "--resume"]) == 0
    assert main([*command, "--resume", "--overwrite"]) == 2
    assert "--overwrite discards them: give one of them" in capsys.readouterr().err


def test_rows_of_an_interrupted_call_are_discarded_only_when_asked(tiny: Path, picture: str, tmp_path: Path, capsys):
    partial, out = tmp_path / "c.csv.partial", tmp_path / "c.csv"
    row = {"file": "x.png", "caption": "a", "logprob": -1.0, "finished": True}
    partial.write_text(to_jsonl([{"model": "", "decoding": {}}, row]))
    command = ["caption", picture, "--model", str(tiny / "run"), "--out", str(out)]
    assert main(command) == 1 and "or start anew with --overwrite" in one_line(capsys) and partial.is_file()
    assert main([*command, "--overwrite"]) == 0 and not partial.exists() and "x.png" not in out.read_text()


def test_explanations(tiny: Path, picture: str, tmp_path: Path, capsys):
    run = str(tiny / "run")
    for ending in ("png", "svg", "mp4", "gif"):
        out = tmp_path / f"f.{ending}"
        refused(["explain", run, picture, "--sentence", "a", "--out", str(out)], out, capsys)
    command = ["explain", run, picture, "--sentence", "a circle", "--out", str(tmp_path / "frames")]
    assert main(command) == 0
    (tmp_path / "frames" / "mine.png").write_bytes(b"")
    assert main(command) == 1 and "already holds PNG files" in one_line(capsys)
    (tmp_path / "frames" / "mine.png").unlink()
    assert main([*command, "--sentence", "a", "--overwrite"]) == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 1
    join = ["explain", "--join", str(tmp_path / "frames"), "--out", str(tmp_path / "film.mp4")]
    refused(join, tmp_path / "film.mp4", capsys)
    score = ["explain", run, "--score", "--limit", "1", "--method", "attention", "--out", str(tmp_path / "s.json")]
    refused(score, tmp_path / "s.json", capsys)


def test_scores_and_reports(tiny: Path, tmp_path: Path, capsys):
    for name in ("preds", "refs"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"1": "a dog", "2": "a cat"}))
    files = ["--candidates", str(tmp_path / "preds.json"), "--references", str(tmp_path / "refs.json")]
    out = tmp_path / "s.json"
    refused(["score", *files, "--metrics", "BLEU-1", "--out", str(out)], out, capsys)
    command = ["evaluate", str(tiny / "run"), "--split", "val", "--limit", "2", "--metrics", "BLEU-1", "--report"]
    page = tmp_path / "r.html"
    refused([*command, str(page), "--out", str(tmp_path / "scores")], page, capsys)
    given = ["profile", str(tiny / "run"), "--repeats", "1", "--batch-size", "1", "--no-memory", "--beam", "1"]
    refused([*given, "--out", str(tmp_path / "p.json")], tmp_path / "p.json", capsys)
    (tmp_path / "p.png").touch()
    assert main([*given, "--figure", str(tmp_path / "p.png")]) == 1 and "p.png exists" in one_line(capsys)


def test_it_is_asked_before_the_model_is_loaded(picture: str, tmp_path: Path, monkeypatch, capsys):
    for module, name in ((caption, "open_captioner"), (explain, "open_run"), (evaluate, "open_run")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("too late"))
    (tmp_path / "x.html").touch()
    (tmp_path / "x.png").touch()
    for arguments in (
        ["caption", picture, "--out", str(tmp_path / "x.html")],
        ["explain", picture, "--out", str(tmp_path / "x.png")],
        ["evaluate", "run", "--report", str(tmp_path / "x.html")],
    ):
        assert main(arguments) == 1 and "exists: give --overwrite" in one_line(capsys)


def test_an_output_never_replaces_an_input(tiny: Path, picture: str, tmp_path: Path, capsys):
    """Also with --overwrite."""
    run, mine = str(tiny / "run"), tmp_path / "000000.png"
    mine.write_bytes(Path(picture).read_bytes())
    refs = tmp_path / "refs.json"
    refs.write_text('{"1": "a dog"}')
    (tmp_path / "link.png").symlink_to(mine)
    for command in (
        ["explain", run, str(mine), "--out", str(mine)],
        ["explain", run, str(mine), "--out", str(tmp_path / "link.png")],
        ["explain", run, str(mine), "--out", str(tmp_path)],
        ["score", "--candidates", str(refs), "--references", str(refs), "--out", str(refs)],
        ["caption", str(refs), "--model", run, "--out", str(refs)],
    ):
        assert main([*command, "--overwrite"]) == 1
        assert "choose another" in one_line(capsys), command
    assert mine.read_bytes() == Path(picture).read_bytes() and refs.read_text() == '{"1": "a dog"}'


def test_of_two_at_once_one_says_that_it_lost(tiny: Path, picture: str, tmp_path: Path, capsys):
    run, out = str(tiny / "run"), str(tmp_path / "out")
    outputs = {
        lock_output: [
            ["caption", picture, "--model", run, "--out", f"{out}.csv"],
            ["pack", run, "--out", f"{out}.limner"],
            ["evaluate", run, "--out", out, "--limit", "1"],
        ],
        lock_folder: [
            ["train", str(tiny / "tiny.yaml"), "--out", out],
            ["extract", run, "--out", out],
            ["shapes", "--out", out, "--images", "1"],
        ],
    }
    for lock, commands in outputs.items():
        for command in commands:
            path = command[command.index("--out") + 1]
            with lock(Path(path, "scores.json") if command[0] == "evaluate" else path):
                assert main(command) == 1, command
                assert "is being written by another process" in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_unwritable_destinations_are_found_first(tiny: Path, picture: str, tmp_path: Path, monkeypatch, capsys):
    """Before a model is loaded."""
    (tmp_path / "file").touch()
    out, run = str(tmp_path / "file" / "x"), str(tiny / "run")
    for module, name in ((caption, "open_captioner"), (explain, "open_run"), (evaluate, "open_run")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("too late"))
    clip = write(tmp_path / "clip.mp4", noise(8))
    for command in (
        ["caption", picture, "--out", f"{out}.csv"],
        ["caption", str(clip), "--srt", f"{out}.srt"],
        ["explain", run, picture, "--out", f"{out}.png"],
        ["evaluate", run, "--report", f"{out}.html"],
        ["profile", run, "--out", f"{out}.json"],
        ["extract", run, "--out", out],
        ["train", str(tiny / "tiny.yaml"), "--out", out],
        ["pack", run, "--out", out],
    ):
        assert main(command) == 1
        assert "there is a file where a folder is needed: " + out.partition("/x")[0] in one_line(capsys), command


def test_a_csv_is_safe_for_spreadsheets_and_terminals_and_reads_back(tmp_path: Path):
    """Names and captions that a spreadsheet would run, that would end a row, or that would clear the screen."""
    names = ["=cmd|' /C calc'!A0.png", "-1.png", "+a.png", "@b.png", "'=c.png", "d.png"]
    texts = ["=1+1", "- a dog", "a\rdog", 'a "dog", and\na cat', "'tis", "\x1b[2J"]
    rows = [
        {"file": printable(name), "caption": text, "logprob": -1.5, "finished": True}
        for name, text in zip(names, texts, strict=True)
    ]
    table = to_csv(rows)
    assert table.splitlines()[1] == "'=cmd|' /C calc'!A0.png,'=1+1,-1.5,True"
    (tmp_path / "c.csv").write_text(table, newline="")
    assert finished_rows(tmp_path / "c.csv") == rows
    assert list(read_captions(tmp_path / "c.csv").captions) == names
    assert to_csv(rows, safe=False).splitlines()[1] == "=cmd|' /C calc'!A0.png,=1+1,-1.5,True"
    assert printable("a\rb\x1b[31m\n.png") == r"a\rb\x1b[31m\n.png"
    (tmp_path / "d.csv").write_text("file,caption\n'-a.png,'- b\n")  # of another tool: as it is
    assert read_captions(tmp_path / "d.csv").captions == {"'-a.png": ("'- b",)}
