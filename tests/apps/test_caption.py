"""`limner caption`: whose rows are kept, whose are refused, and what identifies a picture."""

import errno
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.shared.input_files import expand
from limner.apps.shared.journal import Journal, Row, image_ids, printable, to_jsonl
from limner.data.image_ids import coco_id
from limner.inference.pipeline import Pipeline
from limner.runs.evaluation import coco_results
from limner.text.alt_text import alt_text
from tests.data.prepared import encoded, write_tar

BY = {"model": "00ff", "decoding": {"size": 1}}
ROW = {"file": "a.png", "caption": "a dog", "logprob": -1.5, "finished": True}


def picture(path: Path, grey: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(path)
    return str(path)


def test_the_rows_of_an_interrupted_call_are_not_overwritten(tmp_path: Path):
    partial = tmp_path / "c.csv.partial"
    partial.write_text(to_jsonl([BY, ROW]))
    message = re.escape(
        f"{partial} holds 1 captions of an interrupted command: continue it with --resume, or start anew with "
        "--overwrite"
    )
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path / "c.csv", False, BY)
    assert partial.read_text() == to_jsonl([BY, ROW])
    assert Journal(tmp_path / "c.csv", True, BY).rows == {"a.png": ROW}
    for nothing in ("", to_jsonl([BY])):  # nothing to lose
        partial.write_text(nothing)
        assert Journal(tmp_path / "c.csv", False, BY | {"model": "other"}).rows == {}


def test_a_model_that_cannot_be_loaded_leaves_the_rows(tmp_path: Path, capsys):
    (tmp_path / "c.csv.partial").write_text(to_jsonl([BY, ROW]))
    command = ["caption", "a.png", "--model", "nowhere", "--resume", "--out", str(tmp_path / "c.csv")]
    assert main(command) == 1 and "nowhere is not a run folder" in capsys.readouterr().err
    assert (tmp_path / "c.csv.partial").read_text() == to_jsonl([BY, ROW])


@pytest.mark.parametrize(
    ("by", "what"),
    [
        ({**BY, "model": "11"}, "model"),
        ({**BY, "decoding": {"size": 2}}, "decoding"),
        ({"model": "11", "decoding": {}}, "model and decoding"),
    ],
)
def test_captions_of_two_models_or_searches_are_not_mixed(tmp_path: Path, by: dict, what: str):
    (tmp_path / "c.csv.partial").write_text(to_jsonl([BY, ROW]))
    with pytest.raises(ValueError, match=f"was written with another {what}, as its first line says"):
        Journal(tmp_path / "c.csv", True, by)


def test_another_beam_is_noticed_from_the_command_line(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    files = [picture(tmp_path / f"{k}.png", k) for k in range(2)]
    command = ["caption", *files, "--model", str(tiny / "run"), "--batch-size", "1", "--out", str(tmp_path / "c.csv")]
    whole = Pipeline.captions

    def full(pipeline, *arguments):
        yield next(whole(pipeline, *arguments))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Pipeline, "captions", full)
    assert main([*command, "--beam", "1"]) == 1
    assert "No space left on device: free some space, then continue with --resume" in capsys.readouterr().err
    monkeypatch.setattr(Pipeline, "captions", whole)
    assert main([*command, "--beam", "2", "--resume"]) == 1
    assert "was written with another decoding" in capsys.readouterr().err
    assert main([*command, "--beam", "1"]) == 1 and "continue it with --resume" in capsys.readouterr().err
    assert main([*command, "--beam", "1", "--resume"]) == 0


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("c.csv", "file,caption\na.png,a dog\n", "c.csv, line 2"),
        ("c.csv", "file,caption,logprob,finished\na.png,a dog,high,True\n", "c.csv, line 2"),
        ("c.json", '[{"image_id": 1, "caption": "a dog"}]', "c.json, item 1"),
        ("c.jsonl", '{"image": "a.png"}\n', "c.jsonl, line 1"),
        ("c.jsonl", "[1, 2]\n", "c.jsonl, line 1"),
    ],
)
def test_an_output_from_elsewhere_is_no_output_to_resume(tmp_path: Path, name: str, text: str, place: str):
    (tmp_path / name).write_text(text)
    message = re.escape(place) + ": --resume expects an output of this command, with file, caption, logprob, finished"
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path / name, True, BY)
    assert (tmp_path / name).read_text() == text


