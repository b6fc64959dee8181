"""Data sets from caption files: every layout that scoring reads, with files that are found by their names."""

import hashlib
from pathlib import Path

import pytest

from limner.data.caption_dataset import read
from limner.data.dataset import Dataset, split_by_hash
from limner.data.datasets import DataConfig, read_dataset


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {medium.id: medium.references for medium in dataset.media}


def csv(tmp_path: Path, text: str | bytes, **options: str) -> Dataset:
    path = tmp_path / "captions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, "pictures", **options)


def test_quotes_commas_and_newlines_in_captions(tmp_path: Path):
    text = 'file,caption\na.jpg,"A dog, a ""cat""\nand more"\nb.jpg,plain\na.jpg,second\n'
    found = csv(tmp_path, text)
    assert captions(found) == {"a.jpg": ('A dog, a "cat" and more', "second"), "b.jpg": ("plain",)}
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
        ValueError, match=r"the columns \['photo', 'what', 'caption'\]; none of them is a file or id column \(one"
    ):
        csv(tmp_path, text)
    with pytest.raises(ValueError, match="has no column 'pic'; it has photo, what, caption"):
        csv(tmp_path, text, file_column="pic")
    with pytest.raises(ValueError, match=r"none of them is a caption column"):
        csv(tmp_path, "file,label\na.jpg,3\n")
    with pytest.raises(ValueError, match=r"captions.csv: the file is empty"):
        csv(tmp_path, "")


def test_rows_without_file_or_caption_are_reported_by_line(tmp_path: Path):
    found = csv(tmp_path, 'file,caption\na.jpg,"two\nlines"\n,lost\nb.jpg,\nb.jpg,here\nc.jpg,\n')
    assert captions(found) == {"a.jpg": ("two lines",), "b.jpg": ("here",), "c.jpg": ()}
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
    with pytest.raises(ValueError, match=r"line 3: '7' has two files, 'a\.jpg' and 'b\.jpg'"):
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
    return read(tmp_path / "captions.jsonl", "pictures")


def test_jsonl_files_are_read(tmp_path: Path):
    text = '\ufeff{"file": "a.jpg", "caption": "A \\"dog\\""}\n\n'
    text += '{"image": "b.mp4", "captions": ["x", "y"], "split": "test"}\n'
    found = jsonl(tmp_path, text + '{"file": "a.jpg", "caption": "again"}\n{"file": "c.jpg", "caption": null}')
    assert captions(found) == {"a.jpg": ('A "dog"', "again"), "b.mp4": ("x", "y"), "c.jpg": ()}
    assert found.media[1].split == "test" and found.problems == ("c.jpg: 1 empty caption(s) dropped",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "b.jpg", "caption": "cut', r"captions\.jsonl: line 2: not JSON \("),
        ('["b.jpg", "x"]', "line 2: expected an object with an id and a caption"),
        ('{"file": "b.jpg", "label": 3}', r"line 2 has the columns \['file', 'label'\]; none of them is a caption"),
        ('{"file": "b.jpg", "caption": 3}', "line 2: the caption of 'b.jpg' is 3; a caption must be text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str):
    with pytest.raises(ValueError, match=message):
        jsonl(tmp_path, f'{{"file": "a.jpg", "caption": "x"}}\n{line}\n')


def test_column_names_may_be_in_capitals(tmp_path: Path):
    found = csv(tmp_path, "Image, Caption ,SPLIT,Id\na.jpg,x,val,7\n")
    assert [(m.id, m.path, m.split, m.references) for m in found.media] == [("7", "pictures/a.jpg", "val", ("x",))]
    assert captions(csv(tmp_path, "Photo,Text\na.jpg,x\n", file_column="photo")) == {"a.jpg": ("x",)}
    assert captions(csv(tmp_path, "File,file,caption\nno,yes,x\n")) == {"yes": ("x",)}  # the exact one first
    assert captions(jsonl(tmp_path, '{"File": "a.jpg", "Captions": ["x"], "ID": 7}')) == {"7": ("x",)}


def test_an_unclosed_quote_is_reported(tmp_path: Path):
    text = (
        'file,caption\na.jpg,fine\nb.jpg,"open\n' + "c.jpg,fine\n" * 20_000
    )  # beyond the usual limit of 131,072 letters
    with pytest.raises(ValueError, match=r"captions\.csv: line 3: unexpected end of data; is a quote not closed there"):
        csv(tmp_path, text)


@pytest.mark.parametrize("value", ["12", '["a.jpg"]', "true"])
def test_names_and_splits_are_text(tmp_path: Path, value: str):
    with pytest.raises(ValueError, match=r"line 1: (a file name must be|an id must be an integer or) text, got "):
        jsonl(tmp_path, f'{{"file": {value}, "caption": "x"}}')
    with pytest.raises(ValueError, match="line 1: a split must be text, got "):
        jsonl(tmp_path, f'{{"file": "a.jpg", "caption": "x", "split": {value}}}')


def test_files_that_are_not_utf8_are_refused(tmp_path: Path):
    text = "file,caption\na.jpg,Bär\n"
    for data in (text.encode("latin-1"), b"file,caption\n" + b"a.jpg,x\n" * 999 + b"\xff,x\n"):
        with pytest.raises(ValueError, match=r"captions\.csv: not UTF-8 text \(.* line (2|1001)\); save it as UTF-8"):
            csv(tmp_path, data)
    assert captions(csv(tmp_path, text.encode("utf-16"))) == {"a.jpg": ("Bär",)}  # with a byte order mark
    with pytest.raises(ValueError, match="looks like UTF-16 without a byte order mark"):
        csv(tmp_path, text.replace("ä", "a").encode("utf-16-le"))
