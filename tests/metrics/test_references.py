import gc
import random
import weakref
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from limner.metrics import references as module
from limner.metrics.bleu import bleu
from limner.metrics.cider import cider
from limner.metrics.references import References
from limner.metrics.rouge import rouge_l
from limner.text.tokens import TOKENIZERS
from tests.metrics.corpus import corpus

METRICS = (bleu, cider, rouge_l)


def segments(captions: dict[str, str], references: References) -> np.ndarray:
    """(I, metrics) the segment scores of each metric."""
    candidates = references.candidates(captions)
    return np.stack([metric(candidates, references).segments for metric in METRICS], 1)


def test_integer_ids_are_their_digits():
    texts = {7: ["a b", "b"], np.int64(8).item(): ["c"]}
    references = References(texts)
    assert references.ids == ("7", "8")
    assert (
        references.candidates({8: "x", 7: "y"}).texts == references.candidates({"7": "y", "8": "x"}).texts == ("y", "x")
    )
    # the inner function is called, as where types are checked at run time the checker would be first
    assert module._with_string_ids({np.int64(8): 1}) == {"8": 1}


@pytest.mark.parametrize("id", [7.0, float("nan"), None, b"7"])
def test_other_ids_are_refused(id):
    with pytest.raises(ValueError, match="expected a string or an integer"):
        module._with_string_ids({id: ["a"]})


def test_an_id_given_twice_is_refused():
    with pytest.raises(ValueError, match="'7' is given twice"):
        module._with_string_ids({"7": ["a"], 7: ["b"]})


@pytest.mark.parametrize("captions", ["a", [float("nan")], ["a", None], float("nan"), None, {"a"}])
def test_references_that_are_no_list_of_strings_are_refused(captions):
    with pytest.raises(ValueError, match=r"references of 'x' are .*expected a list of strings"):
        module._check_references({"x": captions})


def test_an_empty_list_of_references_is_refused():
    with pytest.raises(ValueError, match=r"no reference caption for 2 media \('y', 'z'\)"):
        References({"x": ["a"], "y": [], "z": []})


@pytest.mark.parametrize("caption", [float("nan"), None, 3])
def test_a_caption_that_is_no_string_is_refused(caption):
    with pytest.raises(ValueError, match=r"caption of 'x' is .*expected one string"):
        References({"x": ["a"]})._check_candidates({"x": caption})


def test_lines_and_lengths():
    references = References({"x": ["a b", ""], "y": ["c"]}, "split")
    assert references.tokenized == (("a b", ""), ("c",))
    assert (references.lengths.tolist(), references.medium_of.tolist()) == ([2, 0, 1], [0, 0, 1])
    candidates = references.candidates({"y": "c d e", "x": " a "})
    assert (candidates.tokenized, candidates.lengths.tolist()) == (("a", "c d e"), [1, 3])


def test_references_are_told_apart_by_identity_and_can_be_forgotten():
    first, second = References({"x": ["a"]}), References({"x": ["a"]})
    kept = WeakKeyDictionary({first: 1, second: 2})
    assert (kept[first], kept[second]) == (1, 2)
    watched = weakref.ref(first)
    del first
    gc.collect()
    assert watched() is None and len(kept) == 1


def test_the_index_is_not_changed_by_what_is_asked():
    captions, texts = corpus(5)
    references = References(texts, "split")
    before = segments(captions, references)
    references.candidates(dict.fromkeys(captions, "quite other words"))
    assert (segments(captions, references) == before).all()
    assert (segments(captions, References(texts, "split")) == before).all()


def test_a_tokenizer_that_loses_a_caption_is_caught(monkeypatch):
    monkeypatch.setattr(module, "get_tokenizer", lambda name: lambda texts: [line for line in texts if line])
    with pytest.raises(AssertionError, match="2 captions became 1"):
        References({"x": ["a", ""]})


HARD = [
    "",
    " ",
    "\r",
    "a\rb",
    "a\u2028b\u2029",
    "a\0b",
    "\0",
    "\ud800",
    "a \udfff b",
    "a\nb",
    "\x0b\x0c\x1c\x85",
    "\u00a0",
]


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_hard_captions_shift_nothing(name):
    """Unusual characters in some captions do not change the scores of the other media."""
    rng = random.Random(0)
    ids = [str(i) for i in range(2 * len(HARD))]
    plain = {id: " ".join(rng.choices("abcdefgh", k=7)) for id in ids}
    texts = {id: [" ".join(rng.choices("abcdefgh", k=7)), plain[id]] for id in ids}
    hard = {id: HARD[i // 2] if i % 2 else plain[id] for i, id in enumerate(ids)}
    found, expected = segments(hard, References(texts, name)), segments(plain, References(texts, name))
    assert (found[::2] == expected[::2]).all() and np.isfinite(found).all()
    assert not (found[1::2] == expected[1::2]).any()

    # the same in references: document frequencies are others then, so BLEU and ROUGE-L only
    spoilt = {id: [*texts[id], HARD[i // 2]] if i % 2 else texts[id] for i, id in enumerate(ids)}
    found = segments(plain, References(spoilt, name))
    assert (found[:, [0, 2]] == expected[:, [0, 2]]).all() and np.isfinite(found).all()


def test_ten_thousand_words():
    long = " ".join(["a", *(f"w{i}" for i in range(9_999))])
    references = References({"x": ["a b c d"], "y": [long]}, "split")
    bleu1 = bleu(references.candidates({"x": long, "y": "a"}), references, 1).segments
    assert bleu1 == pytest.approx([1e-4, 0], abs=1e-9)  # y: one word of 10,000, penalty exp(-9,999)
    rouge = rouge_l(references.candidates({"x": long, "y": long}), references).segments
    # x: P 1/10,000, R 1/4
    assert rouge == pytest.approx([2.44 * 1e-4 / 4 / (1 / 4 + 1.44 * 1e-4), 1], abs=1e-12)
    assert cider(references.candidates({"x": long, "y": long}), references).segments == pytest.approx([0, 10])