def test_json_that_is_no_list(tmp_path: Path):
    (tmp_path / "c.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"c\.json: expected a list of captions"):
        Journal(tmp_path / "c.json", True, BY)
    (tmp_path / "c.csv.partial").write_text(to_jsonl([ROW]))
    with pytest.raises(ValueError, match=r"c\.csv\.partial, line 1: expected the model and the decoding"):
        Journal(tmp_path / "c.csv", True, BY)


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.partial"])
def test_only_the_last_line_may_be_cut(tmp_path: Path, name: str):
    head = [BY] if name.endswith("partial") else []
    text = to_jsonl([*head, ROW])
    (tmp_path / name).write_text(text + '{"file": "b.p')
    assert list(Journal(tmp_path / "c.jsonl", True, BY).rows) == ["a.png"]
    (tmp_path / "c.jsonl.partial").unlink()
    (tmp_path / name).write_text(text + '{"file": "b.p\n' + to_jsonl([ROW | {"file": "c.png"}]))
    message = rf"{name}, line {len(head) + 2} is not a JSON file \(.*\), and more lines follow"
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path / "c.jsonl", True, BY)


def test_one_file_has_one_row(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "in" / "dog.png")
    sources = ["in/dog.png", "./in/dog.png", "in", "./in/", "in/../in/dog.png"]
    assert expand(sources) == (["in/dog.png"], [])


def test_names_that_are_not_utf8(tiny: Path, tmp_path: Path, capsys):
    """Two such files stay two, on the screen, in the output and on resuming."""
    folder = os.fsencode(tmp_path) + b"/in"
    os.mkdir(folder)
    source = picture(tmp_path / "x.png")
    for name in (b"a\xff.png", b"a\xfe.png"):
        try:
            Path(os.fsdecode(folder + b"/" + name)).write_bytes(Path(source).read_bytes())
        except OSError:
            pytest.skip("this file system wants UTF-8 names")
    names = [f"{tmp_path}/in/a\\xfe.png", f"{tmp_path}/in/a\\xff.png"]
    assert [printable(file) for file in expand([os.fsdecode(folder)])[0]] == names
    command = ["caption", os.fsdecode(folder), "--model", str(tiny / "run")]
    assert main(command) == 0
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == names
    for ending in ("csv", "json", "jsonl"):
        out = tmp_path / f"c.{ending}"
        assert main([*command, "--out", str(out)]) == 0
        written = out.read_bytes()
        assert main([*command, "--out", str(out), "--resume"]) == 0
        assert out.read_bytes() == written and f"{out}: 2 captions" in capsys.readouterr().out


def test_an_output_that_cannot_be_is_noticed_before_captioning(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(Pipeline, "captions", lambda *_: pytest.fail("too late"))
    source = picture(tmp_path / "x.png")
    (tmp_path / "d.csv").mkdir()
    for out, message, status in (
        (tmp_path / "d.csv", "d.csv is a folder; name a file in it", 2),
        (Path(source) / "c.csv", "x.png", 1),
    ):
        assert main(["caption", source, "--model", str(tiny / "run"), "--out", str(out)]) == status
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("42", 42),
        ("0", 0),
        ("COCO_val2014_000000000042", 42),
        ("000000397133", 397133),  # COCO 2017
        ("000000000000", 0),
        ("0000000000042", "0000000000042"),  # 13 digits
        ("001", "001"),
        ("-1", "-1"),
        ("²", "²"),
        ("a_42", "a_42"),
        ("COCO_x", "COCO_x"),
    ],
)
def test_coco_numbers(name: str, id: int | str):
    assert coco_id(name) == id
    if not name.startswith("COCO_"):
        assert coco_results({name: ""})[0]["image_id"] == id


