"""Captions of others, mixed with human ones: how often, which, and what is left out."""

import json
import random
from collections import Counter
from math import log
from pathlib import Path

import pytest

from limner.core.types import Medium
from limner.data.batches import TrainingBatches
from limner.data.dataset import Dataset
from limner.data.pseudo_captions import PseudoCaptions, PseudoCaptionsConfig, fill_captions, read_pseudo_captions
from limner.text.vocabulary import Vocabulary
from tests.data.test_batches import Reader, content

WORDS = Vocabulary.build(["a red dog runs and a blue cat sits"], 1)
MEDIA = [Medium(f"m{k}", f"pictures/m{k}.jpg", "train", ("a dog", "a cat")) for k in range(4)]
MEDIA.append(Medium("m9", "pictures/m9.jpg", "test", ("a dog",)))


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, share: float = 0.5, max_words: int = 30) -> PseudoCaptions:
    return read_pseudo_captions(PseudoCaptionsConfig(str(path), share), MEDIA, WORDS, max_words)


def test_captions_are_drawn_in_proportion_to_their_probabilities(tmp_path: Path):
    """exp(log 3) to exp(log 1): three of four; without scores one of two."""
    rows = [("m0", "a red dog", log(3) - 700), ("m0", "a blue dog", -700)]  # far from what exp can hold
    rows += [("m1", "a red cat", None), ("m1", "a blue cat", None)]
    path = write(tmp_path / "t.jsonl", *({"id": i, "caption": c} | ({"score": s} if s else {}) for i, c, s in rows))
    found = read(path, 1.0)
    assert found.weights == {"m0": (1.0, pytest.approx(1 / 3)), "m1": (1.0, 1.0)} and not found.problems
    draw = random.Random(0)
    for id, share in (("m0", 0.75), ("m1", 0.5)):
        counts = Counter(found.replacement(id, (1, 2), draw) for _ in range(4000))
        first = tuple(WORDS.encode("a red dog" if id == "m0" else "a red cat"))
        assert counts[first] / 4000 == pytest.approx(share, abs=0.03) and len(counts) == 2


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_of_all_training_captions(tmp_path: Path, share: float):
    """A medium of which nothing is told keeps its own; order, media and augmentations stay what they are without."""
    path = write(tmp_path / "t.jsonl", *({"id": f"m{k}", "caption": "a red dog runs"} for k in range(3)))
    found = read(path, share)
    plain = TrainingBatches(MEDIA[:4], WORDS, Reader(), 3, seed=5, augmentations=("full", "flip"))
    mixed = TrainingBatches(
        MEDIA[:4], WORDS, Reader(), 3, seed=5, augmentations=("full", "flip"), pseudo_captions=found
    )
    theirs = tuple(WORDS.encode("a red dog runs"))
    count = total = 0
    for epoch in range(250):
        before, after = plain.order(epoch), mixed.order(epoch)
        assert [(e.medium, view) for e, view in before] == [(e.medium, view) for e, view in after]
        for (own, _), (new, _) in zip(before, after, strict=True):
            if own.medium.id == "m3":
                assert new == own
            else:
                total, count = total + 1, count + (new.captions == (theirs,))
                assert new.captions in (own.captions, (theirs,))
    assert count / total == pytest.approx(share, abs=0.04 if 0 < share < 1 else 0)


def test_an_interrupted_epoch_goes_on_with_the_same_captions(tmp_path: Path):
    path = write(tmp_path / "t.jsonl", *({"id": f"m{k}", "caption": "a red dog runs"} for k in range(4)))

    def make(captions: int | None) -> TrainingBatches:
        return TrainingBatches(
            MEDIA[:4], WORDS, Reader(), 2, seed=3, captions_per_medium=captions, pseudo_captions=read(path)
        )

    for captions in (None, 3):
        whole = [content([batch]) if captions is None else batch.tokens.tolist() for batch in make(captions).epoch(1)]
        rest = make(captions).epoch(1, 1)
        assert [content([b]) if captions is None else b.tokens.tolist() for b in rest] == whole[1:]
    rows = [row for batch in make(3).epoch(0) for row in batch.tokens.tolist()]
    assert len(rows) == 12 and 0 < sum(len([t for t in row if t]) == 6 for row in rows) < 12


def test_skipped_captions_are_counted_and_named(tmp_path: Path):
    rows = [
        ("m0", "a red dog"),
        ("m0", ""),
        ("m0", "zzz qqq"),
        ("m1", "dog " * 500),
        ("nobody", "a cat"),
        ("m9", "a cat"),
    ]
    found = read(write(tmp_path / "t.jsonl", *({"id": i, "caption": c} for i, c in rows)))
    assert found.captions == {"m0": (tuple(WORDS.encode("a red dog")),)}  # m9 is for testing: left alone
    lines = "\n".join(found.problems)
    assert len(found.problems) == 3
    assert "1 ids of no medium skipped, for example 'nobody'" in lines
    assert "2 captions without a known word skipped, for example 'm0'" in lines
    assert "1 captions of more than 30 words (vocabulary.max_words) skipped, for example 'm1'" in lines


