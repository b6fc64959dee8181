"""Scheduled sampling: which words are read, how often, and that everything else stays as it was."""

from dataclasses import replace

import pytest
import torch

from limner.core.types import BOS, EOS, PAD, UNK, Batch, Features
from limner.decode.rules import Rules
from limner.decode.search import greedy
from limner.models.captioner import Captioner, unroll
from limner.objectives import CrossEntropy
from limner.objectives.scheduled_sampling import ScheduledSampling, unroll_with_sampling
from tests.decode.tables import media, tables
from tests.models.captioners import features, model, small

__all__ = ["features", "model"]

TOKENS = torch.tensor([[BOS, 4, 5, EOS], [BOS, 6, 7, 8], [BOS, EOS, PAD, PAD], [BOS, 5, 5, 5]])
PUBLISHED = ScheduledSampling(start_epoch=3, increase_prob=0.05, increase_every=5, max_prob=0.25)


def test_the_probability_rises_as_published():
    """.05 k from 5 k epochs after the start on, up to .25."""
    found = [PUBLISHED.probability(3 + epoch) for epoch in (0, 4, 5, 9, 10, 24, 25, 29, 30, 99)]
    assert found == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.2, 0.25, 0.25, 0.25, 0.25])
    assert [PUBLISHED.probability(epoch) for epoch in (0, 2)] == [0, 0]


def test_a_constant_teacher_forcing_ratio():
    assert [ScheduledSampling(initial_prob=0.3).probability(epoch) for epoch in (0, 1, 50)] == [0.3] * 3
    assert [ScheduledSampling(initial_prob=0.3, start_epoch=2).probability(epoch) for epoch in (0, 1, 2)] == [0, 0, 0.3]
    assert ScheduledSampling().probability(10) == 0


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("captions", [1, 2])
def test_without_replacement_it_equals_teacher_forcing(model: Captioner, features: Features, captions: int):
    """Nothing replaced: every model steps to what it teaches, also when rows share a medium."""
    memory = model.encode(features.map(lambda x: x[: 4 // captions]))
    walked, forced = (
        unroll_with_sampling(model, memory, TOKENS, lambda given, logits: given),
        model.forward_teacher_forced(memory, TOKENS),
    )
    close(walked.logits, forced.logits)
    close(walked.attention, forced.attention)
    if forced.hidden is not None:
        assert walked.hidden is not None
        close(walked.hidden, forced.hidden)


def test_replaced_words_are_the_ones_that_the_model_reads(model: Captioner, features: Features):
    """Every word replaced by 7: as if the captions had said so, each as long as it was."""
    sevens = torch.where(TOKENS > UNK, 7, TOKENS)
    memory = model.encode(features)
    walked = unroll_with_sampling(model, memory, TOKENS, lambda given, logits: torch.full_like(given, 7))
    close(walked.logits, unroll(model, memory, sevens).logits)


def test_always_the_likeliest_is_greedy(model: Captioner, features: Features):
    """Fed its own words, the model is at every step where its greedy caption was."""
    found = greedy(model, features, Rules(min_length=0, max_length=5, no_repeat_word=False, allow_unknown=True)).tokens
    own = torch.cat([torch.full((4, 1), BOS), found.masked_fill(found == PAD, EOS)], 1)
    longest = torch.tensor([[BOS, 4, 4, 4, 4, 4]] * 4)[:, : own.shape[1]]
    sampling = ScheduledSampling(initial_prob=1.0, word="likeliest")
    for coin in ("word", "step"):
        forced = replace(sampling, coin=coin).forward_teacher_forced(model, model.encode(features), longest, epoch=0)
        said = forced.logits.argmax(-1)
        for row in range(4):
            ended = found[row].tolist().index(EOS) + 1 if EOS in found[row] else found.shape[1]
            assert said[row, :ended].tolist() == found[row, :ended].tolist()


def test_draws_follow_the_prediction():
    """A table that says 4, 5 or 6 with 1/2, 3/8 and 1/8 whatever was said; who is read shows in what comes next."""
    model = tables(1, 3)
    with torch.no_grad():
        model.tables.fill_(-torch.inf)
        model.tables[0, :, :, 4:7] = torch.tensor([0.5, 0.375, 0.125]).log()
    seen: list[torch.Tensor] = []
    step = model.step
    model.step = lambda token, state, memory: (seen.append(token), step(token, state, memory))[1]  # type: ignore[method-assign]
    torch.manual_seed(0)
    rows = torch.tensor([[BOS, UNK, UNK]]).repeat(4000, 1)
    inputs = media(*[0] * 4000)
    for first in (1.0, 0.4):
        seen.clear()
        ScheduledSampling(initial_prob=first).forward_teacher_forced(model, model.encode(inputs), rows, 0)
        assert (seen[0] == BOS).all()
        for token in seen[1:]:
            shares = [(token == word).float().mean().item() for word in (UNK, 4, 5, 6)]
            expected = [1 - first, first * 0.5, first * 0.375, first * 0.125]
            assert shares == pytest.approx(expected, abs=0.035)  # 4 standard deviations


def test_one_coin_is_tossed_for_all_rows_or_one_for_each():
    model, inputs = tables(1, 3), media(*[0] * 50)
    with torch.no_grad():
        model.tables.fill_(-torch.inf)
        model.tables[..., 4] = 0.0
    seen: list[torch.Tensor] = []
    step = model.step
    model.step = lambda token, state, memory: (seen.append(token), step(token, state, memory))[1]  # type: ignore[method-assign]
    rows = torch.full((50, 40), UNK)
    rows[:, 0] = BOS
    torch.manual_seed(0)
    ScheduledSampling(initial_prob=0.5, word="likeliest", coin="step").forward_teacher_forced(
        model, model.encode(inputs), rows, 0
    )
    assert all((token == token[0]).all() for token in seen) and {int(token[0]) for token in seen[1:]} == {UNK, 4}
    seen.clear()
    ScheduledSampling(initial_prob=0.5, word="likeliest", coin="word").forward_teacher_forced(
        model, model.encode(inputs), rows, 0
    )
    assert all(len(token.unique()) == 2 for token in seen[1:])


def test_the_objective_samples_from_its_start_epoch(features: Features):
    model = small("sa_lstm")
    batch = Batch(("a", "b", "c", "d"), features, TOKENS)
    objective = CrossEntropy(sampling=ScheduledSampling(start_epoch=2, initial_prob=1.0, word="likeliest"))
    plain = CrossEntropy()(model, batch).value
    assert torch.equal(objective(model, batch, 0).value, plain) and torch.equal(objective(model, batch, 1).value, plain)
    assert abs(objective(model, batch, 2).value - plain) > 1e-3
    objective(model, batch, 2).value.backward()
    assert model.embed.weight.grad is not None


def test_targets_stay_the_captions(features: Features):
    """Always its own words, but the caption's next word is what it is scored on: by hand for one row."""
    model = small("sa_lstm")
    batch = Batch(("a",), features.map(lambda x: x[:1]), TOKENS[:1])
    loss = CrossEntropy(sampling=ScheduledSampling(initial_prob=1.0, word="likeliest"))(model, batch).value.item()
    memory = model.encode(batch.inputs)
    state, token, total = model.init_state(memory), torch.tensor([BOS]), 0.0
    for target in (4, 5, EOS):
        out = model.step(token, state, memory)
        state, token = out.state, out.logits.argmax(-1)
        total -= out.logits.log_softmax(-1)[0, target].item()
    assert loss == pytest.approx(total / 3, rel=1e-5)
