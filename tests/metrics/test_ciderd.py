import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.core.files import write_text
from limner.core.types import BOS, EOS, PAD
from limner.metrics.cider import cider
from limner.metrics.ciderd import CiderD, DocumentFrequencies
from limner.metrics.ngrams import count_ngrams
from limner.metrics.references import References

Gram = tuple[int, ...]
Images = list[list[list[int]]]

GOLDENS = Path(os.environ.get("LIMNER_SHARED", Path(__file__).parents[3] / "shared")) / "goldens" / "ciderd"


def padded(rows: list[list[int]]) -> np.ndarray:
    tokens = np.full((len(rows), max(map(len, rows), default=0)), PAD)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def count(tokens: list[int]) -> Counter[Gram]:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1))


def counted(references: Images) -> dict[Gram, int]:
    """{n-gram: number of media whose references contain it}."""
    return dict(Counter(gram for sentences in references for gram in set().union(*map(count, sentences))))


def slow(hypothesis: list[int], references: list[list[int]], df: dict[Gram, int], images: int) -> float:
    """A plain version to compare with: one hypothesis, one sum at a time."""

    def vector(tokens: list[int], n: int) -> dict[Gram, float]:
        idf = {gram: math.log(images) - math.log(max(1, df.get(gram, 0))) for gram in count(tokens)}
        return {gram: times * idf[gram] for gram, times in count(tokens).items() if len(gram) == n}

    total = 0.0
    for reference in references:
        for n in (1, 2, 3, 4):
            h, r = vector(hypothesis, n), vector(reference, n)
            norm = math.hypot(*h.values()) * math.hypot(*r.values())
            product = sum(min(weight, r.get(gram, 0)) * r.get(gram, 0) for gram, weight in h.items())
            longer = max(0, len(hypothesis) - 1) - max(0, len(reference) - 1)
            total += product / norm / 4 * math.exp(-(longer**2) / 72) if norm else 0
    return 10 * total / len(references)


def frequencies_of(table: dict[Gram, int], media: int) -> DocumentFrequencies:
    """From n-grams of 1 to 4 ids and their counts, as the published code keeps them."""
    lengths = np.array([len(ngram) for ngram in table])
    tokens = np.array([id for ngram in table for id in ngram])
    index, counts = count_ngrams(tokens, lengths)  # also numbers the parts of the given n-grams
    complete = counts.order == lengths[counts.sentence] - 1
    count = np.zeros(len(index), np.int64)
    count[counts.ngram[complete]] = np.array([*table.values()])[counts.sentence[complete]]
    return DocumentFrequencies(media, index, count)


def test_by_hand():
    # idf: 4 and EOS log(2/2) = 0, all else log 2
    reward = CiderD([[[4, 5, EOS]], [[4, 6, EOS]]])
    found = reward.score(padded([[4, 5, EOS], [4, 5], [4, 5, EOS], [EOS], []]), np.array([0, 0, 1, 1, 0]))
    # cosine 1 for n = 1, 2, 3, and no 4-gram: 10 * 3 / 4
    # without EOS: n = 1 cosine 1; n = 2 of (4 5) with (4 5), (5 EOS); one word shorter
    # of the other image: no n-gram that weighs
    shorter = 10 / 4 * (1 + 1 / math.sqrt(2)) * math.exp(-1 / 72)
    assert found == pytest.approx([7.5, shorter, 0, 0, 0], abs=1e-12)


def test_the_end_is_a_word_and_nothing_counts_after_it():
    reward = CiderD([[[4, 5, EOS]], [[5, 4, EOS]], [[6]]])
    rows = np.array([[4, 5, EOS, PAD, PAD], [4, 5, EOS, 6, 6], [4, 5, PAD, EOS, 6], [4, 5, 6, 6, 6]])
    ended, garbage, cut, long = reward.score(rows, np.array([0, 0, 0, 0]))
    assert ended == garbage == reward.score(rows[:1, :3], np.array([0]))[0]
    assert cut == reward.score(np.array([[4, 5]]), np.array([0]))[0] < ended
    assert long < cut


ids = st.sampled_from([EOS, 4, 5, 6, 7, 8, 70_000])
sentence = st.lists(ids.filter(lambda i: i != EOS), max_size=7).flatmap(lambda s: st.sampled_from([s, [*s, EOS]]))
corpora = st.lists(st.lists(sentence, min_size=1, max_size=4), min_size=1, max_size=5)


@settings(deadline=None)
@given(corpora, corpora, st.booleans(), st.data())
def test_equals_its_slow_twin(references, training, cached, data):
    """Document frequencies of the references themselves, or of others."""
    hypotheses = data.draw(st.lists(sentence, max_size=9))
    image = data.draw(st.lists(st.integers(0, len(references) - 1), min_size=len(hypotheses), max_size=len(hypotheses)))
    source = training if cached else references
    reward = CiderD(references, DocumentFrequencies.from_references(training) if cached else None)
    df = counted(source)
    expected = [slow(h, references[i], df, len(source)) for h, i in zip(hypotheses, image, strict=True)]
    found = reward.score(padded(hypotheses), np.array(image, int))
    assert found.dtype == np.float64
    assert found == pytest.approx(expected, rel=0, abs=1e-9)


