"""The NumPy beam search finds what PyTorch's finds, on captioners that are tables and on real ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limner.core.types import BOS, EOS, Captions, Features, Layout
from limner.decode.logits import apply_rules
from limner.decode.options import Beam, Sample
from limner.decode.rules import Rules
from limner.decode.search import beam as torch_beam
from limner.decode.single_beam import StepOutput, beam, log_softmax, mask_forbidden, top_k
from limner.inference.onnx.pipeline import require_supported
from limner.models.captioner import Captioner, map_tensors
from tests.decode.tables import chain, tables
from tests.models.captioners import random_features, small


def leaves(tree: object) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_tensors(lambda x: found.append(x) or x, tree)
    return found


def take_rows(state: Any, media: np.ndarray, rows: np.ndarray) -> Any:
    memory, hidden = state
    return map_tensors(lambda x: x[torch.from_numpy(media)], memory), [x[media[:, None], rows] for x in hidden]


def engine_beam(
    model: Captioner, features: Features, options: Beam, together: bool = False
) -> list[list[tuple[list[int], float, np.ndarray]]]:
    """The NumPy search on PyTorch's own steps, medium by medium or `together`."""
    if not together:
        alone = [features.map(lambda x, i=i: x[i : i + 1]) for i in range(len(features))]
        return [engine_beam(model, one, options, True)[0] for one in alone]
    with torch.no_grad():
        memory = model.encode(features)
        start = model.init_state(memory)

    def step(token: np.ndarray, state: Any) -> StepOutput:
        memory, hidden = state
        tensors = iter([torch.from_numpy(x).flatten(0, 1) for x in hidden])
        with torch.no_grad():
            out = model.step(torch.from_numpy(token).flatten(), map_tensors(lambda _: next(tensors), start), memory)
        rows = [x.unflatten(0, token.shape).numpy() for x in (out.logits, out.attention, *leaves(out.state))]
        return log_softmax(rows[0]), rows[1], (memory, rows[2:])

    first = [x.numpy()[:, None] for x in leaves(start)]
    found = beam(step, (memory, first), options, take_rows, len(features))
    return [[(it.tokens.tolist(), it.logprob, it.attention) for it in captions] for captions in found]


def same(theirs: Captions, ours: list[list[tuple[list[int], float, np.ndarray]]], n_best: int) -> None:
    for i, mine in enumerate(ours):
        rows = [k for k in range(i * n_best, (i + 1) * n_best) if torch.isfinite(theirs.logprob[k])]
        assert len(mine) == len(rows)
        for k, (tokens, logprob, attention) in zip(rows, mine, strict=True):
            length = len(tokens)
            assert logprob == pytest.approx(theirs.logprob[k].item(), abs=1e-4)
            if theirs.tokens[k, :length].tolist() != tokens:  # the same steps in another order: as likely
                assert logprob == pytest.approx(theirs.logprob[k].item(), abs=1e-5)
                continue
            assert not theirs.tokens[k, length:].any()
            np.testing.assert_allclose(attention, theirs.attention[k, :length].numpy(), atol=1e-5)


def of_tables(media: int) -> Features:
    grid = torch.arange(media, dtype=torch.float32).view(media, 1, 1)
    return Features(grid, torch.ones(media, 1, dtype=torch.bool), Layout(1, 1, 1))


searches = st.builds(
    lambda size, n_best, penalty, normalise, kind, rules: (
        Beam(size, rules=rules, finished_compete=True)
        if kind == "finished_compete"
        else Beam(
            size,
            penalty,
            rules,
            n_best=min(n_best, size),
            normalise=normalise,
            keep_beam_full=kind == "keep_beam_full",
            drop_hopeless=kind != "hopeless_stay",
        )
    ),
    size=st.integers(1, 5),
    n_best=st.integers(1, 5),
    penalty=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    normalise=st.sampled_from(["power", "wu", "avg"]),
    kind=st.sampled_from(["ours", "finished_compete", "keep_beam_full", "hopeless_stay"]),
    rules=st.builds(
        Rules,
        min_length=st.integers(0, 3),
        max_length=st.integers(4, 9),
        no_repeat_word=st.booleans(),
        allow_unknown=st.booleans(),
        no_repeat_trigram=st.booleans(),
        bad_endings=st.sampled_from([(), (4,), (4, 5)]),
        never=st.sampled_from([(), (5,), (4, 6)]),
    ),
)


