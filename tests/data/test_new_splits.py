"""`plan_splits`: splits that a data set lacks are the same on every computer, and equal files stay together."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.core.torch_free import Medium
from limner.data.dataset import split_by_hash
from limner.data.new_splits import plan_splits, write_split_lists
from limner.data.split_lists import read_split_lists


def media(**splits: str) -> list[Medium]:
    return [Medium(id, f"{id}.jpg", split, ("a dog",)) for id, split in splits.items()]


def by_hash(count: int) -> list[Medium]:
    return [Medium(f"m{k}", "", split_by_hash(f"m{k}"), ("a dog",)) for k in range(count)]


def ids(found: list[Medium]) -> set[str]:
    return {medium.id for medium in found}


def test_splits_of_the_data_are_kept():
    given_splits = media(a="train", b="val", c="test")
    plan = plan_splits(given_splits, ids(given_splits))
    assert not plan.is_new and plan.splits == {"a": "train", "b": "val", "c": "test"}


def test_hashes_decide_where_there_are_none():
    many = by_hash(1000)
    plan = plan_splits(many, ids(many))
    assert not plan.is_new and plan.splits == {medium.id: medium.split for medium in many}
    assert 50 <= plan.count("val") <= 150 and 50 <= plan.count("test") <= 150


def test_equal_files_come_into_one_split():
    many = by_hash(1000)
    first = next(medium.id for medium in many if medium.split == "train")
    second = next(medium.id for medium in many if medium.split == "test")
    plan = plan_splits(many, ids(many), [(first, second)])
    assert plan.is_new and plan.splits[first] == plan.splits[second]
    assert plan.count("val") in (100, 101) and plan.count("test") in (100, 101)


def test_a_lacking_split_is_a_tenth_of_train():
    """The 30 of train with the smallest hashes of 300; test stays what it is."""
    found = media(**{f"m{k}": "train" for k in range(300)}, x="test")
    plan = plan_splits(found, ids(found))
    assert plan.is_new and plan.count("val") == 30 and plan.count("test") == 1 and plan.splits["x"] == "test"
    again = plan_splits(found[::-1], ids(found))
    assert again.splits == plan.splits


def test_one_split_is_none():
    found = media(**{f"m{k}": "val" for k in range(20)})
    plan = plan_splits(found, ids(found))
    assert [plan.count(split) for split in ("train", "val", "test")] == [16, 2, 2]


def test_only_usable_media_go_into_a_new_split():
    found = media(a="train", b="train", c="train", d="train")
    plan = plan_splits(found, {"b", "c", "d"})
    assert plan.splits["a"] == "train" and plan.count("val") == plan.count("test") == 1


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="2 media with captions can be read; at least 3 are needed"):
        plan_splits(media(a="train", b="train"), {"a", "b"})
    with pytest.raises(ValueError, match="no media that can be used are in split 'train'; the data have"):
        plan_splits(media(a="val", b="val", c="test"), {"a", "b", "c"})


@given(st.integers(3, 60), st.data())
def test_every_split_has_media_and_none_is_lost(count: int, data: st.DataObject):
    names = [f"m{k}" for k in range(count)]
    found = [Medium(name, "", data.draw(st.sampled_from(["train", "x"])), ("a",)) for name in names]
    found = [*found[3:], *(Medium(name, "", "train", ("a",)) for name in names[:3])]
    group = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    plan = plan_splits(found, ids(found), [group] if len(group) == 2 and count > 4 else [])
    assert plan.splits.keys() == ids(found)
    assert all(plan.count(split) for split in ("train", "val", "test"))


@pytest.mark.parametrize("odd", ["b.jpg", " b", "[b", "b\nc"])
def test_lists_are_read_as_they_were_written(odd: str, tmp_path: Path):
    splits = {"a.jpg": "train", odd: "val", "d": "test", "e": "other"}
    write_split_lists(splits, tmp_path / "lists")
    assert read_split_lists(tmp_path / "lists") == {"a.jpg": "train", odd: "val", "d": "test"}
    assert (tmp_path / "lists" / "train.txt").is_file() == (odd == "b.jpg")
    if odd != "b.jpg":
        assert json.loads((tmp_path / "lists" / "val.json").read_text()) == [odd]