def test_samples_and_greedy_captions_may_come_in_any_order():
    references = [[[4, 5, 6, 7, EOS], [4, 4, EOS]], [[5, 6, EOS]], [[7, 8, EOS], [8, EOS], [4, 7, 8, EOS]]]
    rows = padded([[4, 5, EOS], [7, 8, EOS], [5, 6, EOS], [4, 5, 6, EOS], [4, 7, 8], [8, EOS]])
    image = np.array([0, 2, 1, 0, 2, 2])
    reward = CiderD(references)
    together = reward.score(rows, image)
    assert (together > 0).all()
    for order in ([5, 3, 1, 0, 2, 4], [0, 0, 3]):
        assert reward.score(rows[order], image[order]) == pytest.approx(together[order], abs=1e-12)
    for i in range(len(rows)):
        assert reward.score(rows[i : i + 1], image[i : i + 1])[0] == pytest.approx(together[i], abs=1e-12)
    assert reward.score(rows.astype(np.int32), image.astype(np.int32)) == pytest.approx(together, abs=1e-12)
    assert reward.score(rows[:0], image[:0]).shape == (0,)


def test_is_the_metric_of_the_evaluation():
    texts = {"x": ["a b c d", "a b"], "y": ["b c d", "d"], "z": ["c"]}
    captions = {"x": "a b c", "y": "b c d e", "z": ""}
    number = {word: i for i, word in enumerate("abcde", 4)}
    reward = CiderD([[[number[w] for w in text.split()] for text in t] for t in texts.values()])
    rows = padded([[number[w] for w in text.split()] for text in captions.values()])
    known = References(texts, "split")
    expected = cider(known.candidates(captions), known).segments
    assert reward.score(rows, np.arange(3)) == pytest.approx(expected, abs=1e-12) and expected[0] > 0


def test_a_table_of_others_need_not_hold_the_parts_of_its_n_grams():
    table = {(4, 5, 6): 3, (5,): 2, (9, 9): 1}
    frequencies = frequencies_of(table, 7)
    references = [[[4, 5, 6, EOS], [9, 9]]]
    hypotheses = [[4, 5, 6], [9, 9, 5, EOS]]
    expected = [slow(h, references[0], table, 7) for h in hypotheses]
    assert CiderD(references, frequencies).score(padded(hypotheses), np.array([0, 0])) == pytest.approx(
        expected, abs=1e-12
    )


def test_document_frequencies_are_kept_in_a_file(tmp_path):
    references = [[[4, 5, EOS], [4, 5, 5, EOS]], [[5, EOS]], [[EOS]]]
    rows, image = padded([[4, 5, EOS], [5, 5, EOS], [6]]), np.array([0, 1, 2])
    DocumentFrequencies.from_references(references).save(tmp_path / "df.safetensors")
    loaded = DocumentFrequencies.load(tmp_path / "df.safetensors")
    assert loaded.media == 3
    few = references[:1] * 3
    assert (CiderD(references, loaded).score(rows, image) == CiderD(references).score(rows, image)).all()
    assert (CiderD(few, loaded).score(rows, image) != CiderD(few).score(rows, image)).any()


@pytest.mark.parametrize("damage", ["text", "cut", "unsorted", "short"])
def test_a_file_of_something_else_is_refused(tmp_path, damage):
    path = tmp_path / "df.safetensors"
    frequencies = DocumentFrequencies.from_references([[[4, 5, EOS]]])
    if damage == "unsorted":
        frequencies.index.keys[0][:] = frequencies.index.keys[0][::-1].copy()
    if damage == "short":
        frequencies = DocumentFrequencies(1, frequencies.index, frequencies.count[:-1])
    frequencies.save(path)
    if damage == "text":
        write_text(path, "no table")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="does not hold document frequencies"):
        DocumentFrequencies.load(path)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([], "no references"),
        ([[[4]], []], "1 media have no reference, the first is number 1"),
        ([[[BOS, 4, EOS]]], "BOS"),
        ([[[4, PAD]]], "PAD"),
        ([[[4, EOS, 5]]], "has ids after EOS"),
        ([[[-1]]], "-1"),
        ([[[1 << 31]]], "2147483648"),
    ],
)
def test_references_that_are_none(references, message):
    for make in (CiderD, DocumentFrequencies.from_references):
        with pytest.raises(ValueError, match=message):
            make(references)


@pytest.mark.parametrize(("row", "image", "message"), [([4], 2, "0 to 1"), ([4], -1, "0 to 1"), ([BOS, 4], 0, "BOS")])
def test_hypotheses_that_are_none(row, image, message):
    with pytest.raises(ValueError, match=message):
        CiderD([[[4]], [[5]]]).score(np.array([row]), np.array([image]))


@pytest.mark.data
@pytest.mark.parametrize("kind", ["ids", "words"])
def test_equals_the_published_reward(kind):
    """The end token of the golden sentences is encoded as a word, because some sentences have words after it."""
    if not GOLDENS.is_dir():
        pytest.skip(f"no {GOLDENS}")
    given_ = json.loads((GOLDENS / f"cases_{kind}.json").read_text())
    expected = np.load(GOLDENS / f"scores_{kind}.npz")
    number: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        return [number.setdefault(token, len(number) + 4) for token in text.split()]

    references = [[encode(text) for text in case["refs"]] for case in given_["cases"]]
    rows = padded([encode(case["hyp"]) for case in given_["cases"]])
    table = {tuple(encode(gram)): int(times) for gram, times in given_["df"]["document_frequency"].items()}
    cached = frequencies_of(table, int(given_["df"]["ref_len"]))
    for name, frequencies in (("corpus", None), ("cached", cached)):
        found = CiderD(references, frequencies).score(rows, np.arange(len(rows)))
        assert found == pytest.approx(expected[f"{name}_scores"], rel=0, abs=1e-9)
        assert found.mean() == pytest.approx(expected[f"{name}_mean"], rel=0, abs=1e-9)
