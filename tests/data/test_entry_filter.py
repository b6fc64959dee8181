"""`data.where`: only the entries of a caption file whose fields have wanted values."""

import json
from pathlib import Path
from typing import Any

import pytest

from limner.data.dataset import Dataset
from limner.data.datasets import DataConfig, read_dataset

LICENSES = {"a": 4, "b": 1, "c": 5, "d": 1, "e": None}


def write(path: Path, layout: str) -> Path:
    """Five images with the licences 4, 1, 5, 1 and none, one caption each."""
    fields = {id: {} if number is None else {"license": number} for id, number in LICENSES.items()}
    saved: Any
    if layout == "Karpathy":
        rows = [{"filename": f"{id}.jpg", "split": "train", "sentences": [{"raw": f"A {id}."}]} for id in LICENSES]
        saved = {"images": [row | fields[id] for row, id in zip(rows, LICENSES, strict=True)]}
    elif layout == "COCO annotations":
        images = [{"id": k, "file_name": f"{id}.jpg", **fields[id]} for k, id in enumerate(LICENSES)]
        saved = {"images": images, "annotations": [{"image_id": k, "caption": f"A {id}."}
                                                   for k, id in enumerate(LICENSES)]}  # fmt: skip
    elif layout == "JSONL":
        lines = [json.dumps({"file": f"{id}.jpg", "caption": f"A {id}.", **fields[id]}) for id in LICENSES]
        path.write_text("\n".join(lines))
        return path
    else:
        lines = [f"{id}.jpg,A {id}.,{'' if number is None else number}" for id, number in LICENSES.items()]
        path.write_text("file,caption,license\n" + "\n".join(lines))
        return path
    path.write_text(json.dumps(saved))
    return path


def read(path: Path, where: dict, name: str = "captions") -> Dataset:
    return read_dataset(DataConfig(name, "", str(path), where=where, default_split="train"))


@pytest.mark.parametrize("layout", ["Karpathy", "COCO annotations", "JSONL", "CSV"])
@pytest.mark.parametrize("wanted", [(4, 5), ("4", "5"), (5, 4)])
def test_entries_with_other_values_and_without_the_field_are_left_out_and_counted(tmp_path, layout, wanted):
    path = write(tmp_path / "c.json", layout)
    found = read(path, {"license": wanted})
    assert [medium.references for medium in found.media] == [("A a.",), ("A c.",)]
    note = f"{path}: 3 of 5 images or clips are left out, because their license is not {' or '.join(map(str, wanted))}"
    assert found.notes == (note,) and found.problems == ()
    assert len(read(path, {}).media) == 5 and read(path, {}).notes == ()


def test_a_single_value_and_a_value_that_no_entry_has(tmp_path: Path):
    path = write(tmp_path / "c.json", "Karpathy")
    assert [medium.id for medium in read(path, {"license": 1}).media] == ["b", "d"]
    assert read(path, {"license": (4, 7)}).notes[1] == f"{path}: no license is 7; they are 1 (2), 4 (1), 5 (1)"


def test_all_fields_must_fit_and_one_item_of_a_list_is_enough(tmp_path: Path):
    rows = [
        {"file": "a.jpg", "caption": "A a.", "tags": ["dog", "red"], "free": True},
        {"file": "b.jpg", "caption": "A b.", "tags": ["dog"], "free": False},
        {"file": "c.jpg", "caption": "A c.", "tags": ["cow"], "free": True},
        {"file": "a.jpg", "caption": "The a.", "tags": [], "free": True},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(tmp_path / "c.jsonl", {"tags": "dog", "free": True})
    assert [(m.id, m.references) for m in found.media] == [("a.jpg", ("A a.",))]  # rows are chosen, not files
    assert "2 of 3 images or clips are left out, because their tags is not dog and free is not true" in found.notes[0]


NO_FIELDS = "`where` chooses entries by their fields, and the entries of this layout have none"
ROW = '{"file": "a", "caption": "x", "license": 3}'


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (ROW, {"licence": 3}, "names the field 'licence', which no entry has; they have file, caption, license"),
        (ROW, {"license": (4,)}, r"no entry is as `where` says; license is 3 \(1\)"),
        ('{"a": "a dog"}', {"license": 4}, NO_FIELDS),
        ("a.jpg#0\tA dog.", {"license": 4}, NO_FIELDS),
    ],
)
def test_when_nothing_fits_the_error_says_what_there_is(tmp_path: Path, text: str, where: dict, message: str):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "c.json", where)


def test_other_kinds_of_data_sets_have_no_entries_to_choose():
    with pytest.raises(
        ValueError, match=r"data\.where chooses entries of a caption file: it needs a name of captions, "
    ):
        read_dataset(DataConfig("folder", "x", where={"license": (4,)}))