def test_no_usable_caption_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"has no usable caption of the training media; .*1 ids of no medium skipped"):
        read(write(tmp_path / "t.jsonl", {"id": "nobody", "caption": "a cat"}))
    with pytest.raises(
        ValueError, match="has no usable caption of the training media; all its ids are in other splits"
    ):
        read(write(tmp_path / "u.jsonl", {"id": "m9", "caption": "a cat"}))


@pytest.mark.parametrize("score", ["high", float("nan"), True])
def test_scores_that_are_not_numbers_are_refused(tmp_path: Path, score):
    path = write(tmp_path / "t.jsonl", {"id": "m0", "caption": "a cat", "score": score})
    with pytest.raises(ValueError, match=r"the scores of 'm0' are .*expected a number for each of its 1 captions"):
        read(path)


def test_all_captions_of_a_medium_have_scores_or_none(tmp_path: Path):
    path = write(
        tmp_path / "t.jsonl", {"id": "m0", "caption": "a cat", "score": -1.0}, {"id": "m0", "caption": "a dog"}
    )
    with pytest.raises(ValueError, match=r"the scores of 'm0' are \[-1\.0, None\]"):
        read(path)


def test_files_of_limner_caption_are_read(tmp_path: Path):
    """`limner caption`: files and log-probabilities; `limner evaluate`: COCO results, and several captions by id."""
    row = {"file": "elsewhere/m2.jpg", "caption": "a red dog", "logprob": -3.0, "finished": True}
    assert read(write(tmp_path / "c.jsonl", row)).captions.keys() == {"m2"}
    (tmp_path / "captions.json").write_text(json.dumps([{"image_id": "m1", "caption": "a red dog"}]))
    assert read(tmp_path / "captions.json").captions.keys() == {"m1"}
    (tmp_path / "several.json").write_text(json.dumps({"m3": ["a red dog", "a cat"]}))
    assert read(tmp_path / "several.json").weights == {"m3": (1.0, 1.0)}


def test_the_other_n_best_captions_are_used_too(tmp_path: Path):
    """As `limner caption --n-best` writes them; without a score of the best all are as likely."""
    others = [["a blue dog", log(1)], ["a red cat", log(2)]]
    rows = [{"id": "m0", "caption": "a red dog", "logprob": log(4), "others": others}]
    rows.append({"id": "m1", "caption": "a red dog", "others": others})
    found = read(write(tmp_path / "t.jsonl", *rows), 1.0)
    assert found.weights["m0"] == pytest.approx((1, 1 / 4, 1 / 2)) and found.weights["m1"] == (1, 1, 1)
    assert [WORDS.decode(ids) for ids in found.captions["m0"]] == ["a red dog", "a blue dog", "a red cat"]
    for odd in (["a dog"], ["a dog", "-1"], [1, 2.0], "a dog"):
        with pytest.raises(
            ValueError, match=r"'m0' has .* in its field .others.; expected \[caption, log-probability\]"
        ):
            read(write(tmp_path / "odd.jsonl", {"id": "m0", "caption": "a dog", "others": [odd]}))


def test_weights_do_not_depend_on_a_skipped_caption(tmp_path: Path):
    """An empty one of probability 1 beside one of e^-800, which underflows beside it."""
    rows = [{"id": "m0", "caption": "", "score": 0.0}, {"id": "m0", "caption": "a dog", "score": -800.0}]
    rows += [{"id": "m1", "caption": "", "score": 0.0}, {"id": "m2", "caption": "a cat", "score": -1.0}]
    found = read(write(tmp_path / "t.jsonl", *rows), 1.0)
    assert found.weights == {"m0": (1.0,), "m2": (1.0,)} and "2 captions without a known word" in found.problems[0]


def test_an_ambiguous_file_name_is_skipped(tmp_path: Path):
    media = [Medium(id, f"{id}/x.jpg", "train", ("a dog",)) for id in ("a", "b")]
    path = write(tmp_path / "t.jsonl", {"id": "x.jpg", "caption": "a red dog"}, {"id": "a", "caption": "a cat"})
    found = read_pseudo_captions(PseudoCaptionsConfig(str(path)), media, WORDS, 30)
    assert found.captions.keys() == {"a"} and len(found.problems) == 1


def test_media_without_captions_are_filled_in_the_named_splits(tmp_path: Path):
    """Human captions stay; `others` count too; what the file does not have is a problem."""
    media = [*MEDIA[:2], *(Medium(id, f"pictures/{id}.jpg", split) for id, split in
                           (("m5", "train"), ("m6", "val"), ("m7", "test"), ("m8", "train")))]  # fmt: skip
    row = {"id": "m5", "caption": "a red dog", "logprob": -1.0, "others": [["a blue cat", -2.0]]}
    path = write(tmp_path / "t.jsonl", row, *({"id": f"m{k}", "caption": "a blue dog"} for k in (0, 6, 7)))
    before = Dataset(tuple(media), ("m5: no caption", "x.jpg: broken", "split val: none of its 1 media has a caption"))
    filled = fill_captions(before, path, ("train", "val"))
    assert [medium.references for medium in filled.media] == [
        *[("a dog", "a cat")] * 2,
        ("a red dog", "a blue cat"),
        ("a blue dog",),
        (),
        (),
    ]
    assert filled.problems == ("x.jpg: broken", "m8: no caption")
