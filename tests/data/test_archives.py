"""Media inside archives, and WebDataset tars: read from their place, damage named, nothing unpacked."""

import io
import json
import os
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.subtitles import subtitle_paths
from limner.data.archives import find_archive, medium_exists, open_archive
from limner.data.captions_file import read_captions
from limner.data.datasets import DataConfig, read_dataset
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, is_clip, media_of_archive, read_medium
from limner.data.webdataset import read
from tests.data.prepared import COLOURS, encoded, pixels, write_tar
from tests.data.videos import animate, greys
from tests.training.world import clip


def test_an_image_in_a_tar_is_read_by_its_path(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"x/red.png": encoded("red"), "x/blue.png": encoded("blue"), "x/red.txt": b"r"})
    assert media_of_archive(tar) == ([f"{tar}/x/red.png", f"{tar}/x/blue.png"], [])
    np.testing.assert_array_equal(read_medium(f"{tar}/x/blue.png")[0], pixels("blue"))
    assert find_archive(f"{tar}/x/blue.png") == (tar, "x/blue.png") and find_archive(str(tar)) is None
    assert medium_exists(f"{tar}/x/red.png") and not medium_exists(f"{tar}/gone.png") and not medium_exists("")
    with pytest.raises(
        MediaError, match=r"a\.tar/gone\.png: there is no such file in the tar, which has 3 files \(x/red"
    ):
        read_medium(f"{tar}/gone.png")
    with pytest.raises(MediaError, match=r"a\.tar/bad\.png: not an image in a format that is read"):
        read_medium(f"{write_tar(tmp_path / 'a.tar', {'bad.png': b'no image'})}/bad.png")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_read_in_any_order(tmp_path: Path, suffix: str):
    files = {f"{name}.png": encoded(name) for name in COLOURS}
    tar = write_tar(tmp_path / f"a.tar.{suffix}", files, f"w:{suffix}")
    before = set(os.listdir(tmp_path))
    for name in reversed(COLOURS):
        np.testing.assert_array_equal(read_medium(f"{tar}/{name}.png")[0], pixels(name))
    assert set(os.listdir(tmp_path)) == before


def test_a_clip_in_a_tar_gives_the_frames_of_the_file(tmp_path: Path):
    clip(tmp_path / "c.mp4")
    tar = write_tar(tmp_path / "a.tar", {"c.mp4": (tmp_path / "c.mp4").read_bytes(), "bad.mp4": b"no clip"})
    sampling = FrameSampling(3)
    np.testing.assert_array_equal(read_medium(f"{tar}/c.mp4", sampling), read_medium(tmp_path / "c.mp4", sampling))
    with pytest.raises(MediaError, match=r"^[^ ]*a\.tar/bad\.mp4: the clip cannot be decoded"):
        read_medium(f"{tar}/bad.mp4")


def test_media_in_a_tar_are_recognised_by_content_and_companions_left_out(tmp_path: Path):
    animate(tmp_path / "a.gif", greys(6, 20))
    gif = (tmp_path / "a.gif").read_bytes()
    files = {"b": encoded("red"), "c.gif": gif, "d.jpg": gif, "e.dat": gif, "notes.md": b"text", "e.txt": b"a dog"}
    companions = {"Thumbs.db": encoded("red"), "@eaDir/b.jpg": encoded("red"), "__MACOSX/._b.jpg": b"", ".b.jpg": b""}
    tar = write_tar(tmp_path / "a.tar", files | companions)
    assert media_of_archive(tar) == ([f"{tar}/{name}" for name in ("b", "c.gif", "d.jpg", "e.dat")], [])
    assert not is_clip(f"{tar}/b") and not is_clip(f"{tar}/notes.md")
    for name in ("c.gif", "d.jpg", "e.dat"):
        assert is_clip(f"{tar}/{name}")
        np.testing.assert_array_equal(
            read_medium(f"{tar}/{name}", FrameSampling(6)), read_medium(tmp_path / "a.gif", FrameSampling(6))
        )
    assert {medium.path: medium.references for medium in read(tar).media}[f"{tar}/e.dat"] == ("a dog",)


def test_links_companions_and_cut_members_are_named_or_left_out(tmp_path: Path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("./a.png", "._a.png", "__MACOSX/a.png", "dir/.hidden/b.png"):
            member = tarfile.TarInfo(name)
            member.size = len(encoded("red"))
            tar.addfile(member, io.BytesIO(encoded("red")))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert media_of_archive(path) == (
        [f"{path}/a.png"],
        [f"{path}/link.png: it is a link or a special file, which is not read"],
    )
    whole = write_tar(tmp_path / "b.tar", {"a.png": encoded("red"), "b.png": bytes(5000)}).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:2000])
    media, problems = media_of_archive(tmp_path / "b.tar")
    assert media == [f"{tmp_path}/b.tar/a.png"]
    assert problems[0] == f"{tmp_path}/b.tar/b.png: the tar breaks off in this file; download it again"


