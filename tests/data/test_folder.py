"""The user's own captions: tables and folders, tidy or not."""

import hashlib
import os
from pathlib import Path

import pytest

from limner.data.dataset import Dataset, split_by_hash
from limner.data.datasets import DataConfig, read_dataset
from limner.data.folder import read_csv, read_folder, read_jsonl


def csv(tmp_path: Path, text: str | bytes, **options: str) -> Dataset:
    path = tmp_path / "captions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv(path, "pictures", **options)


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {medium.id: medium.references for medium in dataset.media}


def test_quotes_commas_and_newlines_in_captions(tmp_path: Path):
    text = 'file,caption\na.jpg,"A dog, a ""cat""\nand more"\nb.jpg,plain\na.jpg,second\n'
    found = csv(tmp_path, text)
    assert captions(found) == {"a.jpg": ('A dog, a "cat"\nand more', "second"), "b.jpg": ("plain",)}
    assert [medium.path for medium in found.media] == ["pictures/a.jpg", "pictures/b.jpg"]
    assert found.problems == ()


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_files_of_spreadsheets_are_read(tmp_path: Path, start: bytes, mark: str, end: str):
    lines = ["image", "text"], ["a b.jpg", "Ein Bär"], ["c.jpg", "zwei"]
    found = csv(tmp_path, start + "".join(mark.join(line) + end for line in lines).encode())
    assert captions(found) == {"a b.jpg": ("Ein Bär",), "c.jpg": ("zwei",)}


def test_columns_of_other_names_are_chosen_by_option(tmp_path: Path):
    text = "photo,what,caption\na.jpg,first,wrong\n"
    assert captions(csv(tmp_path, text, file_column="photo", caption_column="what")) == {"a.jpg": ("first",)}
    config = DataConfig("csv", "p", str(tmp_path / "captions.csv"), file_column="photo", caption_column="what")
    assert captions(read_dataset(config)) == {"a.jpg": ("first",)}
    with pytest.raises(
        ValueError, match=r"the columns \['photo', 'what', 'caption'\]; none .* \(one of file, filename,"
    ):
        csv(tmp_path, text)
    with pytest.raises(ValueError, match="has no column 'pic'; it has photo, what, caption"):
        csv(tmp_path, text, file_column="pic")
    with pytest.raises(ValueError, match=r"none of them is a caption column"):
        csv(tmp_path, "file,label\na.jpg,3\n")
    with pytest.raises(ValueError, match=r"the columns \[\]"):
        csv(tmp_path, "")


def test_rows_without_file_or_caption_are_reported_by_line(tmp_path: Path):
    found = csv(tmp_path, 'file,caption\na.jpg,"two\nlines"\n,lost\nb.jpg,\nb.jpg,here\nc.jpg\n')
    assert captions(found) == {"a.jpg": ("two\nlines",), "b.jpg": ("here",), "c.jpg": ()}
    assert found.problems == (
        "line 4: no file name",
        "b.jpg: 1 empty caption(s) dropped",
        "c.jpg: 1 empty caption(s) dropped",
    )


def test_ids_and_splits_in_the_file_take_precedence(tmp_path: Path):
    found = csv(tmp_path, "file,caption,split,id\na.jpg,x,val,7\nb.jpg,y,,8\na.jpg,z,val,7\n")
    assert [(m.id, m.split, m.path) for m in found.media] == [
        ("7", "val", "pictures/a.jpg"),
        ("8", split_by_hash("8"), "pictures/b.jpg"),
    ]
    with pytest.raises(ValueError, match="line 3: '7' has two files or splits"):
        csv(tmp_path, "file,caption,id\na.jpg,x,7\nb.jpg,y,7\n")


def test_hashed_splits_depend_on_the_id_alone(tmp_path: Path):
    """First 8 hex digits of SHA-256 as a share of 2^32: below .8 train, below .9 val, else test."""
    for id in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        share = int(hashlib.sha256(id.encode()).hexdigest()[:8], 16) / 0x100000000
        assert split_by_hash(id) == ("train" if share < 0.8 else "val" if share < 0.9 else "test")
    few = csv(tmp_path, "file,caption\n" + "".join(f"{k}.jpg,x\n" for k in range(20)))
    many = csv(tmp_path, "file,caption\n" + "".join(f"{k}.jpg,x\n" for k in reversed(range(2000))))
    splits = {medium.id: medium.split for medium in many.media}
    assert all(splits[medium.id] == medium.split for medium in few.media)
    counts = {name: list(splits.values()).count(name) for name in ("train", "val", "test")}
    assert abs(counts["train"] - 1600) < 54 and abs(counts["val"] - 200) < 40  # three standard deviations


