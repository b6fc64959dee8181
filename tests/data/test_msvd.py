"""MSVD from the CSV, from sentence files and from split lists; clips go by either of their names."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from limner.data.datasets import DataConfig, read_dataset
from limner.data.msvd import read
from tests.data.videos import greys, write

SHARED = Path(os.environ.get("LIMNER_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "msvd"
HEAD = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
CLIPS = {"aa-_x_5_15": "vid1", "b_b_205_208": "vid1200", "cc_0_4": "vid1201", "dd_1_2": "vid1301", "ee_7_9": "vid2"}
SPLITS = {"aa-_x_5_15": "train", "b_b_205_208": "train", "cc_0_4": "val", "dd_1_2": "test", "ee_7_9": "train"}


def corpus(folder: Path) -> Path:
    rows = [
        "aa-_x,5,15,1,clean,30,English,A squirrel eats.",
        "cc,0,4,2,clean,30,English,A cat.",
        "aa-_x,5,15,1,clean,30,German,Ein Eichhorn.",
        "b_b,205,208,3,clean,30,English,",
        'b_b,205,208,3,clean,30,English,"A man, and a dog."',
        "aa-_x,5,15,9,unverified,30,English,Eating a nut.",
        "dd,1,2,3,clean,30,English,Rain.",
        "zz,3,4,3,clean,30,English,Nobody knows this clip.",
    ]
    path = folder / "MSR Video Description Corpus.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def mapping(folder: Path) -> Path:
    path = folder / "youtube_mapping.txt"
    path.write_bytes("".join(f"{clip} {number}\r\n" for clip, number in CLIPS.items()).encode())
    return path


def content(dataset) -> dict:
    return {medium.id: (medium.split, medium.references) for medium in dataset.media}


def test_the_csv_is_read_with_its_name_mapping(tmp_path: Path):
    mapping(tmp_path)
    found = read(corpus(tmp_path))
    assert {id: split for id, (split, _) in content(found).items()} == SPLITS
    assert content(found)["aa-_x_5_15"][1] == ("A squirrel eats.", "Eating a nut.")
    assert content(found)["b_b_205_208"][1] == ("A man, and a dog.",)
    assert found.problems == (
        "b_b_205_208: 1 empty caption(s) dropped",
        "zz_3_4: 1 caption(s) of a clip that youtube_mapping.txt does not have",
        "ee_7_9: no caption",
    )


def test_sentence_files_are_read(tmp_path: Path):
    lines = {
        "train": "vid1\ta squirrel is eating\nvid2\ta dog\nvid1\teating a nut\nvid1200\ta man\n",
        "val": "vid1201\ta cat\r\n",
        "test": "vid1301\train\n\n",
    }
    for split, text in lines.items():
        (tmp_path / f"sents_{split}_lc_nopunc.txt").write_bytes(text.encode())
    numbered = {"vid1": "train", "vid2": "train", "vid1200": "train", "vid1201": "val", "vid1301": "test"}
    assert {m.id: m.split for m in read(tmp_path).media} == numbered  # without a mapping
    mapping(tmp_path)
    found = read(tmp_path)
    assert {m.id: m.split for m in found.media} == SPLITS and found.problems == ()
    assert content(found)["aa-_x_5_15"][1] == ("a squirrel is eating", "eating a nut")
    one = read(tmp_path / "sents_test_lc_nopunc.txt")
    assert one.problems == ("split train: none of its 3 media has a caption", "cc_0_4: no caption")
    assert [m.id for m in one.media if m.references] == ["dd_1_2"]


def test_split_lists_may_use_either_name_of_a_clip(tmp_path: Path):
    """A home-made split of three clips; one that has no captions anywhere is told."""
    path = corpus(tmp_path)
    with pytest.raises(ValueError, match=r"the vidN of 'aa-_x_5_15' is not known.*: put youtube_mapping\.txt beside"):
        read(path)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.list").write_text(json.dumps(["dd_1_2", "nn_5_6"]))
    (lists / "valid.list").write_text(json.dumps(["cc_0_4"]))
    (lists / "test.list").write_text(json.dumps(["aa-_x_5_15"]))
    config = DataConfig("msvd", annotations=str(path), splits=str(lists))
    found = read_dataset(config)
    assert {m.id: m.split for m in found.media} == {"dd_1_2": "train", "cc_0_4": "val", "aa-_x_5_15": "test"}
    assert found.problems == (f"nn_5_6: in the train list of {lists}, but the annotations do not have it",)
    mapping(tmp_path)
    (lists / "test.list").write_text(json.dumps(["vid1", "vid2"]))
    found = read_dataset(config)
    assert {m.id: m.split for m in found.media if m.split == "test"} == {"aa-_x_5_15": "test", "ee_7_9": "test"}
    assert "ee_7_9: no caption" in found.problems


def test_clip_files_may_have_either_name(tmp_path: Path):
    mapping(tmp_path)
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips" / "aa-_x_5_15.avi", greys(2))
    write(tmp_path / "clips" / "vid1301.mp4", greys(2))
    paths = {m.id: Path(m.path).name for m in read(corpus(tmp_path), tmp_path / "clips").media}
    assert paths["aa-_x_5_15"] == "aa-_x_5_15.avi" and paths["dd_1_2"] == "vid1301.mp4"
    assert paths["cc_0_4"] == "cc_0_4.avi"


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("VideoID,Start,Description\nx,1,y\n")
    with pytest.raises(ValueError, match=r"a\.csv has the columns .*, but not End, Language"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.txt").write_text("vid1 a dog\n")
    with pytest.raises(
        ValueError, match=r"a\.txt, line 1: expected vidN<TAB>caption, got 'vid1 a dog'; MSVD comes as the CSV"
    ):
        read(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="no captions of MSVD in it; expected the CSV"):
        read(tmp_path)
    (tmp_path / "map.txt").write_text("clip vid1 more\n")
    with pytest.raises(ValueError, match=r"map\.txt, line 1: expected a clip name and vidN"):
        read(corpus(tmp_path), mapping=tmp_path / "map.txt")
    with pytest.raises(FileNotFoundError, match=r"data\.mapping: no file at '.*none\.txt'"):
        read(corpus(tmp_path), mapping=tmp_path / "none.txt")


@pytest.mark.data
def test_the_official_files_are_read():
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    found = read(SHARED, SHARED / "clips")
    assert Counter(m.split for m in found.media) == {"train": 1200, "val": 100, "test": 670} and found.problems == ()
    count = {split: sum(len(m.references) for m in found.split(split)) for split in ("train", "val", "test")}
    assert count == {"train": 48774, "val": 4290, "test": 27763}
    assert sum(Path(m.path).is_file() for m in found.media) == 5