def test_files_that_are_no_tar_are_named(tmp_path: Path):
    for name, content, message in (
        ("page.tar", b"<html>404</html>" * 99, r"page\.tar is not a tar file, or is damaged"),
        ("empty.tar", b"", r"empty\.tar"),
        ("page.tar.gz", b"<html>", r"page\.tar\.gz cannot be decompressed"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_archive(tmp_path / name)
    bomb = write_tar(tmp_path / "bomb.tar.xz", {"a.png": bytes(120 << 20)}, "w:xz")
    with pytest.raises(ValueError, match=r"bomb\.tar\.xz becomes more than 100 times larger"):
        open_archive(bomb)


def test_images_in_an_hdf5_file(tmp_path: Path):
    stack = np.stack([pixels("red"), pixels("blue")]).transpose(0, 3, 1, 2)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["images"], file["numbers"] = stack, np.zeros(3)
    path = str(tmp_path / "a.hdf5")
    assert media_of_archive(path) == ([f"{path}/images/0", f"{path}/images/1"], [])
    np.testing.assert_array_equal(read_medium(f"{path}/images/1")[0], pixels("blue"))
    np.testing.assert_array_equal(read_medium(f"{path}/images/1/BGR")[0], pixels("red"))
    with pytest.raises(
        MediaError, match=r"a\.hdf5/images/2: there is no such image; the file has images with 2 images"
    ):
        read_medium(f"{path}/images/2")


def test_samples_of_a_webdataset(tmp_path: Path):
    """Text before JSON; several captions; endings of two parts; the split of the file's name, of JSON, or by hash."""
    folder = tmp_path / "shards"
    (folder / "val").mkdir(parents=True)
    both = json.dumps({"caption": "not this", "split": "test"}).encode()
    write_tar(folder / "train-0.tar", {"a.png": encoded("red"), "a.txt": b"eins\n\nzwei\n", "b.txt": b"alone"})
    write_tar(folder / "val" / "0.tar", {"c.seg.png": encoded("red"), "c.json": b'{"captions": ["x", {"raw": "y"}]}'})
    write_tar(folder / "0.tar", {"d.png": encoded("blue"), "d.json": both, "d.txt": b"this", "e.png": encoded("red")})
    found = read(folder)
    split = {medium.id: (medium.split, medium.references) for medium in found.media}
    assert split["a"] == ("train", ("eins", "zwei")) and split["c"] == ("val", ("x", "y"))
    assert split["d"] == ("test", ("this",)) and split["e"][1] == ()
    assert found.problems == (
        f"{folder}/train-0.tar: 1 samples have no image or clip, the first is b",
        "e: no caption",
    )
    write_tar(folder / "1.tar", {"a.png": encoded("green"), "a.txt": b"other"})  # the key of another tar
    assert {"train-0/a", "1/a"} <= {medium.id for medium in read(folder).media}


def test_captions_of_a_tar_are_read_for_scoring_too(tmp_path: Path):
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "val-0.tar", {"a.png": encoded("red"), "a.txt": b"one\ntwo\n"})
    for path in (tmp_path / "shards", tmp_path / "shards" / "val-0.tar"):
        scored = read_captions(path)
        assert (scored.format, scored.captions, scored.splits) == ("WebDataset", {"a": ("one", "two")}, {"a": "val"})


def test_patterns_of_shards(tmp_path: Path):
    for k in range(3):
        write_tar(tmp_path / f"s-{k:03d}.tar", {f"{k}.png": encoded("red"), f"{k}.txt": b"x"})
    for source in (tmp_path, f"{tmp_path}/s-{{000..002}}.tar", f"{tmp_path}/s-*.tar"):
        assert [medium.id for medium in read(source).media] == ["0", "1", "2"]
    with pytest.raises(FileNotFoundError, match=r"1 of 4 tars do not exist, the first is .*s-003\.tar"):
        read(f"{tmp_path}/s-{{000..003}}.tar")
    with pytest.raises(FileNotFoundError, match=r"no tar at '.*gone'; expected a tar"):
        read_dataset(DataConfig("webdataset", str(tmp_path / "gone")))


def test_a_damaged_caption_file_of_a_sample_is_a_problem_line(tmp_path: Path):
    files = {"a.png": encoded("red"), "a.json": b"{", "b.png": encoded("red"), "b.txt": "ä".encode("latin-1")}
    files |= {"c.png": encoded("red"), "c.json": b'{"caption": 7}', "d.png": encoded("red"), "d.txt": b"fine"}
    found = read(write_tar(tmp_path / "train.tar", files))
    assert [medium.references for medium in found.media] == [(), (), (), ("fine",)]
    lines = [line for line in found.problems if "no caption" not in line]
    assert [line.partition(":")[0] for line in lines] == ["a", "b", "c"]
    assert (
        "a.json is not a JSON file" in lines[0]
        and "b.txt is not UTF-8" in lines[1]
        and "must be text, got 7" in lines[2]
    )


def test_subtitles_of_a_clip_in_a_tar_need_a_folder(tmp_path: Path):
    clip(tmp_path / "c.mp4")
    tar = write_tar(tmp_path / "a.tar", {"c.mp4": (tmp_path / "c.mp4").read_bytes()})
    with pytest.raises(WrongArguments, match=r"--srt: .*a\.tar/c\.mp4 lies inside another file; name a folder"):
        subtitle_paths("", ".srt", [f"{tar}/c.mp4"])
    assert subtitle_paths("subs", ".srt", [f"{tar}/c.mp4"]) == {f"{tar}/c.mp4": Path("subs/c.srt")}