@given(options=searches, seed=st.integers(0, 500), words=st.integers(1, 6), end=st.floats(-3, 3))
def test_tables_are_searched_as_in_pytorch(options: Beam, seed: int, words: int, end: float):
    model, features = tables(3, max(words, 3), seed, end), of_tables(3)
    for together in (False, True):
        same(torch_beam(model, features, options), engine_beam(model, features, options, together), options.n_best)


@pytest.mark.parametrize("case", ["show_attend_tell", "first_token", "sa_lstm", "spatial_transformer", "up_down"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_captioners_are_searched_as_in_pytorch(case: str, size: int):
    model, features = small(case, seed=size), random_features(6, ragged=False)
    options = Beam(size, 0.5, Rules(min_length=2, max_length=8), normalise="wu")
    for together in (False, True):
        same(torch_beam(model, features, options), engine_beam(model, features, options, together), 1)


def test_a_beam_by_hand():
    """BOS -> 4 (.6) or 5 (.4); after 4 the end has .3, after 5 it has .9: greedy takes 4, and .36 = .4 * .9 wins."""
    after_five = {EOS: 0.9, 6: 0.1}
    arrows = {(BOS, BOS): {4: 0.6, 5: 0.4}, (BOS, 4): {EOS: 0.3, 6: 0.7}, (4, 6): {4: 0.5, 5: 0.5}}
    model = chain(7, {**arrows, (BOS, 5): after_five})
    features, rules = of_tables(1), Rules(max_length=3)
    (((tokens, logprob, _),),) = engine_beam(model, features, Beam(2, rules=rules))
    assert tokens == [5, EOS] and np.exp(logprob) == pytest.approx(0.36)
    (((tokens, logprob, _),),) = engine_beam(model, features, Beam(1, rules=rules))
    assert tokens[:2] == [4, 6] and np.exp(logprob) == pytest.approx(0.21)


@given(
    st.builds(
        Rules,
        min_length=st.integers(0, 4),
        max_length=st.just(9),
        no_repeat_word=st.booleans(),
        allow_unknown=st.booleans(),
        no_repeat_trigram=st.booleans(),
        bad_endings=st.sampled_from([(), (4,), (4, 5)]),
        never=st.sampled_from([(), (5,), (2, 4, 5, 6)]),
    ),
    st.lists(st.lists(st.integers(2, 6), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_rules_forbid_the_same_words_as_in_pytorch(rules: Rules, said: list[list[int]], length: int):
    tokens = np.array(said)[:, :length]
    scores = np.random.default_rng(length).normal(size=(len(tokens), 7)).astype(np.float32)
    expected = apply_rules(rules, torch.from_numpy(scores), torch.from_numpy(tokens.copy()))
    np.testing.assert_array_equal(mask_forbidden(rules, scores, tokens), expected.numpy())


def test_the_largest_come_in_order():
    scores = np.array([1, 3, -np.inf, 3, 2], np.float32)
    assert top_k(scores, 3).tolist() == [1, 3, 4]  # of equal ones the first
    assert top_k(scores, 5).tolist() == [1, 3, 4, 0, 2]


def test_log_softmax_by_hand():
    logp = log_softmax(np.array([[0, np.log(3), -np.inf]], np.float32))
    np.testing.assert_allclose(np.exp(logp), [[0.25, 0.75, 0]], atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_scores_that_are_not_numbers_are_an_error(bad: float):
    def step(token: np.ndarray, state: Any) -> StepOutput:
        return np.full((*token.shape, 6), bad, np.float32), np.ones((*token.shape, 1), np.float32), state

    with pytest.raises(FloatingPointError, match="nan or all -inf"):
        beam(step, None, Beam(2), take_rows)


def test_other_searches_are_refused():
    assert require_supported(Beam(3)) == Beam(3)
    with pytest.raises(ValueError, match="needs the PyTorch engine"):
        require_supported(Sample())
    for options in (Beam(4, groups=2), replace(Beam(4), must=(5,))):
        with pytest.raises(ValueError, match="no diverse and no constrained beams"):
            require_supported(options)
