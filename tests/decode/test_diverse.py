"""Diverse beam search against a twin in plain Python, and where it must be a beam."""

from collections import Counter

import pytest
import torch

from limner.core.types import BOS, EOS, Captions, Features
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.captioner import Captioner
from tests.decode.tables import Table, allowed, media, said, tables
from tests.decode.test_search import FREE, STRICT, forced
from tests.models.captioners import features, model, pick, random_features

__all__ = ["features", "model"]

Ended = dict[tuple[int, ...], float]


def slow(world: Table, medium: int, size: int, groups: int, strength: float, rules: Rules) -> list[Ended]:
    """What every group has ended with: lists, one medium, one group after the other at every step."""
    K = size // groups
    live: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(groups)]
    ended: list[Ended] = [{} for _ in range(groups)]
    for _ in range(rules.max_length):
        chosen: Counter[int] = Counter()
        for g in range(groups):
            longer = []
            for words, total in live[g]:
                last, before = ([*words[::-1], BOS, BOS])[:2]
                logp = world.tables[medium, before, last].double().log_softmax(-1).tolist()
                for word, p in enumerate(logp):
                    if p > float("-inf") and allowed((*words, word), rules):
                        longer.append((total + p - strength * chosen[word], (*words, word), total + p))
            best = sorted(longer, reverse=True)[: K - len(ended[g])]
            chosen.update(words[-1] for _, words, _ in best)
            ended[g] |= {words: total for _, words, total in best if words[-1] == EOS}
            live[g] = [(words, total) for _, words, total in best if words[-1] != EOS]
    return ended


@pytest.mark.parametrize(("size", "groups"), [(2, 2), (6, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("strength", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("rules", [FREE, STRICT])
def test_diverse_beams_equal_the_slow_twin(size: int, groups: int, strength: float, rules: Rules):
    world = tables(10, 4, seed=size + groups, end=1.0)
    options = Beam(size, 0.0, rules, n_best=size, groups=groups, diversity=strength)
    found = beam(world, media(*range(10)), options)
    for medium in range(10):
        expected: Ended = {}
        for group in slow(world, medium, size, groups, strength, rules):
            expected |= group
        rows = range(size * medium, size * medium + size)
        mine = {said(found)[row]: found.logprob[row].item() for row in rows if EOS in said(found)[row]}
        assert mine == pytest.approx(expected, abs=1e-4)
        assert list(mine.values()) == sorted(mine.values(), reverse=True)
        assert all(words in mine for words in said(found)[rows[0] : rows[0] + len(mine)])  # unfinished ones come last


def test_without_a_penalty_all_groups_are_the_same_beam():
    """Then doubles are dropped, and what is left is one beam of a group's size."""
    world = tables(8, 4, seed=5, end=0.5)
    split = beam(world, media(*range(8)), Beam(6, rules=STRICT, n_best=3, groups=2, diversity=0.0))
    plain = beam(world, media(*range(8)), Beam(3, rules=STRICT, n_best=3))
    rows = [row for row in range(24) if EOS in plain.tokens[row]]  # unfinished ones fill places in a plain beam only
    assert [said(split)[row] for row in rows] == [said(plain)[row] for row in rows] and len(rows) > 16


def test_with_a_large_penalty_all_first_words_differ():
    """Four groups of one, and a strength beyond all differences: the four likeliest first words, one each."""
    world, rules = tables(5, 6, seed=6, end=-2.0), Rules(1, 6)
    found = beam(world, media(*range(5)), Beam(4, rules=rules, n_best=4, groups=4, diversity=100.0))
    for medium in range(5):
        ranked = world.tables[medium, BOS, BOS].argsort(descending=True).tolist()
        likeliest = [word for word in ranked if allowed((word,), rules)][:4]
        assert sorted(words[0] for words in said(found)[4 * medium : 4 * medium + 4]) == sorted(likeliest)


def test_every_model_can_be_searched(model: Captioner, features: Features):
    options = Beam(4, n_best=4, groups=2, diversity=1.0)
    found = beam(model, features, options)
    some = found.logprob.isfinite()
    repeated = features.map(lambda x: x.repeat_interleave(4, 0))
    torch.testing.assert_close(found.logprob[some], forced(model, repeated, found)[some], rtol=1e-4, atol=1e-4)
    alone = beam(model, pick(features, [2]), options)
    assert said(alone) == said(found)[8:12]


def test_scores_that_are_not_numbers_are_an_error():
    world = tables(3, 2)
    with torch.no_grad():
        world.tables[1] = torch.nan
    for options in (Beam(4, groups=2), Beam(2, must=(4,))):
        with pytest.raises(FloatingPointError, match=r"media \[1\] of the batch are nan or all -inf"):
            beam(world, media(0, 1, 2), options)


def test_attention_follows_its_caption():
    found: Captions = beam(tables(3, 4, end=0.5), media(0, 1, 2), Beam(4, rules=STRICT, n_best=2, groups=2))
    for row, words in enumerate(said(found)):
        assert found.attention[row, : len(words)].argmax(-1).tolist() == list(range(len(words)))
        assert (found.attention[row, len(words) :] == 0).all()


def test_batch_size_changes_nothing():
    from tests.models.captioners import small

    captioner, many = small("show_attend_tell"), random_features(7, seed=3)
    options = Beam(6, n_best=3, groups=3)
    whole = said(beam(captioner, many, options))
    for i in range(7):
        assert said(beam(captioner, pick(many, [i]), options)) == whole[3 * i : 3 * i + 3]
