"""Captions as data sets: what other programs read is what was written, and nothing of others is lost."""

import json
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.apps.shared.data_set_outputs import write_data_set
from limner.apps.shared.journal import finished_rows
from tests.apps.test_caption import picture
from tests.data.prepared import encoded, write_tar
from tests.data.videos import greys, write
from tests.inference.loopback import says, serving
from tests.inference.test_server import grey_of

ROWS = [
    {"file": "a.png", "caption": 'a "dog", 狗', "logprob": -1.5, "finished": True, "others": [["x", -2.0]]},
    {"file": "v.mp4", "caption": "one.", "logprob": None, "finished": False, "start": 0.0, "end": 1.5},
    {"file": "v.mp4", "caption": "two.", "logprob": None, "finished": True, "start": 1.5, "end": 3.0},
]


def photos(folder: Path) -> list[str]:
    return [picture(folder / name, 10 * k) for k, name in enumerate(("a.png", "sub/b.png", "test/a.png"), 1)]


def captioned(*arguments: str) -> tuple[int, int]:
    """-> (exit status, requests)."""
    with serving(lambda body: says(grey_of(body))) as server:
        return main(["caption", *arguments, "--model", f"{server.url}#tiny-vlm"]), len(server.seen)


def test_parquet_holds_every_field_and_is_read_again(tmp_path: Path):
    import pyarrow.parquet

    path = tmp_path / "c.parquet"
    write_data_set(path, ROWS, {})
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == ["file", "caption", "logprob", "finished", "start", "end", "others"]
    assert table["caption"].to_pylist() == [row["caption"] for row in ROWS]
    assert table["end"].to_pylist() == [None, 1.5, 3.0] and table["others"][0].as_py() == '[["x", -2.0]]'
    assert finished_rows(path) == ROWS
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"c\.parquet is no output of this command"):
        finished_rows(path)


def test_metadata_of_an_image_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files, out = photos(tmp_path / "in"), tmp_path / "in" / "metadata.jsonl"
    assert captioned(*files[:2], "--out", str(out)) == (0, 2)
    lines = [{"file_name": "a.png", "text": "grey 10"}, {"file_name": "sub/b.png", "text": "grey 20"}]
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
    assert captioned(str(tmp_path / "in"), "--out", str(out), "--resume") == (0, 1)
    lines.append({"file_name": "test/a.png", "text": "grey 30"})
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
    theirs = '{"file_name": "a.png", "text": "Rex", "split": "train"}\n'
    out.write_text(theirs)
    capsys.readouterr()
    for more, why in ((["--resume"], "and no more, which --resume would lose"), ([], "metadata.jsonl exists: give")):
        assert captioned(*files, "--out", str(out), *more) == (1, 0) and out.read_text() == theirs
        assert why in capsys.readouterr().err
    outside = picture(tmp_path / "x.png")
    assert captioned(outside, "--out", str(out), "--overwrite") == (1, 0)
    assert f"{outside} is not below {tmp_path}/in" in capsys.readouterr().err


def test_a_data_set_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Folders named test do not become splits; `datasets` reads it where that is installed."""
    files, out = photos(tmp_path / "in"), tmp_path / "set.hf"
    assert captioned(*files, "--out", str(out)) == (0, 3)
    names = ["0001-a.png", "0003-a.png", "b.png", "metadata.jsonl"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [f"train/{name}" for name in names]
    lines = [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()]
    expected = [("0001-a.png", "grey 10"), ("b.png", "grey 20"), ("0003-a.png", "grey 30")]
    assert [(line["file_name"], line["text"]) for line in lines] == expected
    assert (out / "train" / "0003-a.png").read_bytes() == Path(files[2]).read_bytes()
    capsys.readouterr()
    for more in ([], ["--resume"]):
        assert captioned(*files, "--out", str(out), *more) == (1, 0)
        assert "set.hf exists: give --overwrite to replace it" in capsys.readouterr().err
    assert captioned(files[0], "--out", str(out), "--overwrite") == (0, 1)
    assert sorted(path.name for path in (out / "train").iterdir()) == ["a.png", "metadata.jsonl"]
    (out / "mine.txt").write_text("x")
    assert captioned(*files, "--out", str(out), "--overwrite") == (1, 0)
    assert "set.hf is a folder that limner did not write" in capsys.readouterr().err


def test_what_a_data_set_cannot_hold_is_said_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    clip = str(write(tmp_path / "v.mp4", greys(9)))
    tar = str(write_tar(tmp_path / "all.tar", {"dog.png": encoded("red")}))
    for file, out, why in (
        (clip, "c.hf", "is a clip, and"),
        (tar, "c.hf", "lies inside another file, so"),
        (tar, "metadata.jsonl", "lies inside another file, so"),
    ):
        assert captioned(file, "--out", str(tmp_path / out)) == (1, 0) and why in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["metadata.jsonl", "set.hf", "c.parquet"])
def test_datasets_loads_what_was_written(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    files = photos(tmp_path / "in")
    out = tmp_path / "in" / kind if kind == "metadata.jsonl" else tmp_path / kind
    assert captioned(*files, "--out", str(out)) == (0, 3)
    cache = str(tmp_path / "cache")
    if kind == "c.parquet":
        found = datasets.load_dataset("parquet", data_files=str(out), cache_dir=cache)["train"]
        assert found["caption"][:] == ["grey 10", "grey 20", "grey 30"] and found["file"][:] == files
        return
    if kind == "metadata.jsonl":
        files, lines = files[:2], out.read_text().splitlines()[:2]  # a folder named test would be a split
        Path(tmp_path / "in" / "test" / "a.png").unlink()
        out.write_text("\n".join(lines) + "\n")
    folder = out if kind == "set.hf" else out.parent
    found = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache)
    assert list(found) == ["train"]
    texts = {row["text"]: row["image"].size for row in found["train"]}
    assert texts == dict.fromkeys(["grey 10", "grey 20", "grey 30"][: len(files)], (32, 24)) or len(texts) == len(files)
