"""Losses in closed form, by hand, and against a plain loop over tokens."""

from itertools import pairwise
from math import log

import pytest
import torch
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, Batch, Features, Layout
from limner.models.captioner import Captioner
from limner.objectives import CrossEntropy
from limner.objectives.cross_entropy import doubly_stochastic, entropy, smoothed_cross_entropy
from tests.decode.tables import Table
from tests.models.captioners import V, features, model, random_features

__all__ = ["features", "model"]

TOKENS = torch.tensor([[BOS, 4, 5, EOS], [BOS, 6, EOS, PAD], [BOS, EOS, PAD, PAD], [BOS, 7, 8, EOS]])
INF = torch.inf


def batch_of(features: Features, tokens: Tensor = TOKENS) -> Batch:
    return Batch(tuple(f"m{k}" for k in range(len(features))), features, tokens)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_a_uniform_prediction_costs_log_v_whatever_the_smoothing(epsilon: float):
    loss, nll = smoothed_cross_entropy(torch.zeros(3, 7), torch.tensor([0, 3, 6]), epsilon)
    assert loss.item() == pytest.approx(log(7)) and nll.item() == pytest.approx(log(7))


def test_smoothing_by_hand():
    """p = (1/2, 1/4, 1/4) and the target first: .9 log 2 + .1 / 2 (log 4 + log 4) = 1.1 log 2."""
    loss, nll = smoothed_cross_entropy(torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([0]), 0.1)
    assert loss.item() == pytest.approx(1.1 * log(2)) and nll.item() == pytest.approx(log(2))


def test_the_smoothed_loss_is_least_at_the_smoothed_distribution():
    """The target's share is 1 - epsilon and every other word's epsilon / (V - 1), so there the gradient is 0."""
    goal = torch.tensor([[0.04, 0.8, 0.04, 0.04, 0.04, 0.04]])
    logits = goal.log().requires_grad_()
    smoothed_cross_entropy(logits, torch.tensor([1]), 0.2)[0].backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 6), atol=1e-6, rtol=0)


def test_masked_words_get_no_share_of_the_smoothing():
    """Two closed words: the rest is shared among the others as if they were all there is, and nothing is nan."""
    open_ = torch.tensor([[0.3, -1.0, 2.0, 0.1]], requires_grad=True)
    masked = torch.tensor([[-INF, 0.3, -INF, -1.0, 2.0, 0.1]], requires_grad=True)
    a, b = (
        smoothed_cross_entropy(open_, torch.tensor([2]), 0.1),
        smoothed_cross_entropy(masked, torch.tensor([4]), 0.1),
    )
    torch.testing.assert_close(a, b)
    (a[0] + b[0]).backward()
    torch.testing.assert_close(masked.grad[:, [1, 3, 4, 5]], open_.grad)
    assert (masked.grad[:, [0, 2]] == 0).all()


@pytest.mark.parametrize(("steps", "cells"), [(1, 4), (3, 4), (4, 4), (9, 4), (5, 49)])
def test_uniform_attention_costs_one_minus_t_over_p_squared(steps: int, cells: int):
    attention = torch.full((2, steps, cells), 1 / cells)
    penalty = doubly_stochastic(attention, torch.ones(2, cells, dtype=torch.bool))
    assert penalty.item() == pytest.approx((1 - steps / cells) ** 2, abs=1e-6)


