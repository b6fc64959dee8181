"""Split lists in place of the dataset's own split."""

import json
from pathlib import Path

import pytest

from limner.core.types import Medium
from limner.data.dataset import Dataset
from limner.data.datasets import DataConfig, read_dataset
from limner.data.split_lists import apply_split_lists, read_split_lists
from limner.data.split_names import parse_split_name


def lists(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_an_id_per_line_or_a_json_array(tmp_path: Path):
    folder = lists(
        tmp_path, train__txt="a\nb \r\n\n", valid__list=json.dumps(["c", 7]), Test__json='["d"]', notes__txt="x"
    )
    assert read_split_lists(folder) == {"a": "train", "b": "train", "c": "val", "7": "val", "d": "test"}


def test_split_lists_decide_the_split_of_every_medium(tmp_path: Path):
    media = tuple(Medium(id, "", "train", ("a dog",)) for id in "abcd")
    dataset = Dataset(media, ("a: note", "d: note", "line 3: no file name"))
    found = apply_split_lists(dataset, {"b": "test", "a": "val", "x": "train"}, "here")
    assert [(m.id, m.split) for m in found.media] == [("a", "val"), ("b", "test")]
    assert found.problems == (
        "a: note",
        "line 3: no file name",
        "x: in the train list of here, but the annotations do not have it",
    )
    with pytest.raises(ValueError, match=r"here: none of its 1 ids \(z, ...\) is in the dataset \(a, b, ...\)"):
        apply_split_lists(dataset, {"z": "val"}, "here")


def test_every_data_set_accepts_split_lists(tmp_path: Path):
    (tmp_path / "c.csv").write_text("file,caption\na.png,a dog\nb.png,a cat\nc.png,a cow\n")
    folder = lists(tmp_path / "lists", train__txt="c.png\n", test__txt="a.png\n")
    config = DataConfig("csv", str(tmp_path), str(tmp_path / "c.csv"), splits=str(folder))
    assert [(m.id, m.split) for m in read_dataset(config).media] == [("a.png", "test"), ("c.png", "train")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, r"holds no split list; expected files train, val, test ending in \.txt"),
        ({"train__txt": "a\n", "training__list": "b\n"}, r"two lists for the split train: .*train\.txt and .*training"),
        ({"train__txt": "a\n", "test__txt": "a\n"}, r"'a' is in two split lists of .*: test and train"),
        ({"train__json": '{"a": 1}'}, r"train\.json: expected a JSON array of ids"),
        ({"train__json": '["a"'}, r"train\.json is not a JSON file"),
    ],
)
def test_invalid_split_lists_are_refused(tmp_path: Path, texts: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        read_split_lists(lists(tmp_path, **texts))
    with pytest.raises(ValueError, match="holds no split list"):
        read_split_lists(tmp_path / "nowhere")


def test_names_of_splits_are_normalised():
    assert [parse_split_name(text) for text in ("train", "Validate", " val ", "test")] == [
        "train",
        "val",
        "val",
        "test",
    ]
    with pytest.raises(ValueError, match="'fold 1' is not a split"):
        parse_split_name("fold 1")


def test_lists_of_flickr8k_are_read_and_match_ids_without_file_types(tmp_path: Path):
    """Flickr_8k.trainImages.txt lists file names; Karpathy's ids have no file type."""
    texts = {"Flickr_8k__trainImages__txt": "a.jpg\n", "Flickr_8k__devImages__txt": "b.jpg\nz.jpg\n"}
    folder = lists(tmp_path, **texts, training__txt__old="c.jpg\n", Flickr8k__token__txt="a.jpg#0\tx\n")
    found = read_split_lists(folder)
    assert found == {"a.jpg": "train", "b.jpg": "val", "z.jpg": "val"}
    dataset = apply_split_lists(Dataset(tuple(Medium(id, "", "", ("x",)) for id in "abc")), found, "here")
    assert [(m.id, m.split) for m in dataset.media] == [("a", "train"), ("b", "val")]
    assert dataset.problems == ("z.jpg: in the val list of here, but the annotations do not have it",)
    two = Dataset((Medium("x/a.jpg", "", ""), Medium("y/a.jpg", "", "")))  # a.jpg may be either
    with pytest.raises(ValueError, match="none of its 1 ids"):
        apply_split_lists(two, {"a.jpg": "train"}, "here")
    plain = lists(tmp_path / "plain", train__txt="a\n", old_train__txt="b\n")  # an exact name comes first
    assert read_split_lists(plain) == {"a": "train"}
