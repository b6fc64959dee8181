"""Karpathy's JSON, in the three shapes it comes in."""

import json
from pathlib import Path

import pytest

from limner.data.dataset import Dataset, split_by_hash
from limner.data.datasets import DataConfig, read_dataset


def read(path: Path, media: str = "") -> Dataset:
    return read_dataset(DataConfig("coco", media, str(path)))


def coco(tmp_path: Path) -> Path:
    def image(number: int, split: str, folder: str, *captions: str) -> dict:
        name = f"COCO_{folder}_{number:012}.jpg"
        sentences = [{"raw": text, "tokens": text.lower().split(), "sentid": 1} for text in captions]
        return {"filepath": folder, "filename": name, "cocoid": number, "split": split, "sentences": sentences}

    images = [
        image(42, "train", "train2014", "A dog.", "The dog runs. "),
        image(73, "restval", "val2014", "A cat."),
        image(8, "val", "val2014", "A bird.", "", " . "),
        image(9, "test", "val2014", "A cow."),
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return path


def test_coco_splits_are_read(tmp_path: Path):
    found = read(coco(tmp_path), "pictures")
    assert [medium.id for medium in found.media] == ["42", "73", "8", "9"]
    assert found.media[0].path == "pictures/train2014/COCO_train2014_000000000042.jpg"
    assert found.media[1].path == "pictures/val2014/COCO_val2014_000000000073.jpg"
    assert found.media[0].references == ("A dog.", "The dog runs. ")  # raw, untouched
    assert found.media[2].references == ("A bird.",)
    assert found.problems == ("8: 2 empty caption(s) dropped",)


@pytest.mark.parametrize(("restval", "train"), [(True, ["42", "73"]), (False, ["42"])])
def test_restval_joins_training_or_is_left_out(tmp_path: Path, restval: bool, train: list[str]):
    config = DataConfig("coco", "pictures", str(coco(tmp_path)), restval=restval)
    found = read_dataset(config)
    assert [medium.id for medium in found.split("train")] == train
    assert [medium.id for medium in found.split("val")] == ["8"]
    assert [medium.id for medium in found.split("test")] == ["9"]
    with pytest.raises(ValueError, match=r"no media in split 'restval'; the dataset has \{'train': "):
        found.split("restval")


def test_flickr_ids_are_file_names_without_their_ending(tmp_path: Path):
    images = [{"filename": "1000_5d.jpg", "split": "train", "imgid": 3, "sentences": [{"raw": "A dog."}]}]
    (tmp_path / "f.json").write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    for name in ("flickr8k", "flickr30k"):
        (medium,) = read_dataset(DataConfig(name, "images", str(tmp_path / "f.json"))).media
        assert (medium.id, medium.path, medium.split) == ("1000_5d", "images/1000_5d.jpg", "train")


def test_an_image_without_captions_stays(tmp_path: Path):
    images = [{"filename": "a.jpg", "split": "test", "sentences": []}]
    (tmp_path / "f.json").write_text(json.dumps({"images": images}))
    found = read(tmp_path / "f.json", "images")
    assert found.media[0].references == () and found.problems == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "there are no captions in it; expected a list of objects"),
        ({"images": {}}, "the value of 'images' is {}, not a caption"),
        ({"annotations": []}, "there are no captions in it"),
        ({"images": [{"split": "val", "sentences": []}]}, r"images\[0\] has .*, but no 'filename'"),
        ({"images": [{"filename": "a", "sentences": [{"text": "x"}]}]}, r"images\[0\] has \['text'\], but no 'raw'"),
        ({"images": [7]}, "images: expected a list of objects"),
    ],
)
def test_another_json_layout_is_refused_by_name(tmp_path: Path, content: object, message: str):
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"other\.json: {message}"):
        read(tmp_path / "other.json", "images")


def test_an_image_without_a_split_is_put_into_one_by_a_hash(tmp_path: Path):
    images = [{"filename": "a.jpg", "sentences": [{"raw": "A dog."}]}, {"filename": "b.jpg", "sentences": []}]
    (tmp_path / "f.json").write_text(json.dumps({"images": images}))
    assert [m.split for m in read(tmp_path / "f.json").media] == [split_by_hash("a"), split_by_hash("b")]


def test_a_file_that_is_not_json_is_refused(tmp_path: Path):
    (tmp_path / "other.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"other\.json: this is a JPEG image, not a caption file"):
        read(tmp_path / "other.json", "images")
