"""Several data sets as one: which ids they have, which files are refused, and what an epoch draws of each."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.core.types import Medium
from limner.data.batches import TrainingBatches
from limner.data.dataset import Dataset
from limner.data.datasets import DataConfig, data_parts, read_dataset
from limner.data.mixture import draw_share, share_size, unite
from limner.data.pseudo_captions import PseudoCaptionsConfig, read_pseudo_captions
from tests.data.test_batches import VOCABULARY, WORDS, Reader, content


def csv(folder: Path, *rows: str, **fields) -> DataConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "c.csv").write_text("id,file,split,caption\n" + "".join(f"{row}\n" for row in rows))
    for row in rows:
        (folder / row.split(",")[1]).touch()
    return DataConfig("csv", str(folder), str(folder / "c.csv"), **fields)


def test_equal_ids_of_two_data_sets_stay_apart(tmp_path: Path):
    one = csv(tmp_path / "one", "7,a.jpg,train,a dog", "8,b.jpg,val,", label="one")
    two = csv(tmp_path / "two", "7,a.jpg,test,a cat", "9,b.jpg,strange,a cow")
    found = read_dataset((one, two))
    assert [(m.id, m.part, m.own_id, m.split) for m in found.media] == [
        ("one/7", "one", "7", "train"),
        ("one/8", "one", "8", "val"),
        ("csv/7", "csv", "7", "test"),
        ("csv/9", "csv", "9", "strange"),
    ]
    assert found.media[2].path == str(tmp_path / "two" / "a.jpg") and found.media[2].references == ("a cat",)
    assert found.labels == ["one", "csv"] and [m.id for m in found.part("csv").media] == ["csv/7", "csv/9"]
    assert found.problems == ("one/8: 1 empty caption(s) dropped",)
    assert found.notes[0].startswith("csv: the split 'strange' of 1 media is not one of")
    with pytest.raises(ValueError, match="no data set has the label 'three'; the labels are one, csv"):
        found.part("three")


def test_a_data_set_with_a_label_has_it_in_its_ids_and_one_without_has_none(tmp_path: Path):
    """So the features that were stored for several data sets serve one of them alone."""
    rows = ("7,a.jpg,train,a dog",)
    assert [m.id for m in read_dataset(csv(tmp_path, *rows, label="mine")).media] == ["mine/7"]
    assert [m.id for m in read_dataset([csv(tmp_path, *rows)]).media] == ["csv/7"]
    plain = read_dataset(csv(tmp_path, *rows))
    assert [(m.id, m.part) for m in plain.media] == [("7", "")] and plain.labels == [""]
    with pytest.raises(ValueError, match="no data set has the label 'csv'; the labels are none, because the recipe"):
        plain.part("csv")


def test_a_label_belongs_to_one_data_set_and_can_stand_before_ids():
    with pytest.raises(ValueError, match=r"2 data sets have the label 'csv': give each a `label` of its own, as in \{"):
        data_parts([DataConfig("csv"), DataConfig("jsonl"), DataConfig("csv")])
    with pytest.raises(ValueError, match=r"2 data sets have the label 'coco'"):
        data_parts([DataConfig("coco"), DataConfig("csv", label="coco")])
    for label in ("a/b", "..", "a b", "/"):
        with pytest.raises(ValueError, match=f"the label '{label}' of a data set cannot stand before ids: expected"):
            data_parts(DataConfig("csv", label=label))
    assert list(data_parts([DataConfig("csv"), DataConfig("csv", label="Flickr-8k_v1.2")])) == ["csv", "Flickr-8k_v1.2"]


@pytest.mark.parametrize("how", ["the same folder", "another way to the folder", "a link to the folder", "links"])
def test_a_file_in_two_data_sets_is_an_error(tmp_path: Path, how: str):
    one = csv(tmp_path / "one", "7,a.jpg,train,a dog", "8,b.jpg,train,a dog", label="one")
    folder = {"the same folder": "one", "another way to the folder": "two/../one"}.get(how, "two")
    (tmp_path / "two").mkdir()
    if how == "a link to the folder":
        (tmp_path / "two").rmdir()
        os.symlink(tmp_path / "one", tmp_path / "two")
    elif how == "links":
        os.symlink(tmp_path / "one" / "b.jpg", tmp_path / "two" / "x.jpg")
    (tmp_path / "two.csv").write_text("id,file,split,caption\n1,x.jpg,val,a cat\n2,b.jpg,val,a cat\n")
    two = DataConfig("csv", str(tmp_path / folder), str(tmp_path / "two.csv"), label="two")
    with pytest.raises(ValueError, match=r"1 file is in two data sets, for example .*one/b\.jpg, which is 'one/8' and"):
        read_dataset([one, two])


def test_equal_names_of_files_that_do_not_exist_mean_nothing():
    """Of media whose features are stored no file is needed, and two data sets may number them alike."""
    parts = {name: Dataset((Medium("1", "1.jpg", "train"),)) for name in ("a", "b")}
    assert len(unite(parts).media) == 2


def test_data_sets_with_prepared_files_must_have_the_same_words():
    def dataset(name: str, *words: str) -> Dataset:
        return Dataset((Medium("1", f"{name}.jpg", "train"),), words=words)

    assert unite({"a": dataset("a", "dog", "cat"), "b": dataset("b", "dog", "cat")}).words == ("dog", "cat")
    for words in (("cat", "dog"), ()):
        with pytest.raises(ValueError, match="of the data set 'a' fix the vocabulary, and 'b' has another one"):
            unite({"a": dataset("a", "dog", "cat"), "b": dataset("b", *words)})
    with pytest.raises(ValueError, match="of the data set 'b' fix the vocabulary, and 'a' has another one"):
        unite({"a": dataset("a"), "b": dataset("b", "dog")})


@given(st.integers(1, 60), st.floats(0.001, 1), st.integers(0, 5), st.text(max_size=3))
def test_a_share_is_drawn_without_replacement_and_a_cycle_of_epochs_draws_disjoint_ones(count, share, cycle, seed):
    items, size = list(range(count)), max(1, round(share * count))
    assert share_size(count, share) == size
    length = count // size  # epochs of a cycle
    drawn = [draw_share(items, share, cycle * length + k, seed) for k in range(length)]
    assert all(len(part) == size and part == sorted(part) for part in drawn)
    together = [item for part in drawn for item in part]
    assert len(set(together)) == len(together) == size * length
    assert drawn[-1] == draw_share(items, share, cycle * length + length - 1, seed)


def test_cycles_and_seeds_draw_other_shares():
    def drawn(epoch: int, seed: str = "0") -> tuple[int, ...]:
        return tuple(draw_share(range(1000), 0.5, epoch, seed))

    assert len({drawn(0), drawn(1), drawn(2), drawn(3), drawn(0, "1")}) == 5
    assert sorted(drawn(2) + drawn(3)) == list(range(1000))


def media(part: str, count: int) -> list[Medium]:
    """Media with two captions each."""
    return [
        Medium(f"{part}/{k}", "", "train", (f"{WORDS[k % 5]} one", f"{WORDS[k % 5]} two"), part=part)
        for k in range(count)
    ]


class Numbers(Reader):
    def __call__(self, items):
        return super().__call__([(Medium(f"m{medium.own_id}", ""), augmentation) for medium, augmentation in items])


MEDIA = media("a", 6) + media("b", 8)


def make(**options) -> TrainingBatches:
    return TrainingBatches(MEDIA, VOCABULARY, Numbers(), 4, shares={"a": 1.0, "b": 0.25}, **options)


@pytest.mark.parametrize(("captions", "whole"), [(None, {"a": 12, "b": 4}), (1, {"a": 6, "b": 2})])
def test_an_epoch_has_the_share_of_each_data_set(captions: int | None, whole: dict[str, int]):
    """Of 16 pairs of b a quarter are 4, of 8 media 2; four epochs see each of them once."""
    batches = make(captions_per_medium=captions)
    assert batches.examples_per_epoch() == whole and len(batches) == -(-sum(whole.values()) // 4)
    seen: Counter = Counter()
    for epoch in range(4):
        examples = [example for example, _ in batches.order(epoch)]
        assert Counter(example.medium.part for example in examples) == whole
        assert len(list(batches.epoch(epoch))) == len(batches)
        seen.update((e.medium.id, e.captions if captions is None else ()) for e in examples if e.medium.part == "b")
    assert len(seen) == sum(seen.values()) == 4 * whole["b"]


def test_epochs_with_shares_depend_on_seed_and_epoch_only_and_go_on_where_they_stopped():
    whole = [content([batch]) for batch in make(seed=3).epoch(5)]
    other = make(seed=3)
    list(other.epoch(0))
    assert [content([batch]) for batch in other.epoch(5, 2)] == whole[2:]
    assert {id for batch in make(seed=4).epoch(5) for id in batch.ids if id[0] == "b"} != {
        id for rows in whole for id, _ in rows if id[0] == "b"
    }


@pytest.mark.parametrize("captions", [None, 2])
def test_data_sets_without_a_share_are_one_data_set(captions: int | None):
    """The order is that of the same media without labels."""
    plain = TrainingBatches(MEDIA, VOCABULARY, Numbers(), 4, captions_per_medium=captions)
    whole = TrainingBatches(
        MEDIA, VOCABULARY, Numbers(), 4, captions_per_medium=captions, shares=dict.fromkeys("ab", 1)
    )
    assert plain.order(3) == whole.order(3)


def test_pseudo_captions_are_found_by_the_ids_of_a_data_set_where_these_are_unambiguous(tmp_path: Path):
    """5 is in both data sets, 7 in one; a label decides."""
    (tmp_path / "p.jsonl").write_text(
        "".join(f'{{"id": "{id}", "caption": "four"}}\n' for id in ("a/5", "7", "4", "b/4"))
    )
    found = read_pseudo_captions(PseudoCaptionsConfig(str(tmp_path / "p.jsonl")), MEDIA, VOCABULARY, 30)
    assert list(found.captions) == ["a/5", "b/7", "b/4"]
    assert found.problems[0].endswith("1 ids of no medium skipped, for example '4'")
