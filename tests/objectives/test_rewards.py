"""Rewards of id sequences: against the metrics on words, by hand, and a cache that cannot be stale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from limner.core.types import BOS, EOS, PAD, Medium
from limner.metrics.bleu import bleu
from limner.metrics.ciderd import CiderD
from limner.metrics.references import References
from limner.objectives import rewards
from limner.objectives.rewards import Bleu4, Rewards, cache_key, encode_references
from limner.text.clip_bpe import ClipVocabulary
from limner.text.vocabulary import SPECIALS, Vocabulary

WORDS = Vocabulary(("<pad>", "<bos>", "<eos>", "<unk>", "a", "red", "dog", "runs", "cat"))
MEDIA = (
    Medium("a", "a.jpg", "train", ("a red dog runs", "a dog")),
    Medium("none", "n.jpg", "train"),
    Medium("b", "b.jpg", "train", ("a red cat", "cat runs", "a cat runs")),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    return tmp_path


def padded(rows: list[list[int]]) -> np.ndarray:
    longest = max(map(len, rows))
    return np.array([row + [PAD] * (longest - len(row)) for row in rows])


def test_bleu_is_the_metric_with_eos_as_a_word():
    """300 random hypotheses, several per medium, against `metrics.bleu` on the ids written as words."""
    draw = np.random.default_rng(0)

    def sentence() -> list[int]:
        return [*draw.integers(4, 7, draw.integers(0, 9)).tolist(), EOS]

    references = [[sentence() for _ in range(draw.integers(1, 6))] for _ in range(20)]
    rows, image = [sentence() for _ in range(300)], draw.integers(0, 20, 300)
    rows[0] = rows[0][:-1] or [4]  # one that never ends
    found = Bleu4(CiderD(references)).score(padded(rows), image)

    def text(ids: list[int]) -> str:
        return " ".join(f"w{i}" for i in ids)

    words = References({str(i): [text(r) for r in references[k]] for i, k in enumerate(image)}, "simple")
    expected = bleu(words.candidates({str(i): text(row) for i, row in enumerate(rows)}), words).segments
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert (found > 0.1).sum() > 20 and len(np.unique(found)) > 50


def test_a_perfect_caption_and_a_short_one_by_hand():
    """(a dog EOS) of medium a is its own reference; (a EOS) has precisions 1, 0, -, - and is one word short."""
    score = Rewards({"bleu_4": 2.0}, MEDIA, WORDS).score
    total, parts = score(padded([[4, 5, 6, 7, EOS], [4, EOS]]), ["a"])
    assert parts["bleu_4"] == pytest.approx([1, 0], abs=1e-3) and total == pytest.approx(2 * parts["bleu_4"])


def test_the_sum_is_weighted_and_rows_belong_to_their_media():
    weights = {"cider_d": 0.5, "bleu_4": 3.0}
    total, parts = Rewards(weights, MEDIA, WORDS).score(
        padded([[4, 6, EOS], [8, 7, EOS], [4, 6, EOS], [8, 7, EOS]]), ["a", "b"]
    )
    ids = [[WORDS.encode(text)[1:] for text in medium.references] for medium in MEDIA if medium.references]
    expected = CiderD(ids).score(padded([[4, 6, EOS], [8, 7, EOS]] * 2), np.array([0, 0, 1, 1]))
    assert parts["cider_d"] == pytest.approx(expected, abs=1e-12)
    assert total == pytest.approx(0.5 * expected + 3 * parts["bleu_4"])
    assert parts["cider_d"][0] > parts["cider_d"][1] and parts["cider_d"][3] > parts["cider_d"][2]


def test_encoded_references_are_cached(folder: Path, monkeypatch: pytest.MonkeyPatch):
    captioned = [medium for medium in MEDIA if medium.references]
    ids = encode_references(captioned, WORDS)
    assert ids == [[[4, 5, 6, 7, 2], [4, 6, 2]], [[4, 5, 8, 2], [8, 7, 2], [4, 8, 7, 2]]]
    (kept,) = folder.glob("references-*.safetensors")
    monkeypatch.setattr(Vocabulary, "encode", None)
    assert encode_references(captioned, WORDS) == ids
    monkeypatch.undo()
    monkeypatch.setenv("LIMNER_CACHE", str(folder))
    kept.write_bytes(kept.read_bytes()[:-8])
    assert encode_references(captioned, WORDS) == ids


def test_the_cache_key_changes_with_every_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = cache_key(MEDIA, WORDS)
    assert cache_key(MEDIA, Vocabulary(WORDS.words)) == before
    changed = [
        cache_key((replace(MEDIA[0], references=("a red dog runs", "a dog runs")), *MEDIA[1:]), WORDS),
        cache_key((replace(MEDIA[0], references=MEDIA[0].references[:1]), *MEDIA[1:]), WORDS),
        cache_key((*MEDIA[:2], replace(MEDIA[2], references=MEDIA[2].references[::-1])), WORDS),
        cache_key(MEDIA[::-1], WORDS),
        cache_key(MEDIA, replace(WORDS, words=WORDS.words[:-1])),
        cache_key(MEDIA, replace(WORDS, words=(*WORDS.words[:-2], "cat", "runs"))),
        cache_key(MEDIA, replace(WORDS, tokenizer="ptb")),
    ]
    pieces = ClipVocabulary((*SPECIALS, "a", "b</w>", "ab</w>"))
    joined = replace(pieces, merges=("a b</w>",))
    assert (pieces.encode("ab"), joined.encode("ab")) == ([BOS, 4, 5, EOS], [BOS, 6, EOS])
    changed += [
        cache_key(MEDIA, pieces),
        cache_key(MEDIA, joined),
        cache_key(MEDIA, Vocabulary(pieces.words, pieces.tokenizer)),
    ]
    source = tmp_path / "text"
    source.mkdir()
    (source / "tokens.py").write_text("another tokenizer")
    monkeypatch.setattr(rewards.limner.text, "__path__", [str(source)])
    changed.append(cache_key(MEDIA, WORDS))
    assert len({before, *changed}) == 12


def test_a_cache_that_cannot_be_written_is_reported_and_not_needed(folder: Path, monkeypatch, capsys):
    (folder / "file").write_text("")
    monkeypatch.setenv("LIMNER_CACHE", str(folder / "file"))
    assert encode_references(MEDIA[:1], WORDS) == [[[4, 5, 6, 7, 2], [4, 6, 2]]]
    assert "could not be kept" in capsys.readouterr().err


def test_invalid_rewards_are_refused():
    with pytest.raises(ValueError, match=r"reward \{'spice': 1.0\}: give weights to some of cider_d, bleu_4"):
        Rewards({"spice": 1.0}, MEDIA, WORDS)
    with pytest.raises(ValueError, match="none of 1 training media has a caption"):
        Rewards({"cider_d": 1.0}, MEDIA[1:2], WORDS)
