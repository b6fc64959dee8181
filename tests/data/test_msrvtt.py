"""MSR-VTT as it is distributed: ZIPs, two JSONs or the merged one, sentences in any order."""

import json
import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from limner.data.datasets import DataConfig, read_dataset
from limner.data.msrvtt import category_names, read
from tests.data.videos import greys, write

SHARED = Path(os.environ.get("LIMNER_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "msrvtt"


def video(number: int, split: str = "", category: int = 0) -> dict:
    row = {"video_id": f"video{number}", "id": number, "category": category, "start time": 10.0, "end time": 20.0}
    return row | ({"split": split} if split else {})


def sentences(*pairs: tuple[int, str], first: int = 0) -> list[dict]:
    return [{"video_id": f"video{n}", "caption": text, "sen_id": first + k} for k, (n, text) in enumerate(pairs)]


TRAIN = {
    "videos": [video(0, "train"), video(7, "train", 1), video(6600, "validate")],
    "sentences": sentences((7, "a dog"), (0, "a cat"), (6600, "a cow"), (7, "the dog"), (0, "the cat")),
}
TEST = {"videos": [video(7010, "test", 1)], "sentences": sentences((7010, "a bird"), first=5)}
MERGED = {"videos": TRAIN["videos"] + TEST["videos"], "sentences": TRAIN["sentences"] + TEST["sentences"]}
EXPECTED = {
    "video0": ("train", ("a cat", "the cat")),
    "video7": ("train", ("a dog", "the dog")),  # not contiguous in the file
    "video6600": ("val", ("a cow",)),
    "video7010": ("test", ("a bird",)),
}


def save(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def pack(path: Path, **members: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in members.items():
            text = value if isinstance(value, str) else json.dumps(value)
            archive.writestr(name.replace("_txt", ".txt") if name.endswith("_txt") else f"{name}.json", text)
    return path


def content(dataset) -> dict:
    return {medium.id: (medium.split, medium.references) for medium in dataset.media}


def test_zips_json_files_and_the_merged_file_give_the_same_media(tmp_path: Path):
    for name in ("zips", "files", "all"):
        (tmp_path / name).mkdir()
    pack(tmp_path / "zips" / "train_val_annotation.zip", train_val_videodatainfo=TRAIN, readme_txt="hello")
    pack(tmp_path / "zips" / "test_videodatainfo.json.zip", test_videodatainfo=TEST)
    save(tmp_path / "files" / "train_val_videodatainfo.json", TRAIN)
    save(tmp_path / "files" / "test_videodatainfo.json", TEST)
    save(tmp_path / "files" / "other.json", [1, 2])
    merged = save(tmp_path / "all" / "videodatainfo_2017.json", MERGED)
    for annotations in (tmp_path / "zips", tmp_path / "files", merged, tmp_path / "all"):
        found = read(annotations)
        assert content(found) == EXPECTED and found.problems == ()
    # the same annotations twice are not twice as many captions
    pack(tmp_path / "all" / "train_val_annotation.zip", train_val_videodatainfo=TRAIN)
    assert content(read(tmp_path / "all")) == EXPECTED
    assert set(content(read(tmp_path / "zips" / "train_val_annotation.zip"))) == {"video0", "video7", "video6600"}


def test_the_official_split_is_used_where_the_file_has_none(tmp_path: Path):
    numbers = {0: "train", 6512: "train", 6513: "val", 7009: "val", 7010: "test", 9999: "test"}
    saved = {"videos": [video(n) for n in numbers], "sentences": sentences(*[(n, "a dog") for n in numbers])}
    del saved["videos"][0]["id"]  # its name says it
    found = read(save(tmp_path / "videodatainfo.json", saved))
    assert {int(m.id[5:]): m.split for m in found.media} == numbers
    saved["videos"][1]["split"] = "test"  # the file is to be trusted
    assert read(save(tmp_path / "videodatainfo.json", saved)).media[1].split == "test"


def test_missing_and_dropped_captions_are_reported(tmp_path: Path):
    saved = {
        "videos": [video(0, "train"), video(1, "train"), video(2, "test"), video(3, "test")],
        "sentences": sentences((0, "a dog"), (0, " . "), (11, "who?"), (12, "x"), (11, "who?")),
    }
    found = read(save(tmp_path / "videodatainfo.json", saved))
    assert [medium.references for medium in found.media] == [("a dog",), (), (), ()]
    assert found.problems == (
        "video0: 1 empty caption(s) dropped",
        "video11: 2 caption(s) of a video that is not listed",
        "video12: 1 caption(s) of a video that is not listed",
        "video1: no caption",
        "split test: none of its 2 media has a caption",
    )


def test_only_media_of_the_chosen_categories_are_read(tmp_path: Path):
    names = "music\t0\npeople\t1\nfood/drink\t16\n"
    annotations = pack(tmp_path / "train_val_annotation.zip", train_val_videodatainfo=MERGED, category_txt=names)
    assert category_names(annotations) == {"music": 0, "people": 1, "food/drink": 16}
    assert set(content(read(annotations, categories=("people",)))) == {"video7", "video7010"}
    assert set(content(read(annotations, categories=("1", "music")))) == set(EXPECTED)
    with pytest.raises(
        ValueError, match=r"data\.categories: no category muzak; the categories are music, people, food/drink"
    ):
        read(annotations, categories=("muzak",))
    (tmp_path / "only").mkdir()
    alone = save(tmp_path / "only" / "videodatainfo.json", MERGED)
    with pytest.raises(ValueError, match=r"category\.txt is not beside the annotations; give their numbers"):
        read(alone, categories=("people",))


def test_clips_are_found_wherever_they_lie(tmp_path: Path):
    annotations = save(tmp_path / "videodatainfo.json", MERGED)
    (tmp_path / "clips" / "TestVideo").mkdir(parents=True)
    write(tmp_path / "clips" / "TestVideo" / "video7010.avi", greys(2))
    paths = {m.id: m.path for m in read(annotations, tmp_path / "clips").media}
    assert paths["video7010"] == str(tmp_path / "clips" / "TestVideo" / "video7010.avi")
    assert paths["video0"] == str(tmp_path / "clips" / "video0.mp4")  # which says there is no such file when it is read
    assert all(medium.start is None for medium in read(annotations).media)  # start and end are YouTube's
    write(tmp_path / "clips" / "video7010.mp4", greys(2))
    with pytest.raises(ValueError, match="two clips are called video7010: "):
        read(annotations, tmp_path / "clips")
    with pytest.raises(ValueError, match=r"data\.media: '.*nowhere' is not a folder"):
        read(annotations, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"images": []}, r"videodatainfo\.json is not in MSR-VTT's format \('videos'\); expected \{videos: "),
        ([1], "is not in MSR-VTT's format"),
        ({"videos": [{"id": 1}], "sentences": []}, r"not in MSR-VTT's format \('video_id'\)"),
        ({"videos": [], "sentences": []}, "no videodatainfo JSON in it"),
        ({"videos": [video(1, "fold")], "sentences": []}, "'fold' is not a split; known are train, "),
        ({"videos": [{"video_id": "clip"}], "sentences": []}, "clip has no field 'split', and no number from which"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, saved: object, message: str):
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "videodatainfo.json", saved))


def test_broken_files_are_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"videos": [')
    with pytest.raises(ValueError, match=r"a\.json is not a JSON file"):
        read(tmp_path / "a.json")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"a\.zip is damaged .*; download it again"):
        read(tmp_path / "a.zip")
    for given in ("", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match=r"data\.annotations: nothing at '.*', expected MSR-VTT's"):
            read_dataset(DataConfig("msrvtt", annotations=given))
    two = save(tmp_path / "x_videodatainfo.json", MERGED).parent
    (tmp_path / "a.zip").unlink()
    save(tmp_path / "y_videodatainfo.json", {"videos": [video(0, "test")], "sentences": []})
    with pytest.raises(ValueError, match="video0 is in split test, but in another file in another split"):
        read(two)


@pytest.mark.data
def test_the_official_files_are_read():
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    found = read(SHARED, SHARED / "clips")
    assert Counter(m.split for m in found.media) == {"train": 6513, "val": 497, "test": 2990}
    assert {len(m.references) for m in found.media} == {20} and found.problems == ()
    assert all(m.split == ("train" if n < 6513 else "val" if n < 7010 else "test")
               for m in found.media for n in [int(m.id[5:])])  # fmt: skip
    assert sum(Path(m.path).is_file() for m in found.media) == 5
    assert len(category_names(SHARED)) == 20
    part = read_dataset(DataConfig("msrvtt", annotations=str(SHARED), splits=str(SHARED / "mini1000")))
    assert Counter(m.split for m in part.media) == {"train": 800, "val": 100, "test": 100} and part.problems == ()
