"""The prepared files of older systems: their splits, captions and words, and files that do not belong together."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from limner.data.captions_file import read_captions
from limner.data.datasets import DataConfig, read_dataset
from limner.data.media import read_medium
from limner.runs.recipe_file import build_recipe
from limner.training.session import build_vocabulary
from tests.data.prepared import WORDS, pixels, write_cocotalk, write_show_attend_tell


def test_cocotalk_has_the_captions_of_the_label_file(tmp_path: Path):
    folder = write_cocotalk(tmp_path / "c")
    with h5py.File(folder / "cocotalk_label.h5", "w") as file:  # the first image has two captions, the second none
        file["labels"] = np.array([[4, 6, 0], [1, 2, 5]] + [[1, 3, 5]] * 10, np.uint32)
        file["label_length"] = np.array([2, 3] + [3] * 10, np.uint32)
        file["label_start_ix"] = np.array([1, 3, *range(3, 13)], np.uint32)
        file["label_end_ix"] = np.array([2, 2, *range(3, 13)], np.uint32)
    for annotations in (folder, folder / "cocotalk.json"):
        found = read_dataset(DataConfig("cocotalk", "images", str(annotations)))
        assert found.media[0].references == ("red unk", "a blue wall") and found.media[1].references == ()
        assert (found.media[0].id, found.media[0].path, found.media[0].split) == ("100", "images/0.png", "train")
        assert found.words == WORDS


def test_restval_joins_training_or_is_left_out(tmp_path: Path):
    folder = write_cocotalk(tmp_path / "c")
    saved = json.loads((folder / "cocotalk.json").read_text())
    saved["images"][0]["split"] = "restval"
    (folder / "cocotalk.json").write_text(json.dumps(saved))
    config = {"name": "cocotalk", "media": str(folder), "annotations": str(folder)}
    assert [len(read_dataset(DataConfig(**config, restval=value)).split("train")) for value in (True, False)] == [6, 5]


def test_cocotalk_files_that_do_not_belong_together_are_refused(tmp_path: Path):
    folder = write_cocotalk(tmp_path / "c")
    saved = json.loads((folder / "cocotalk.json").read_text())
    read = lambda: read_dataset(DataConfig("cocotalk", "", str(folder)))  # noqa: E731
    for change, message in (
        (
            {"images": saved["images"][1:]},
            r"cocotalk\.json has 11 images and .*cocotalk_label\.h5 captions of 12: they do",
        ),
        ({"ix_to_word": {"1": "a", "2": "b"}}, r"has word 5 and .*cocotalk\.json 2 words: they do not belong"),
        ({"ix_to_word": {"1": "a", "3": "b"}}, r"ix_to_word lacks the number '2' of 2; expected 1, 2"),
        ({"ix_to_word": {"1": "a", "2": "a"}}, r"ix_to_word has the word 'a' twice"),
        (
            {"ix_to_word": None},
            r"cocotalk\.json is not a prepared file of prepro_labels\.py; expected cocotalk\.json with",
        ),
    ):
        (folder / "cocotalk.json").write_text(json.dumps(saved | change))
        with pytest.raises(ValueError, match=message):
            read()
    (folder / "cocotalk_label.h5").write_bytes(b"no HDF5")
    (folder / "cocotalk.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"cocotalk_label\.h5 is not an HDF5 file, or is damaged"):
        read()
    (folder / "cocotalk_label.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 0 pairs NAME\.json, NAME_label\.h5; expected cocotalk\.json"):
        read()


def test_show_attend_tell_has_the_images_and_captions_of_its_files(tmp_path: Path):
    folder = write_show_attend_tell(tmp_path / "s")
    found = read_dataset(DataConfig("show_attend_tell", str(folder)))
    assert [medium.id for medium in found.media[:7]] == [*(f"train-{k}" for k in range(6)), "val-0"]
    assert found.media[1].references == ("a green wall", "a green unk") and found.words == WORDS
    np.testing.assert_array_equal(read_medium(found.media[2])[0], pixels("blue"))
    swapped = read_dataset(DataConfig("show_attend_tell", str(folder), channels="BGR"))
    np.testing.assert_array_equal(read_medium(swapped.media[2])[0], pixels("red"))


def test_show_attend_tell_files_that_do_not_belong_together_are_refused(tmp_path: Path):
    folder = write_show_attend_tell(tmp_path / "s")
    base = "coco_2_cap_per_img_5_min_word_freq"
    (folder / f"VAL_CAPLENS_{base}.json").write_text("[5, 5]")
    message = r"VAL_IMAGES_.* has 3 images with 2 captions each, and 6 captions with 2 lengths stand beside it"
    with pytest.raises(ValueError, match=message):
        read_dataset(DataConfig("show_attend_tell", str(folder)))
    (folder / f"WORDMAP_{base}.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(
        ValueError, match=r"WORDMAP_.* has no <pad>; expected a word map with <pad>, <start>, <end>, <unk>"
    ):
        read_dataset(DataConfig("show_attend_tell", str(folder)))
    (folder / f"WORDMAP_{base}.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 0 files WORDMAP_BASE\.json, expected one"):
        read_dataset(DataConfig("show_attend_tell", str(folder)))


def test_a_run_on_prepared_files_has_exactly_their_words(tmp_path: Path):
    """In their order, whatever min_count is; an unknown word stays one; split lists keep the words."""
    folder = write_show_attend_tell(tmp_path / "s")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("train-0\n")
    for splits in ("", str(tmp_path / "lists")):
        data = {"name": "show_attend_tell", "media": str(folder), "splits": splits}
        recipe = build_recipe({"data": data, "vocabulary": {"min_count": 99}})
        vocabulary = build_vocabulary(recipe, read_dataset(recipe.data))
        assert vocabulary.words[4:] == WORDS and vocabulary.tokenizer == "split"
        assert vocabulary.encode("a red unk") == [1, 4, 7, 3, 2]


def test_prepared_files_are_read_for_scoring_too(tmp_path: Path):
    """The ids, captions and splits of training."""
    for name, folder, path in (
        ("cocotalk", write_cocotalk(tmp_path / "c"), tmp_path / "c" / "cocotalk.json"),
        ("show_attend_tell", write_show_attend_tell(tmp_path / "s"), tmp_path / "s"),
    ):
        trained = read_dataset(DataConfig(name, annotations=str(folder)))
        scored = read_captions(path)
        assert scored.captions == {m.id: m.references for m in trained.media}
        assert scored.splits == {m.id: m.split for m in trained.media}
