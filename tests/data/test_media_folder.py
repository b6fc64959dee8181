"""Which files of a folder are read, which are only counted, and which are nobody's."""

import os
from pathlib import Path

import pytest
from PIL import Image

from limner.data.clip_folder import clip_files
from limner.data.folder import read_folder
from limner.data.media_folder import MediaFolder, media_below


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