def test_doubly_stochastic_by_hand_with_ragged_captions():
    """Medium 0 looks twice, medium 1 once and has one cell: sums (.9, 1.1) and (1) leave (.01 + .01 + 0) / 3."""
    attention = torch.tensor([[[0.7, 0.3], [0.2, 0.8]], [[1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    assert doubly_stochastic(attention, mask).item() == pytest.approx(0.02 / 3)
    assert doubly_stochastic(attention, torch.ones_like(mask)).item() == pytest.approx(1.02 / 4)


def test_entropy_by_hand():
    """Of (1/2, 1/4, 1/4, 0): 1.5 log 2; the gradient of softmax through a forbidden place is finite and right."""
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25] * 4])
    assert entropy(p).tolist() == pytest.approx([1.5 * log(2), 0.0, log(4)])
    masked = torch.tensor([[0.3, -1.0, -INF]], requires_grad=True)
    open_ = torch.tensor([[0.3, -1.0]], requires_grad=True)
    (entropy(masked.softmax(-1)).sum() + entropy(open_.softmax(-1)).sum()).backward()
    torch.testing.assert_close(masked.grad[:, :2], open_.grad)
    assert masked.grad[0, 2] == 0 and open_.grad.abs().min() > 0.01


@pytest.mark.parametrize("weight", [0.5, -0.5])
def test_entropies_are_means_over_the_words(model: Captioner, features: Features, weight: float):
    """Word by word, each over its own distribution; padding, neighbours and forbidden words count for nothing."""
    batch = batch_of(features)
    forced = model.forward_teacher_forced(model.encode(features), TOKENS[:, :-1])
    words, looks = [], []
    for row in range(4):
        for step in range(3):
            if TOKENS[row, step + 1] != PAD:
                p = forced.logits[row, step].softmax(-1)
                words.append(-sum(x * log(x) for x in p.tolist() if x > 0))
                looks.append(-sum(x * log(x) for x in forced.attention[row, step].tolist() if x > 0))
    assert len(words) == 9
    plain = CrossEntropy()(model, batch).value.item()
    for name, values in (("entropy", words), ("attention_entropy", looks)):
        loss = CrossEntropy(**{name: weight})(model, batch)
        assert loss.logs[name] == pytest.approx(sum(values) / 9, rel=1e-4, abs=1e-6)
        assert loss.value.item() == pytest.approx(plain + weight * sum(values) / 9, rel=1e-4)
        model.zero_grad()
        loss.value.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def plain_loop(model: Captioner, batch: Batch, epsilon: float, weight: float) -> float:
    """Every medium alone, every word alone, every cell alone."""
    losses, squares = [], []
    for row, sentence in enumerate(batch.tokens.tolist()):
        words = [token for token in sentence if token != PAD]
        inputs = batch.inputs.map(lambda x, row=row: x[row : row + 1])
        memory = model.encode(inputs)
        state, looked = model.init_state(memory), torch.zeros(inputs.grid.shape[1])
        for word, following in pairwise(words):
            out = model.step(torch.tensor([word]), state, memory)
            state, looked = out.state, looked + out.attention[0]
            logp = [score - out.logits[0].logsumexp(0).item() for score in out.logits[0].tolist()]
            others = [p for i, p in enumerate(logp) if i != following and p > -INF]
            losses.append(-(1 - epsilon) * logp[following] - epsilon * sum(others) / len(others))
        squares += [(1 - looked[n].item()) ** 2 for n in range(len(looked)) if inputs.mask[0, n]]
    return sum(losses) / len(losses) + weight * sum(squares) / len(squares)


@pytest.mark.parametrize(("epsilon", "weight"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.2, 0.5)])
def test_the_loss_equals_a_plain_loop(model: Captioner, features: Features, epsilon: float, weight: float):
    loss = CrossEntropy("xe", epsilon, weight)(model, batch_of(features))
    assert loss.value.item() == pytest.approx(plain_loop(model, batch_of(features), epsilon, weight), rel=1e-5)
    assert loss.logs["xe"] == pytest.approx(plain_loop(model, batch_of(features), 0, 0), rel=1e-5)
    assert ("doubly_stochastic" in loss.logs) == (weight > 0)


def test_several_captions_of_a_medium_cost_what_repeated_media_cost(model: Captioner, features: Features):
    objective = CrossEntropy("xe", 0.1, 1.0)
    few, many = (features.map(lambda x, rows=rows: x[rows]) for rows in ([1, 2], [1, 1, 2, 2]))
    shared, alone = objective(model, batch_of(few)), objective(model, batch_of(many))
    torch.testing.assert_close(shared.value, alone.value)
    assert shared.logs == pytest.approx(alone.logs)


def test_padding_changes_nothing(model: Captioner, features: Features):
    objective = CrossEntropy("xe", 0.1, 1.0)
    longer = torch.cat([TOKENS, torch.full((4, 3), PAD)], 1)
    torch.testing.assert_close(
        objective(model, batch_of(features)).value, objective(model, batch_of(features, longer)).value
    )


def test_every_word_and_eos_weigh_the_same():
    """All words are equally likely among five: 3 + 2 + 1 + 3 words cost log 5 each, however they are spread."""
    scores = torch.zeros(4, 9, 9, 9)
    scores[..., :2] = -INF
    scores[..., 3] = -INF
    scores[..., 8] = -INF
    tokens = TOKENS.clone()
    tokens[3, 2] = 6
    grid = torch.arange(4.0)[:, None, None].expand(-1, 8, 1)
    inputs = Features(grid, torch.ones(4, 8, dtype=torch.bool), Layout(1, 2, 4))
    assert CrossEntropy()(Table(scores), batch_of(inputs, tokens)).value.item() == pytest.approx(log(5))
    scores[3] = torch.where(torch.arange(9) == EOS, 100.0, scores[3])  # medium 3 expects the end at once
    loss = CrossEntropy()(Table(scores), batch_of(inputs, tokens)).value.item()
    assert loss == pytest.approx((6 * log(5) + 100 + 100 + 0) / 9, rel=1e-5)


def test_the_loss_of_a_truncated_caption_has_no_eos_term(model: Captioner):
    """A caption that fills its row to the last column is taught up to there."""
    tokens = torch.tensor([[BOS, 4, 5]])
    loss = CrossEntropy()(model, batch_of(random_features(1), tokens)).value.item()
    logp = model(random_features(1), tokens[:, :-1]).log_softmax(-1)[0]
    assert loss == pytest.approx(-(logp[0, 4] + logp[1, 5]).item() / 2, rel=1e-5) and V > 5
