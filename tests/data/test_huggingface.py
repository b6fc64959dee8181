"""Parquet files and Hugging Face data sets on disk: columns, ids, splits, and damage by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limner.core.torch_free import Medium
from limner.data import arrow_tables
from limner.data.captions_file import read_captions
from limner.data.datasets import DataConfig, read_dataset
from limner.data.huggingface import read
from limner.data.media import MediaError, media_of_archive, read_medium
from tests.data.prepared import encoded, pixels, write_parquet, write_saved_to_disk

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def by_id(media: tuple[Medium, ...]) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {medium.id: (medium.split, medium.references) for medium in media}


@pytest.mark.parametrize("captions", [[["x", "y"], ["z"]], [[{"raw": "x"}, {"raw": "y"}], [{"raw": "z"}]],
                                      ['["x", "y"]', "z"]], ids=["lists", "objects", "JSON"])  # fmt: skip
def test_captions_are_texts_lists_or_objects(tmp_path: Path, captions: list[Any]):
    images = [encoded("red"), encoded("blue")]
    found = read(parquet(tmp_path / "a.parquet", image=images, sentences=captions, image_id=[7, 8]))
    assert [medium.references for medium in found.media] == [("x", "y"), ("z",)]
    assert [medium.id for medium in found.media] == ["7", "8"] and found.problems == ()
    np.testing.assert_array_equal(read_medium(found.media[1])[0], pixels("blue"))


def test_numbered_caption_columns_and_stored_names(tmp_path: Path):
    images = [{"bytes": encoded("red"), "path": "dir/one.png"}, {"bytes": encoded("blue"), "path": "two.png"}]
    columns = {"image": images, "caption_0": ["a", "b"], "caption_1": ["c", None], "split": ["restval", "validation"]}
    found = read(parquet(tmp_path / "a.parquet", **columns))
    assert by_id(found.media) == {"one.png": ("train", ("a", "c")), "two.png": ("val", ("b",))}
    assert found.media[0].path == f"{tmp_path}/a.parquet/0/image.png"


def test_ids_that_begin_anew_in_each_split_and_rows_of_one_image(tmp_path: Path):
    for split in ("train", "test"):
        images = [encoded("red"), encoded("red"), encoded("blue")]
        parquet(tmp_path / f"{split}-00000-of-00001.parquet", image=images, text=["a", "b", "c"], id=[0, 0, 1])
    assert by_id(read(tmp_path).media) == {
        "test/0": ("test", ("a", "b")),
        "test/1": ("test", ("c",)),
        "train/0": ("train", ("a", "b")),
        "train/1": ("train", ("c",)),
    }


def test_without_ids_a_row_is_file_and_number(tmp_path: Path):
    images = [{"bytes": encoded("red"), "path": "image.png"}] * 2  # one name for all rows is no id
    found = read(parquet(tmp_path / "train.parquet", image=images, caption=["a", "b"]))
    assert by_id(found.media) == {"train/0": ("train", ("a",)), "train/1": ("train", ("b",))}


def test_paths_are_joined_with_the_folder_of_the_media(tmp_path: Path):
    file = parquet(tmp_path / "val.parquet", file_name=["x/1.jpg"], caption=["a"])
    found = read_dataset(DataConfig("parquet", "images", str(file)))
    assert found.media == (Medium("val/0", "images/x/1.jpg", "val", ("a",)),)


def test_both_forms_of_a_data_set_on_disk_hold_the_same(tmp_path: Path):
    first, second = read(write_parquet(tmp_path / "p")), read(write_saved_to_disk(tmp_path / "d"))
    order = sorted(first.media, key=lambda m: m.path), sorted(second.media, key=lambda m: m.path)
    assert [(m.split, m.references) for m in order[0]] == [(m.split, m.references) for m in order[1]]
    for one, other in zip(*order, strict=True):
        np.testing.assert_array_equal(read_medium(one), read_medium(other))
    state = tmp_path / "d" / "test" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(
        ValueError, match=r"d/test: its rows are chosen by an index; flatten_indices\(\) and save it again"
    ):
        read(tmp_path / "d")


def test_captions_of_a_data_set_on_disk_are_read_for_scoring_too(tmp_path: Path):
    for folder in (write_parquet(tmp_path / "p"), write_saved_to_disk(tmp_path / "d")):
        trained, scored = read(folder).media, read_captions(folder)
        assert scored.captions == {m.id: m.references for m in trained} and len(scored.captions) > 3
        assert scored.splits == {m.id: m.split for m in trained}


def test_rows_are_read_in_any_order(tmp_path: Path):
    names = ["red", "green", "blue", "red", "blue"]  # three groups of rows
    path = parquet(tmp_path / "a.parquet", image=[encoded(name) for name in names])
    assert media_of_archive(path) == ([f"{path}/{row}/image" for row in range(5)], [])
    for row in (4, 0, 3, 1, 2):
        np.testing.assert_array_equal(read_medium(f"{path}/{row}/image")[0], pixels(names[row]))
    for name in ("5/image", "0/gone", "x/image"):
        with pytest.raises(MediaError, match=r"there is no such row or column; the file has 5 rows, columns image"):
            read_medium(f"{path}/{name}")


def test_groups_of_rows_are_kept_only_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrow_tables, "_kept", {})
    path = parquet(tmp_path / "a.parquet", image=[encoded(name) for name in ("red", "green", "blue", "red", "blue")])
    for row in range(5):
        read_medium(f"{path}/{row}/image")
    assert len(arrow_tables._kept) == 3
    monkeypatch.setattr(arrow_tables, "KEPT_BYTES", 1)
    parquet(path, image=[encoded("blue"), encoded("blue"), encoded("green")])  # a new file of this name
    np.testing.assert_array_equal(read_medium(f"{path}/2/image")[0], pixels("green"))
    np.testing.assert_array_equal(read_medium(f"{path}/0/image")[0], pixels("blue"))
    assert len(arrow_tables._kept) == 1


def test_a_row_without_an_image_is_named(tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", image=[encoded("red"), None])
    with pytest.raises(MediaError, match=r"a\.parquet/1/image: the row holds no bytes of an image or clip, but 'None'"):
        read_medium(f"{path}/1/image")


def test_damaged_files_are_named(tmp_path: Path):
    whole = parquet(tmp_path / "a.parquet", image=[encoded("red")], caption=["a"]).read_bytes()
    # 14 bytes: the magic number at both ends, and a footer that would be longer than the file
    tiny = b"PAR1\x15\x04\x15\x00\xff\xfePAR1"
    for content, message in (
        (tiny, r"b\.parquet is a damaged Parquet file of 14 bytes, its end is missing or wrong: download it again"),
        (whole[:-9], r"b\.parquet is a damaged Parquet file of \d+ bytes, its end is missing or wrong"),
        (b"<html>404</html>", r"b\.parquet is not a Parquet file: it begins with b'<htm', not with b'PAR1'"),
        (whole[:4] + bytes(len(whole) - 12) + whole[-8:], r"b\.parquet is a damaged Parquet file \("),
    ):
        (tmp_path / "b.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_dataset(DataConfig("parquet", str(tmp_path / "b.parquet")))
    (tmp_path / "b.arrow").write_bytes(b"ARROW1 and nothing")
    with pytest.raises(ValueError, match=r"b\.arrow is a damaged Arrow file"):
        read(tmp_path / "b.arrow")


def test_missing_columns_are_named(tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", image=[encoded("red")], words=["a"])
    with pytest.raises(ValueError, match=r"has the columns image, words; none of them is a caption column: give data"):
        read(path)
    assert read(path, caption_column="words").media[0].references == ("a",)
    with pytest.raises(ValueError, match=r"has no column 'gone'; it has image, words"):
        read(path, caption_column="gone")
    with pytest.raises(ValueError, match=r"row 0: a caption must be text, got 7"):
        read(parquet(tmp_path / "b.parquet", image=[encoded("red")], caption=[7]))
    with pytest.raises(FileNotFoundError, match=r"no Parquet or Arrow file at '.*gone'"):
        read(tmp_path / "gone")


def test_without_pyarrow_the_install_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = parquet(tmp_path / "c.parquet", image=[encoded("red")])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        ImportError, match=r"c\.parquet needs pyarrow, which is not installed: pip install 'limner\[parqu"
    ):
        arrow_tables.ArrowTable(path)
