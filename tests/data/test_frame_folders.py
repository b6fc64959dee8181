"""Folders of frames as clips: order, sampling, damage; and the data set of such folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.core.torch_free import Medium
from limner.data.clip_folder import clip_files
from limner.data.dataset import Dataset
from limner.data.datasets import DataConfig, read_dataset
from limner.data.frame_folders import frame_files, looks_like_frames
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, is_clip, read_medium
from tests.data.videos import greys, shown, write


def frames(folder: Path, *greys: int, pattern: str = "frame{}.png", side: int = 8) -> Path:
    """Frame k + 1 is grey of the value greys[k]."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, grey in enumerate(greys, 1):
        Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(folder / pattern.format(number))
    return folder


def values(path: Path, sampling: FrameSampling, seed: int | None = None) -> list[int]:
    return read_medium(Medium("a", str(path), frame_seed=seed), sampling)[:, 0, 0, 0].tolist()


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path):
    folder = frames(tmp_path / "v", *range(12))
    (folder / "._frame1.png").write_bytes(b"companion")
    (folder / "notes.txt").write_text("x")
    assert [path.name for path in frame_files(folder)][8:11] == ["frame9.png", "frame10.png", "frame11.png"]
    assert is_clip(folder) and values(folder, FrameSampling(12)) == list(range(12))


@pytest.mark.parametrize("policy", ["uniform", "head", "tail", "every"])
@pytest.mark.parametrize("count", [2, 5, 30])
def test_sampling_is_that_of_a_video_with_these_frames(tmp_path: Path, policy: str, count: int):
    sampling = FrameSampling(count, policy, 3)  # type: ignore[arg-type]
    folder = frames(tmp_path / "v", *range(20))
    video = write(tmp_path / "v.mp4", greys(20))
    assert values(folder, sampling) == shown(read_medium(str(video), sampling))


def test_random_frames_depend_on_the_seed(tmp_path: Path):
    folder = frames(tmp_path / "v", *range(50))
    drawn = [values(folder, FrameSampling(2, "random"), seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert values(folder, FrameSampling(2, "random")) == [12, 37]


def test_damaged_frames_are_replaced_and_noted(tmp_path: Path):
    folder = frames(tmp_path / "v", 10, 20, 30, 40)
    for number in (1, 3):
        (folder / f"frame{number}.png").write_bytes(b"no image")
    notes: list[str] = []
    assert read_medium(str(folder), FrameSampling(4), notes)[:, 0, 0, 0].tolist() == [20, 20, 20, 40]
    assert len(notes) == 1 and notes[0].startswith(
        f"{folder}: 2 frames cannot be read, their neighbours stand for them ("
    )
    with pytest.raises(MediaError, match="frames have no times"):
        read_medium(Medium("a", str(folder), start=1.0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="empty: there is no image in this folder; expected the frames of a clip"):
        read_medium(tmp_path / "empty")


def test_frames_of_different_sizes_get_the_size_of_the_first(tmp_path: Path):
    folder = frames(frames(tmp_path / "v", 1, 2), 9, pattern="frame3{}.png", side=6)
    found = read_medium(str(folder), FrameSampling(3))
    assert found.shape == (3, 8, 8, 3) and found[:, 0, 0, 0].tolist() == [1, 2, 9]


def test_which_folders_look_like_frames(tmp_path: Path):
    assert looks_like_frames(frames(tmp_path / "a", 1, 2, 3))
    assert not looks_like_frames(frames(tmp_path / "b", 1, 2))  # two photographs
    assert not looks_like_frames(frames(tmp_path / "c", 1, 2, 3, pattern="{0}{0}.png"))  # 11, 22, 33
    frames(tmp_path / "a", 4, pattern="cover{}.png")
    assert not looks_like_frames(tmp_path / "a")


def captions(dataset: Dataset) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {medium.id: (medium.split, medium.references) for medium in dataset.media}


def test_a_data_set_of_frame_folders(tmp_path: Path):
    for split, name in (("train", "v1"), ("val", "v2"), ("test", "v3")):
        frames(tmp_path / "data" / split / name, 1, 2)
    (tmp_path / "data" / "train" / "v1.txt").write_text("one\ntwo\n")
    found = read_dataset(DataConfig("frames", str(tmp_path / "data")))
    assert captions(found) == {"test/v3": ("test", ()), "train/v1": ("train", ("one", "two")), "val/v2": ("val", ())}
    assert found.problems == ("test/v3: no caption", "val/v2: no caption")
    (tmp_path / "c.csv").write_text("file,caption,split\nv1.mp4,a dog,val\nv2,a cat,train\nv9,gone,train\n")
    found = read_dataset(DataConfig("frames", str(tmp_path / "data"), str(tmp_path / "c.csv")))
    assert captions(found)["train/v1"] == ("val", ("a dog",)) and captions(found)["val/v2"] == ("train", ("a cat",))
    assert found.problems[0] == f"1 ids of {tmp_path}/c.csv have no folder of frames, the first is v9"
    (tmp_path / "d.csv").write_text("file,caption\nx,a dog\n")
    with pytest.raises(
        ValueError, match=r"d\.csv: none of its 1 ids is a folder below .* \(x, \.\.\. and test/v3, train"
    ):
        read_dataset(DataConfig("frames", str(tmp_path / "data"), str(tmp_path / "d.csv")))
    with pytest.raises(ValueError, match=r"no folder below .* holds images"):
        read_dataset(DataConfig("frames", str(tmp_path / "data" / "train" / "v1")))


def test_a_folder_of_frames_stands_for_a_clip_of_its_name(tmp_path: Path):
    frames(tmp_path / "video0", 1, 2)
    write(tmp_path / "video1.mp4", greys(2))
    frames(tmp_path / "x" / "video1", 1, 2)
    assert clip_files(tmp_path) == {"video0": str(tmp_path / "video0"), "video1": str(tmp_path / "video1.mp4")}
