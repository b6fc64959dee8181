"""The recorded steps of a beam search: the tree holds the caption, with its probability, and nothing changes by it."""

from collections import Counter
from dataclasses import replace
from math import exp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.core.types import EOS, PAD
from limner.decode.beam_tree import ROOT, beam_tree, best_leaf, node_of, path_to
from limner.decode.options import Beam
from limner.decode.rules import Rules
from limner.decode.search import beam, traced_beam
from tests.decode.tables import chain, media, tables

FREE = Rules(min_length=0, max_length=4, no_repeat_word=False, allow_unknown=True)


def test_a_search_by_hand() -> None:
    """Words 4 and 5; a beam of 2.  "5 end" (.4 x .9 = .36) beats "4 end" (.6 x .5); "4 4" finds no place."""
    model = chain(6, {(1, 1): {4: 0.6, 5: 0.4}, (1, 4): {EOS: 0.5, 4: 0.5}, (1, 5): {EOS: 0.9, 4: 0.1}})
    captions, steps = traced_beam(model, media(0), Beam(size=2, rules=FREE))
    nodes = beam_tree(steps)
    shown = [(it.parent, it.token, round(exp(it.logprob), 3), it.fate) for it in nodes]
    assert shown[:2] == [(ROOT, 4, 0.6, "kept"), (ROOT, 5, 0.4, "kept")]
    assert shown[2:5] == [(1, EOS, 0.36, "ended"), (0, EOS, 0.3, "ended"), (0, 4, 0.3, "outside")]
    assert captions.tokens.tolist() == [[5, EOS]]
    assert best_leaf(nodes, Beam(size=2)) == node_of(nodes, [5, EOS]) == 2
    assert path_to(nodes, 2) == [1, 2]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    size=st.integers(1, 6),
    words=st.integers(1, 5),
    penalty=st.sampled_from([0.0, 0.7, 1.0]),
    end=st.sampled_from([-3.0, 0.0, 2.0]),
    hopeless=st.booleans(),
)
def test_the_best_leaf_is_the_caption(seed: int, size: int, words: int, penalty: float, end: float, hopeless: bool):
    model = tables(1, words, seed, end)
    options = Beam(size=size, length_penalty=penalty, rules=FREE, drop_hopeless=hopeless)
    expected = beam(model, media(0), options)
    captions, steps = traced_beam(model, media(0), options)
    assert captions.tokens.tolist() == expected.tokens.tolist()
    nodes = beam_tree(steps)
    leaf = best_leaf(nodes, options)
    assert [nodes[i].token for i in path_to(nodes, leaf)] == [t for t in captions.tokens[0].tolist() if t != PAD]
    assert nodes[leaf].logprob == pytest.approx(captions.logprob.item(), abs=1e-5)
    for length, count in Counter(node.length for node in nodes if node.fate != "outside").items():
        assert count <= size, length


@pytest.mark.parametrize(
    "options",
    [
        Beam(size=3, rules=FREE, finished_compete=True),
        Beam(size=3, rules=FREE, keep_beam_full=True),
        Beam(size=3, rules=FREE, n_best=3),
        Beam(size=40, rules=FREE),
    ],
)
def test_captions_of_every_search_are_in_its_tree(options: Beam) -> None:
    for seed in range(10):
        model = tables(1, 3, seed, 1.0)
        captions, steps = traced_beam(model, media(0), options)
        nodes = beam_tree(steps)
        for row, logprob in zip(captions.tokens.tolist(), captions.logprob.tolist(), strict=True):
            if row[0] != PAD:
                place = node_of(nodes, row)
                assert place is not None and nodes[place].logprob == pytest.approx(logprob, abs=1e-5)


def test_children_are_less_likely_than_their_parents() -> None:
    _, steps = traced_beam(tables(1, 4, 3), media(0), Beam(size=4, rules=FREE))
    nodes = beam_tree(steps)
    assert all(it.parent == ROOT or it.logprob <= nodes[it.parent].logprob for it in nodes)
    assert all(it.parent == ROOT or nodes[it.parent].fate == "kept" for it in nodes)


def test_what_is_not_in_the_tree() -> None:
    _, steps = traced_beam(tables(1, 4, 3), media(0), Beam(size=1, rules=FREE))
    assert node_of(beam_tree(steps), [77]) is None and node_of(beam_tree(steps), []) is None


def test_searches_without_a_tree_are_refused() -> None:
    model = tables(2, 4, 3)
    for options, message in [
        (Beam(size=4, groups=2), "the steps of a diverse beam are not recorded"),
        (Beam(size=4, must=(5,)), "the steps of a constrained beam are not recorded"),
    ]:
        with pytest.raises(ValueError, match=message):
            traced_beam(model, media(0), options)
    with pytest.raises(ValueError, match="one medium's search are recorded at a time, got 2 media"):
        traced_beam(model, media(0, 1), Beam())


def test_recording_changes_no_caption() -> None:
    model = tables(1, 5, 9)
    options = Beam(size=4, rules=replace(FREE, max_length=6), n_best=4)
    plain, (traced, _) = beam(model, media(0), options), traced_beam(model, media(0), options)
    assert torch.equal(plain.tokens, traced.tokens) and torch.equal(plain.logprob, traced.logprob)
