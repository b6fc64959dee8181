"""Which files of a folder are read, which are only counted, and which are nobody's."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.data import msrvtt
from limner.data.clip_folder import clip_files
from limner.data.feature_files import FeatureFiles, are_feature_files
from limner.data.folder import read_folder
from limner.data.media_folder import MediaFolder, media_below
from limner.data.regions import read_region_folder
from limner.data.split_lists import read_split_lists


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path, "PNG")
    return path


def names(found: MediaFolder, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.media]


COMPANIONS = (
    *(
        "._dog.png",
        ".ipynb_checkpoints/dog-checkpoint.png",
        "__MACOSX/dog.png",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
    ),
    *(
        "a/.DS_Store",
        "a/@eaDir/dog.png/SYNOPHOTO_THUMB_M.jpg",
        ".git/dog.png",
        "$RECYCLE.BIN/dog.png",
        ".thumbnails/d.png",
    ),
)


@pytest.mark.parametrize("companion", COMPANIONS)
def test_hidden_companions_are_left_out_and_not_counted(tmp_path: Path, companion: str) -> None:
    image(tmp_path / "dog.png")
    image(tmp_path / companion)
    assert media_below(tmp_path) == MediaFolder((tmp_path / "dog.png",))
    assert [medium.id for medium in read_folder("", tmp_path).media] == ["dog.png"]


def test_a_folder_that_is_itself_hidden_is_read(tmp_path: Path) -> None:
    image(tmp_path / ".cache/images/dog.png")
    assert names(media_below(tmp_path / ".cache/images"), tmp_path) == [".cache/images/dog.png"]


def test_media_without_a_suffix_and_promised_ones_are_found_and_others_counted(tmp_path: Path) -> None:
    for name in ("f3a9c1", "B.PNG", "c.jfif", "d/photo.dat"):
        image(tmp_path / name)
    for name in ("broken.jpg", "photo.HEIC", "drawing.svg", "notes.txt", "README", "d/captions.csv", "f.npy"):
        (tmp_path / name).write_text("text")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = media_below(tmp_path)
    assert names(found, tmp_path) == sorted(
        ["f3a9c1", "B.PNG", "c.jfif", "d/photo.dat", "broken.jpg", "photo.HEIC", "drawing.svg", "pipe", "gone.png"]
    )
    assert found.note(tmp_path) == (
        f"{tmp_path}: 4 files are no image and no video: README, d/captions.csv, f.npy, ..."
    )


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere/dog.png")
    image(tmp_path / "root/cat.png")
    for name, target in (("linked", "elsewhere"), ("again", "elsewhere"), ("loop", "root"), ("up", ".")):
        (tmp_path / "root" / name).symlink_to(tmp_path / target)
    assert sorted(path.name for path in media_below(tmp_path / "root").media) == ["cat.png", "dog.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "dog.png")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = media_below(tmp_path)
    assert names(found, tmp_path) == ["dog.png"]
    assert found.problems == (
        f"{tmp_path / 'locked'}: the folder cannot be listed (Permission denied); it was left out",
    )
    assert read_folder("", tmp_path).problems == found.problems


def test_clips_of_a_data_set_are_found_by_content(tmp_path: Path) -> None:
    image(tmp_path / "cover.mp4")  # an image, although its name says otherwise
    (tmp_path / "video7").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(50))
    (tmp_path / "._video7.mkv").write_bytes(b"\0\x05\x16\x07")
    assert clip_files(tmp_path) == {"video7": str(tmp_path / "video7")}


def test_companions_are_no_features_no_regions_no_clips_and_no_annotations(tmp_path: Path):
    """Every reader of a folder leaves out `._v1.npz`, as macOS writes it, and the folders of a NAS."""
    for folder in (tmp_path, tmp_path / "@eaDir" / "v2", tmp_path / ".hidden" / "v3", tmp_path / "v4"):
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
    np.savez(tmp_path / "v1.npz", features=np.ones((2, 3)), boxes=np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]]))
    for name in ("._v1.npz", "._videodatainfo.json", "._train.txt"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "train.txt").write_text("v1\n")
    (tmp_path / "videodatainfo.json").write_text("{}")
    assert FeatureFiles([tmp_path]).sources[0].ids == {"v1"}
    assert [entry.id for entry in read_region_folder(tmp_path)] == ["v1"]
    assert clip_files(tmp_path) == {"v4": str(tmp_path / "v4")}
    assert msrvtt._annotation_files(tmp_path) == [tmp_path / "videodatainfo.json"]
    assert read_split_lists(tmp_path) == {"v1": "train"}
    (tmp_path / "v1.npz").unlink()
    assert not are_feature_files(tmp_path)