def test_ids_differ():
    files = ["dog.png", "dog.jpg", "sub/001.png", "two/1.png", "a/7.png", "b/7.png", "c/COCO_val2014_000000000009.jpg"]
    ids = image_ids(files)
    assert list(ids.values()) == ["dog.png", "dog.jpg", "001", 1, "a/7", "b/7", 9]
    hard = ["dog.png", "dog.jpg", "dog.png.jpg", "x/dog.png", "7.png", "7.mp4"]
    assert len(set(image_ids(hard).values())) == len(hard)
    assert image_ids([]) == {}
    text = json.loads(json.dumps(image_ids(["a/7.png", "8.png"])))
    assert text == {"a/7.png": 7, "8.png": 8}


def test_alternative_text(tiny: Path, tmp_path: Path, capsys):
    picture, out = str(tiny / "world" / "images" / "000001.png"), tmp_path / "c.jsonl"
    given = ["caption", picture, "--model", str(tiny / "run")]
    assert main(given) == 0
    plain = capsys.readouterr().out.strip()
    assert main([*given, "--style", "alt-text"]) == 0
    assert capsys.readouterr().out.strip() == alt_text(plain)
    assert main([*given, "--style", "alt-text", "--max-chars", "12", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["caption"] == alt_text(plain, 12)
    assert main([*given, "--max-chars", "12"]) == 2
    assert "--max-chars is for alternative text" in capsys.readouterr().err


def test_a_link_to_nothing_is_reported(tmp_path: Path):
    """A folder of links whose disk is away."""
    Path(picture(tmp_path / "a.png"))
    (tmp_path / "b.png").symlink_to(tmp_path / "away" / "b.png")
    (tmp_path / "c.png").mkdir()
    assert expand([str(tmp_path)]) == ([str(tmp_path / "a.png"), str(tmp_path / "b.png")], [])


def test_rows_of_a_finished_output_are_kept_and_that_is_said(tmp_path: Path, capsys):
    (tmp_path / "c.jsonl").write_text(to_jsonl([ROW]))
    assert list(Journal(tmp_path / "c.jsonl", True, BY).rows) == ["a.png"]
    assert f"the 1 captions of {tmp_path / 'c.jsonl'} are kept, whatever model and decoding" in capsys.readouterr().err
    Journal(tmp_path / "c.jsonl", True, BY)  # the side file tells
    assert capsys.readouterr().err == ""


def test_patterns_and_a_list(tiny: Path, tmp_path: Path, monkeypatch):
    """A pattern that the shell has not resolved; a list of files on the standard input, beside others."""
    folder = tiny / "world" / "images"
    files = [str(folder / f"00000{n}.png") for n in (1, 2, 3)]
    assert expand([str(folder / "00000[1-3].png")]) == (files, [])
    assert expand([str(folder / "x*.png")]) == ([], [f"{folder / 'x*.png'}: no file matches this pattern"])
    odd = tmp_path / "a[1].png"
    odd.touch()
    assert expand([str(odd)]) == ([str(odd)], [])  # a file may be called like a pattern
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{files[1]}\n\n{files[2]}\r\n"))
    assert expand([files[0], "-"]) == (files, [])
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff" + "\r\n".join(files)))  # a list written by Windows
    assert expand(["-"]) == (files, [])


def test_without_files_it_is_a_prompt(tiny: Path, monkeypatch, capsys):
    picture = tiny / "world" / "images" / "000001.png"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{picture}\n:quit\n"))
    assert main(["caption", "--model", str(tiny / "run"), "--style", "alt-text"]) == 0
    assert capsys.readouterr().out.strip() == alt_text(Pipeline.load(tiny / "run").caption(picture).text)
    assert main(["caption", "--model", str(tiny / "run"), "--out", "c.csv"]) == 2
    assert "nothing to caption: name files (--out has no effect in the prompt)" in capsys.readouterr().err


def test_media_in_a_tar_and_folders_of_frames_are_captioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A tar stands for the media in it; --frame-folders makes a folder of images one clip; damage gives status 3."""
    tar = write_tar(tmp_path / "a.tar", {"1.png": encoded("red"), "1.txt": b"red", "2.png": encoded("blue")})
    out = tmp_path / "out.jsonl"
    assert main(["caption", str(tar), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"{tar}/1.png", f"{tar}/2.png"] and all(row["caption"] for row in rows)
    for name in ("v", "w"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "clips" / name / f"{number}.png").write_bytes(encoded("red"))
    capsys.readouterr()
    assert main(["caption", str(tmp_path / "clips"), "--frame-folders", "--out", str(tmp_path / "b.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [
        str(tmp_path / "clips" / name) for name in "vw"
    ] and "note" not in capsys.readouterr().err
    assert main(["caption", str(tmp_path / "clips"), "--out", str(tmp_path / "c.jsonl")]) == 0
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 6
    assert "clips: 2 folders have numbered images; --frame-folders reads each as a video" in capsys.readouterr().err
    (tmp_path / "b.parquet").write_bytes(b"PAR1\x15\x04\x15\x00\xff\xfePAR1")
    (tmp_path / "c.tar").write_bytes(b"<html>404</html>" * 99)
    files = [str(tmp_path / name) for name in ("b.parquet", "c.tar")]
    assert main(["caption", str(tar), *files, "--out", str(tmp_path / "d.jsonl")]) == 3
    said = capsys.readouterr().err
    assert (
        "b.parquet is a damaged Parquet file of 14 bytes" in said and "c.tar is not a tar file, or is damaged" in said
    )


def test_a_medium_in_a_tar_and_frames_are_explained(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"1.png": encoded("red")})
    assert main(["explain", f"{tar}/1.png", "--out", str(tmp_path / "a.png")]) == 0
    (tmp_path / "v").mkdir()
    for number in range(3):
        (tmp_path / "v" / f"{number}.png").write_bytes(encoded("red"))
    assert main(["explain", str(tmp_path / "v"), "--out", str(tmp_path / "v.gif")]) == 0
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "v.gif").stat().st_size


def test_a_resumed_overwrite_keeps_no_row_of_what_it_replaces(tiny: Path, tmp_path: Path, monkeypatch):
    """The old output was made with beam 1; the new call with beam 2 is interrupted after a row."""
    images = [str(path) for path in sorted((tiny / "world" / "images").iterdir())[:6]]
    out, expected = tmp_path / "c.jsonl", tmp_path / "expected.jsonl"
    command = ["caption", *images, "--model", str(tiny / "run"), "--batch-size", "1", "--out"]
    assert main([*command, str(out), "--beam", "1", "--max-length", "2"]) == 0
    assert main([*command, str(expected)]) == 0
    add, seen = Journal.add, []

    def interrupt(journal: Journal, row: Row) -> None:
        seen.append(row)
        if len(seen) == 3:
            raise KeyboardInterrupt
        add(journal, row)

    monkeypatch.setattr(Journal, "add", interrupt)
    assert main([*command, str(out), "--overwrite"]) == 130
    seen.clear()
    assert main([*command, str(out), "--resume"]) == 130  # again: it is remembered
    monkeypatch.undo()
    assert main([*command, str(out), "--resume"]) == 0
    assert out.read_bytes() == expected.read_bytes()


def test_a_csv_without_apostrophes_is_resumed_as_it_is(tiny: Path, tmp_path: Path, monkeypatch):
    """The name '=1.png has an apostrophe of its own."""
    picture = next((tiny / "world" / "images").iterdir())
    folder = tmp_path / "'=1"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture.read_bytes())
    command = ["caption", "'=1/a.png", "--model", str(tiny / "run"), "--out", str(tmp_path / "c.csv"), "--no-csv-safe"]
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    before = (tmp_path / "c.csv").read_bytes()
    assert main([*command, "--resume"]) == 0
    assert (tmp_path / "c.csv").read_bytes() == before and before.count(b"\n") == 2
