"""`find_data` and `inspect_data`: what limner makes of a path that a user names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from limner.data.datasets import read_dataset
from limner.data.inspection import inspect_data
from limner.data.own_data import find_data
from tests.data import prepared
from tests.data.test_layouts import LAYOUTS, TRUTH

WRITERS: dict[str, Callable[[Path], Path]] = {
    "webdataset": prepared.write_webdataset,
    "frames": prepared.write_frames,
    "cocotalk": prepared.write_cocotalk,
    "show_attend_tell": prepared.write_show_attend_tell,
    "parquet": prepared.write_parquet,
    "huggingface": prepared.write_saved_to_disk,
}


def picture(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(path)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_pictures_of_every_caption_file_are_found_in_a_folder_beside_it(name: str, tmp_path: Path):
    for place, file in enumerate(TRUTH):
        picture(tmp_path / "pictures" / file, place)
    (tmp_path / "captions.dat").write_text(LAYOUTS[name][1], encoding="utf-8")
    config = find_data(tmp_path / "captions.dat")
    assert config.name == "captions"
    found = {Path(medium.path).name: medium.references for medium in read_dataset(config).media}
    located = {path: texts for path, texts in found.items() if path in TRUTH}
    assert located == TRUTH if Path(config.media).name == "pictures" else config.media == ""


@pytest.mark.parametrize("name", WRITERS)
def test_data_in_the_layouts_of_others_are_recognised(name: str, tmp_path: Path):
    if name in ("parquet", "huggingface"):
        pytest.importorskip("pyarrow")
    config = find_data(WRITERS[name](tmp_path / "data"))
    assert config.name == {"parquet": "huggingface"}.get(name, name)
    report = inspect_data(config)
    assert len(report.usable) == 12 and not report.unreadable and not report.missing


@pytest.mark.parametrize(("csv", "pictures", "media"), [
    ("photos.csv", "a.jpg", ""),
    ("photos.csv", "photos/a.jpg", "photos"),
    ("set/photos.csv", "set/a.jpg", "set"),
    ("set/photos.csv", "set/deep/er/a.jpg", "set/deep"),
    ("annotations/photos.csv", "images/a.jpg", "images"),
])  # fmt: skip
def test_the_folder_of_the_pictures_is_looked_for(
    csv: str, pictures: str, media: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    picture(Path(pictures))
    Path(csv).parent.mkdir(exist_ok=True)
    Path(csv).write_text("file,caption\na.jpg,a dog\n")
    config = find_data(csv)
    assert config.media == media
    (medium,) = read_dataset(config).media
    assert Path(medium.path).is_file()


def test_a_folder_with_pictures_and_one_caption_file_needs_no_more(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "notes.json").write_text('{"version": 2}')
    (tmp_path / "captions.csv").write_text("file,caption\na.jpg,a dog\n")
    assert find_data(tmp_path).annotations == str(tmp_path / "captions.csv")
    shutil.copy(tmp_path / "captions.csv", tmp_path / "more.csv")
    with pytest.raises(ValueError, match=r"holds 2 caption files \(captions.csv, more.csv\): name one of them"):
        find_data(tmp_path)
    (tmp_path / "a.txt").write_text("the dog")  # text files beside the pictures are meant, then
    assert find_data(tmp_path).name == "folder"


def test_nothing_at_a_path_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*photos\.csv; give a caption file"):
        find_data(tmp_path / "photos.csv")


def test_everything_that_is_wrong_with_data_is_counted(tmp_path: Path):
    """Ten rows: three usable pictures, of which two are equal; one missing, one damaged, one without a caption."""
    for place, name in enumerate(("a", "b", "c")):
        picture(tmp_path / f"{name}.png", place)
    shutil.copy(tmp_path / "a.png", tmp_path / "d.png")
    (tmp_path / "web.png").write_text("<html>")
    picture(tmp_path / "nobody.png", 9)
    rows = [("a", "a dog"), ("a", "..."), ("b", "a cat"), ("c", ""), ("d", "the dog"), ("gone", "a bird"),
            ("web", "a page")]  # fmt: skip
    table = [{"file": f"{name}.png", "caption": caption} for name, caption in rows] + [{"file": "", "caption": "x"}]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    report = inspect_data(find_data(tmp_path / "captions.jsonl"))
    assert [medium.id for medium in report.usable] == ["a.png", "b.png", "d.png"]
    assert report.missing == (f"gone.png: there is no file {tmp_path / 'gone.png'}",)
    assert len(report.unreadable) == 1 and "web.png" in report.unreadable[0]
    assert sum(report.empty_captions.values()) == 2 and report.without_captions == ("c.png",)
    assert report.duplicates == (("a.png", "d.png"),)
    assert report.unnamed == (str(tmp_path / "nobody.png"),)
    assert len(report.other_problems) == 1 and "no file name" in report.other_problems[0]


def test_of_many_files_some_are_opened(tmp_path: Path):
    for place in range(5):
        picture(tmp_path / f"{place}.png", place)
        (tmp_path / f"{place}.txt").write_text("a dog")
    seen: list[str] = []
    report = inspect_data(find_data(tmp_path), 2, lambda media: (seen.append(medium.id) or medium for medium in media))
    assert seen == ["0.png", "3.png"] and report.unchecked == 3


def test_data_without_captions_are_refused(tmp_path: Path):
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="none of 1 images or clips has a caption; give a caption file"):
        inspect_data(find_data(tmp_path))
