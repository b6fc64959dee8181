"""limner caption on folders as they come from phones, archives and the web: nothing is passed over in silence."""

import csv
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.shared.input_files import expand


def image(path: Path, format: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").convert("RGB").save(path, format)
    return path


def captioned(tiny: Path, tmp_path: Path, *files: Path) -> tuple[int, list[str]]:
    out = tmp_path / "captions.csv"
    status = main(["caption", *map(str, files), "--model", str(tiny / "run"), "--device", "cpu", "--out", str(out)])
    with open(out, newline="", encoding="utf-8") as file:
        return status, [Path(row["file"]).name for row in csv.DictReader(file)]


def test_a_phone_folder_is_captioned_whole_and_its_companions_are_not(tiny: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "phone"
    for name, format in (
        *(("IMG_1.JPG", "JPEG"), ("download.jfif", "JPEG"), ("f3a9c1", "JPEG"), ("a.avif", "AVIF"), ("b.HEIC", "AVIF")),
        *(("c.jp2", "JPEG2000"), ("d.tga", "TGA"), ("e.pnm", "PPM"), ("f.ico", "ICO"), ("g.jpg?w=640", "PNG")),
    ):
        image(folder / name, format)
    for name in ("._IMG_1.JPG", ".ipynb_checkpoints/IMG_1-checkpoint.jpg", "__MACOSX/IMG_1.JPG", "Thumbs.db"):
        image(folder / name)
    status, files = captioned(tiny, tmp_path, folder)
    assert status == 0
    assert files == sorted(
        ["IMG_1.JPG", "download.jfif", "f3a9c1", "a.avif", "b.HEIC", "c.jp2", "d.tga", "e.pnm", "f.ico", "g.jpg?w=640"]
    )
    assert "note" not in capsys.readouterr().err


def test_what_cannot_be_read_is_listed_and_other_files_are_counted(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    folder = tmp_path / "mixed"
    image(folder / "dog.jpg")
    contents = {
        "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90),
        "b.jpg": b"%!PS-Adobe-3.0\n",
        "c.jpg": b"<!doctype html><p>404",
        "d.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "e.mp4": b"text",
        "notes.txt": b"a dog",
        "dog.json": b"{}",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "x.png")
    status, files = captioned(tiny, tmp_path, folder)
    said = capsys.readouterr().err
    assert (status, files) == (3, ["dog.jpg"])
    assert "6 files could not be read" in said
    for line in (
        "a.heic: it is HEIC, which needs a plug-in: pip install 'limner[heif]'",
        "b.jpg: it is PostScript",
        "c.jpg: it is a web page",
        "d.svg: it is an SVG drawing",
        "e.mp4: the clip cannot be decoded",
        "x.png: a FIFO (named pipe), not a file",
        "mixed: 1 file is no image and no video: notes.txt",
    ):
        assert line in said


def test_a_truncated_photograph_is_captioned_with_a_note(tiny: Path, tmp_path: Path, capsys) -> None:
    path = image(tmp_path / "dog.jpg")
    path.write_bytes(path.read_bytes()[:-30])
    assert captioned(tiny, tmp_path, path) == (0, ["dog.jpg"])
    assert f"{path}: truncated: " in capsys.readouterr().err


def test_a_pattern_leaves_out_what_systems_put_there(tmp_path: Path) -> None:
    for name in ("dog.jpg", "Thumbs.db", "__MACOSX/dog.jpg", "@eaDir/dog.jpg"):
        image(tmp_path / name)
    assert expand([str(tmp_path / "**" / "*")]) == ([str(tmp_path / "dog.jpg")], [])
    assert expand([str(tmp_path / "__MACOSX" / "*.jpg")]) == ([str(tmp_path / "__MACOSX" / "dog.jpg")], [])
