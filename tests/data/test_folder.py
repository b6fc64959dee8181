"""A folder of images and clips with text files beside them."""

import os
from pathlib import Path

import pytest

from limner.data.dataset import Dataset, split_by_hash
from limner.data.datasets import DataConfig, read_dataset
from limner.data.folder import read_folder


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {medium.id: medium.references for medium in dataset.media}


def test_captions_in_text_files_beside_the_pictures_are_read(tmp_path: Path):
    for name in ("b.jpg", "val/c.PNG", "sub/train/d.mp4", "a.jpeg", "notes.md"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).touch()
    (tmp_path / "m" / "b.txt").write_text("one\n\n two \n")
    (tmp_path / "m" / "val" / "c.txt").write_text("three\n...\n")
    found = read_folder("", tmp_path / "m")
    expected = {"a.jpeg": (), "b.jpg": ("one", " two "), "sub/train/d.mp4": (), "val/c.PNG": ("three",)}
    assert captions(found) == expected
    assert [medium.split for medium in found.media] == [split_by_hash("a.jpeg"), split_by_hash("b.jpg"), "train", "val"]
    assert found.problems == ("val/c.PNG: 1 empty caption(s) dropped",)

    (tmp_path / "t").mkdir()  # captions kept apart
    (tmp_path / "t" / "a.txt").write_text("four")
    apart = read_dataset(DataConfig("folder", str(tmp_path / "m"), str(tmp_path / "t")))
    assert captions(apart)["a.jpeg"] == ("four",) and captions(apart)["b.jpg"] == ()


def test_folders_without_media_are_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("a dog")
    with pytest.raises(ValueError, match=r"no image or clip below .*: 1 file is no image and no video: notes\.txt"):
        read_folder("", tmp_path)
    with pytest.raises(ValueError, match="is not a folder; expected a folder with images or clips"):
        read_folder("", tmp_path / "nowhere")


def test_ids_are_unique():
    from limner.core.types import Medium

    with pytest.raises(ValueError, match=r"1 ids occur twice in the dataset, for example \['7'\]"):
        Dataset((Medium("7", "a"), Medium("8", "b"), Medium("7", "c")))


def test_text_files_that_are_not_utf8_are_refused(tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.jpg").touch()
    (tmp_path / "m" / "a.txt").write_bytes("Bär".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text"):
        read_folder("", tmp_path / "m")
    (tmp_path / "m" / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert captions(read_folder("", tmp_path / "m")) == {"a.jpg": ("one", "two")}


def test_a_picture_whose_name_is_not_utf8_is_left_out(tmp_path: Path):
    (tmp_path / "a.jpg").touch()
    try:
        (tmp_path / os.fsdecode(b"b\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    found = read_folder("", tmp_path)
    assert list(captions(found)) == ["a.jpg"]
    assert found.problems == ("b\\udcff.jpg: the file name is not UTF-8; rename it",)
