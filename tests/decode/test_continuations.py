"""Alternatives and what follows them, on captioners that are tables: every probability can be looked up."""

from collections.abc import Sequence
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.core.types import BOS, EOS, UNK
from limner.decode.continuations import choice_tree, continue_greedily
from limner.decode.rules import Rules
from limner.decode.search import greedy
from tests.decode.tables import Table, chain, media, tables

FREE = Rules(min_length=0, max_length=5, no_repeat_word=False, allow_unknown=True)


def logprob(model: Table, medium: int, tokens: Sequence[int]) -> float:
    """The log-probability of a sentence about one medium, looked up in the table."""
    total, before, last = 0.0, BOS, BOS
    for token in tokens:
        total += model.tables[medium, before, last].log_softmax(-1)[token].item()
        before, last = last, token
    return total


def test_a_sentence_by_hand() -> None:
    """ "4 end" and, after choosing 5 instead of 4, "5 4 end"."""
    model = chain(6, {(1, 1): {4: 0.6, 5: 0.4}, (1, 4): {EOS: 0.8, 5: 0.2}, (1, 5): {4: 0.9, EOS: 0.1}})
    (said,) = continue_greedily(model, media(0), [[4, EOS]], FREE, count=2)
    assert said.tokens == (4, EOS) and [round(exp(it), 6) for it in said.logprobs] == [0.6, 0.8]
    assert [[(token, round(exp(it), 6)) for token, it in place] for place in said.alternatives] == [
        [(4, 0.6), (5, 0.4)],
        [(EOS, 0.8), (5, 0.2)],
    ]
    assert said.attention.argmax(1).tolist() == [0, 1]
    (other,) = continue_greedily(model, media(0), [[5]], FREE)
    assert other.tokens == (5, 4, EOS) and exp(sum(other.logprobs)) == pytest.approx(0.4 * 0.9)


def test_an_empty_prefix_is_greedy_search() -> None:
    for seed in range(20):
        model, rules = tables(1, 4, seed), Rules(max_length=5)
        (said,) = continue_greedily(model, media(0), [[]], rules)
        expected = greedy(model, media(0), rules)
        assert list(said.tokens) == expected.tokens[0].tolist()
        assert sum(said.logprobs) == pytest.approx(expected.logprob.item(), abs=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 500), frames=st.integers(1, 4), sentence=st.lists(st.integers(4, 6), max_size=4))
def test_probabilities_are_means_over_the_media(seed: int, frames: int, sentence: list[int]) -> None:
    """The probability of a sentence about several media is the mean of those about each."""
    model = tables(frames, 3, seed)
    (said,) = continue_greedily(model, media(*range(frames)), [[*sentence, EOS]], FREE)
    mean = torch.tensor([logprob(model, t, said.tokens) for t in range(frames)]).logsumexp(0).item() - log(frames)
    assert said.tokens == (*sentence, EOS) and sum(said.logprobs) == pytest.approx(mean, abs=1e-4)
    assert said.attention.sum(1) == pytest.approx(1, abs=1e-5)
    assert said.attention.shape == (len(said.tokens), 8 * frames)


def test_a_batch_gives_what_each_prefix_gives_alone() -> None:
    model, rules = tables(2, 5, 1), Rules(max_length=6)
    prefixes = [[], [4], [5, 6], [7, 4, 8, EOS], [UNK]]
    together = continue_greedily(model, media(0, 1), prefixes, rules)
    for prefix, said in zip(prefixes, together, strict=True):
        (alone,) = continue_greedily(model, media(0, 1), [prefix], rules)
        assert said.tokens == alone.tokens and said.tokens[: len(prefix)] == tuple(prefix)
        assert said.logprobs == pytest.approx(alone.logprobs, abs=1e-6)


def test_a_prefix_may_be_longer_than_captions_and_impossible() -> None:
    model = chain(6, {(1, 1): {4: 1.0}, (1, 4): {EOS: 1.0}})
    (said,) = continue_greedily(model, media(0), [[5] * 9], FREE)
    assert said.tokens == (5,) * 9 and said.logprobs[0] == -torch.inf


def test_rules_decide_what_is_offered() -> None:
    (said,) = continue_greedily(tables(1, 4, 2), media(0), [[4, 4, EOS]], Rules(min_length=2, never=(6,)), count=8)
    offered = [{token for token, _ in place} for place in said.alternatives]
    assert all(UNK not in place and 6 not in place for place in offered)
    assert EOS not in offered[0] and EOS not in offered[1] and 4 not in offered[1] and EOS in offered[2]


def test_the_tree_is_all_choices_of_the_sentence_and_then_the_likeliest() -> None:
    model = tables(1, 6, 4)
    rules = Rules(max_length=6)
    sentence = greedy(model, media(0), rules).tokens[0].tolist()
    tree = choice_tree(model, media(0), sentence, rules, count=3, sentences=40)
    assert list(tree[0].said.tokens) == sentence and (tree[0].parent, tree[0].place) == (-1, -1) and len(tree) == 40
    first = [it for it in tree if it.parent == 0]
    wanted = {(p, t) for p, place in enumerate(tree[0].said.alternatives) for t, _ in place if t != sentence[p]}
    assert {(it.place, it.said.tokens[it.place]) for it in first} == wanted
    assert tree[1 : len(first) + 1] == first
    for it in tree[1::3]:
        parent = tree[it.parent].said
        assert it.said.tokens[: it.place] == parent.tokens[: it.place] and it.place > tree[it.parent].place
        chosen = it.said.tokens[it.place]
        assert chosen != parent.tokens[it.place] and chosen in dict(parent.alternatives[it.place])
        assert sum(it.said.logprobs) == pytest.approx(logprob(model, 0, it.said.tokens), abs=1e-4)
        (alone,) = continue_greedily(model, media(0), [it.said.tokens[: it.place + 1]], rules)
        assert alone.tokens == it.said.tokens
    assert len({it.said.tokens[: it.place + 1] for it in tree[1:]}) == 39  # no choice twice


def test_a_small_tree_stops_at_its_size() -> None:
    tree = choice_tree(tables(1, 6, 4), media(0), [4, 5, EOS], FREE, count=5, sentences=3)
    assert len(tree) == 3 and [it.parent for it in tree] == [-1, 0, 0]