def jsonl(tmp_path: Path, text: str) -> Dataset:
    (tmp_path / "captions.jsonl").write_text(text, encoding="utf-8")
    return read_jsonl(tmp_path / "captions.jsonl", "pictures")


def test_jsonl_files_are_read(tmp_path: Path):
    text = '\ufeff{"file": "a.jpg", "caption": "A \\"dog\\""}\n\n'
    text += '{"image": "b.mp4", "captions": ["x", "y"], "split": "test"}\n'
    found = jsonl(tmp_path, text + '{"file": "a.jpg", "caption": "again"}\n{"file": "c.jpg", "caption": null}')
    assert captions(found) == {"a.jpg": ('A "dog"', "again"), "b.mp4": ("x", "y"), "c.jpg": ()}
    assert found.media[1].split == "test" and found.problems == ("c.jpg: 1 empty caption(s) dropped",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "b.jpg", "caption": "cut', r"captions\.jsonl, line 2: not JSON \("),
        ('["b.jpg", "x"]', "line 2: expected an object with file and caption"),
        ('{"file": "b.jpg", "label": 3}', r"line 2 has the columns \['file', 'label'\]; none of them is a caption"),
        ('{"file": "b.jpg", "caption": 3}', "line 2: a caption must be text, got 3"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str):
    with pytest.raises(ValueError, match=message):
        jsonl(tmp_path, f'{{"file": "a.jpg", "caption": "x"}}\n{line}\n')


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


def test_column_names_may_be_in_capitals(tmp_path: Path):
    found = csv(tmp_path, "Image, Caption ,SPLIT,Id\na.jpg,x,val,7\n")
    assert [(m.id, m.path, m.split, m.references) for m in found.media] == [("7", "pictures/a.jpg", "val", ("x",))]
    assert captions(csv(tmp_path, "Photo,Text\na.jpg,x\n", file_column="photo")) == {"a.jpg": ("x",)}
    assert captions(csv(tmp_path, "File,file,caption\nno,yes,x\n")) == {"yes": ("x",)}  # the exact one first
    assert captions(jsonl(tmp_path, '{"File": "a.jpg", "Captions": ["x"], "ID": 7}')) == {"7": ("x",)}


def test_an_unclosed_quote_is_reported(tmp_path: Path):
    text = 'file,caption\na.jpg,fine\nb.jpg,"open\n' + "c.jpg,fine\n" * 20_000  # beyond csv's limit of 131,072 letters
    with pytest.raises(ValueError, match=r"captions\.csv, line 3: field larger .*; is a quote not closed there"):
        csv(tmp_path, text)


@pytest.mark.parametrize("value", ["12", '["a.jpg"]', "true"])
def test_names_and_splits_are_text(tmp_path: Path, value: str):
    with pytest.raises(ValueError, match="line 1: a file name must be text, got "):
        jsonl(tmp_path, f'{{"file": {value}, "caption": "x"}}')
    with pytest.raises(ValueError, match="line 1: a split must be text, got "):
        jsonl(tmp_path, f'{{"file": "a.jpg", "caption": "x", "split": {value}}}')


def test_files_that_are_not_utf8_are_refused(tmp_path: Path):
    text = "file,caption\na.jpg,Bär\n"
    for data in (text.encode("latin-1"), text.encode("utf-16"), b"file,caption\n" + b"a.jpg,x\n" * 999 + b"\xff,x\n"):
        with pytest.raises(ValueError, match=r"captions\.csv is not UTF-8 text \(.*\); save it as UTF-8"):
            csv(tmp_path, data)
    (tmp_path / "l.jsonl").write_bytes('{"file": "a.jpg", "caption": "Bär"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"l\.jsonl is not UTF-8 text"):
        read_jsonl(tmp_path / "l.jsonl", "pictures")
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
