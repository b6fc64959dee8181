"""Details of caption files: ids that pandas wrote, repeated columns, long fields, encodings, files in two splits."""

import gzip
import json
from pathlib import Path

import pytest

import limner
from limner.data.captions_file import read_captions
from limner.data.dataset import Dataset
from limner.data.datasets import DataConfig, read_dataset


def data_set(path: Path, media: Path | str = "") -> Dataset:
    return read_dataset(DataConfig("captions", str(media), str(path)))


@pytest.mark.parametrize(
    "text",
    [
        "image_id,caption,split\n7.0,a dog,train\n8.0,a cat,val\n8.0,the cat,\n",
        json.dumps(
            [
                {"image_id": 7.0, "caption": "a dog", "split": "train"},
                {"image_id": 8.0, "caption": ["a cat", "the cat"], "split": "val"},
            ]
        ),
    ],
    ids=["csv", "json"],
)
def test_integers_that_pandas_wrote_as_decimal_numbers_are_integers(text: str, tmp_path: Path):
    (tmp_path / "c").write_text(text)
    file = read_captions(tmp_path / "c")
    assert file.captions == {"7": ("a dog",), "8": ("a cat", "the cat")} and file.splits == {"7": "train", "8": "val"}
    assert len(file.notes) == text.startswith("image_id") == ("(7.0)" in "".join(file.notes))


def test_ids_with_a_point_stay_beside_other_ids(tmp_path: Path):
    (tmp_path / "c.csv").write_text("id,caption\n1.0,a dog\nv1.5,a cat\n")
    assert list(read_captions(tmp_path / "c.csv").captions) == ["1.0", "v1.5"]


def test_columns_of_one_name_are_all_read(tmp_path: Path):
    (tmp_path / "c.csv").write_text("file,caption,caption\na.jpg,a dog,the dog\nb.jpg,a cat,\n")
    assert read_captions(tmp_path / "c.csv").captions == {"a.jpg": ("a dog", "the dog"), "b.jpg": ("a cat",)}


def test_long_fields_are_read(tmp_path: Path):
    text = "dog " * 50_000
    (tmp_path / "c.csv").write_text(f'file,caption,base64\na.jpg,"{text}",{"A" * 300_000}\n')
    assert read_captions(tmp_path / "c.csv").captions == {"a.jpg": (text,)}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_encodings_with_a_byte_order_mark(encoding: str, tmp_path: Path):
    (tmp_path / "c.csv").write_text("file,caption\na.jpg,un café\n", encoding=encoding)
    assert read_captions(tmp_path / "c.csv").captions == {"a.jpg": ("un café",)}


@pytest.mark.parametrize("data", [b"", b"\n\n \n", b"\xef\xbb\xbf", b"\xff\xfe", gzip.compress(b"")])
def test_empty_files_are_named_as_such(data: bytes, tmp_path: Path):
    (tmp_path / "c.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"c\.json: the file is empty$"):
        read_captions(tmp_path / "c.json")


@pytest.mark.parametrize("again", ["pic.jpg", "./pic.jpg", "pic", "sub\\\\pic.jpg"])
def test_a_file_in_two_splits_under_two_ids_is_noted(again: str, tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "pic.jpg").touch()
    again = again.replace("\\\\", "\\")
    (tmp_path / "c.csv").write_text(f"id,file,caption,split\n1,pic.jpg,a dog,train\n2,{again},a cat,test\n")
    (note,) = data_set(tmp_path / "c.csv", tmp_path / "m").notes
    assert note.startswith("1 file is in two splits under different ids: ")
    assert "pic.jpg is '1' in train and '2' in test" in note
    (tmp_path / "c.csv").write_text(f"id,file,caption,split\n1,pic.jpg,a dog,train\n2,{again},a cat,train\n")
    assert data_set(tmp_path / "c.csv", tmp_path / "m").notes == ()


def test_a_data_set_without_a_split_names_the_ways_to_make_one(tmp_path: Path):
    (tmp_path / "c.csv").write_text("file,caption,split\na.jpg,a dog,train\n")
    with pytest.raises(
        ValueError, match=r"no media in split 'val'; the dataset has \{'train': 1\}; a column `split`, "
    ):
        data_set(tmp_path / "c.csv").split("val")


def test_score_reads_a_column_by_its_name(tmp_path: Path):
    rows = [{"videoID": "v", "enCap": ["a dog"], "chCap": ["一只狗"]}]
    (tmp_path / "vatex.json").write_text(json.dumps(rows))
    scores = [
        limner.score({"v": "一只狗"}, tmp_path / "vatex.json", metrics=["BLEU-1"], tokenizer="characters", **more)
        for more in ({}, {"caption_column": "chCap"})
    ]
    assert [round(report.scores["BLEU-1"], 3) for report in scores] == [0.0, 1.0]
    with pytest.raises(ValueError, match="caption_column is of a file"):
        limner.score({"v": "a"}, {"v": ["a"]}, caption_column="chCap")


def test_empty_references_are_noted(tmp_path: Path):
    (tmp_path / "r.csv").write_text("id,caption\n1,a dog\n1,\n2,a cat\n")
    notes = limner.score({"1": "a dog", "2": "a cat"}, tmp_path / "r.csv", metrics=["BLEU-1"]).notes
    assert any(note.startswith("1 reference captions are empty") for note in notes)
