"""Searches against brute force, a slow twin, and numbers worked out by hand."""

from collections import Counter
from math import exp, log

import pytest
import torch

from limner.core.types import BOS, EOS, PAD, UNK, Captions, Features
from limner.decode.logits import apply_rules
from limner.decode.rules import Rules
from limner.decode.search import Beam, Sample, beam, greedy, sample
from limner.models.captioner import Captioner
from tests.decode.tables import Table, chain, every, media, slow_beam, tables
from tests.models.captioners import features, model, pick, random_features, small

__all__ = ["features", "model"]

FREE = Rules(min_length=0, max_length=6, no_repeat_word=False, allow_unknown=True)
STRICT = Rules(min_length=2, max_length=6)


def sentences(found: Captions) -> list[tuple[int, ...]]:
    """Tokens of every row without the padding, which must stand after EOS and nowhere else."""
    rows = []
    for row in found.tokens.tolist():
        length = row.index(EOS) + 1 if EOS in row else len(row)
        assert all(token == PAD for token in row[length:]) and PAD not in row[:length]
        rows.append(tuple(row[:length]))
    return rows


@pytest.mark.parametrize("rules", [FREE, STRICT, Rules()])
def test_a_beam_of_one_is_greedy(rules: Rules):
    world = tables(30, 4, end=0.5)
    a, b = greedy(world, media(*range(30)), rules), beam(world, media(*range(30)), Beam(1, 0.0, rules))
    assert torch.equal(a.tokens, b.tokens) and len({len(s) for s in sentences(a)}) > 2
    torch.testing.assert_close(a.logprob, b.logprob)


def test_a_beam_of_one_is_greedy_for_every_model(model: Captioner, features: Features):
    a, b = greedy(model, features), beam(model, features, Beam(1))
    assert sentences(a) == sentences(b)
    torch.testing.assert_close(a.logprob, b.logprob)
    for row, words in enumerate(sentences(a)):
        torch.testing.assert_close(a.attention[row, : len(words)], b.attention[row, : len(words)])


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize(
    "rules",
    [Rules(0, 3, no_repeat_word=False, allow_unknown=True), Rules(1, 3), Rules(2, 4)],
    ids=["free", "usual", "long"],
)
def test_an_exhaustive_beam_equals_exhaustive_search(rules: Rules, penalty: float):
    world, V = tables(6, 2, seed=1), 6
    found = beam(world, media(*range(6)), Beam(V**rules.max_length, penalty, rules))
    for row, words in enumerate(sentences(found)):
        ended, _ = every(world, row, rules)
        best = max(ended, key=lambda words: ended[words] / len(words) ** penalty)
        assert words == best and found.logprob[row].item() == pytest.approx(ended[best], abs=1e-5)


def test_when_no_caption_ends_the_best_unfinished_one_is_returned():
    world, rules = tables(5, 3, end=-torch.inf), Rules(1, 3)
    everything = beam(world, media(*range(5)), Beam(7**3, 0.0, rules))
    for row, words in enumerate(sentences(everything)):
        ended, unfinished = every(world, row, rules)
        best = max(unfinished, key=unfinished.__getitem__)
        assert not ended and words == best and everything.logprob[row].item() == pytest.approx(unfinished[best])
    for found in (greedy(world, media(0, 1), rules), beam(world, media(0, 1), Beam(2, 0.0, rules))):
        assert found.tokens.shape == (2, 3) and (found.tokens >= 4).all() and found.logprob.isfinite().all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("rules", [FREE, STRICT])
def test_beam_search_equals_its_slow_twin(size: int, penalty: float, rules: Rules):
    """30 random worlds, of which some end early, some late, and some hardly ever."""
    for seed, end in enumerate((-3.0, 0.0, 2.0)):
        world = tables(10, 4, seed=10 + seed, end=end)
        found = beam(world, media(*range(10)), Beam(size, penalty, rules))
        for row, words in enumerate(sentences(found)):
            expected, total = slow_beam(world, row, size, penalty, rules)
            assert words == expected and found.logprob[row].item() == pytest.approx(total, abs=1e-4)
            steps = found.attention[row, : len(words)].argmax(-1).tolist()
            assert steps == list(range(len(words)))  # word t carries the map of step t
            assert (found.attention[row, len(words) :] == 0).all()


def test_the_beam_shrinks_by_one_for_each_end():
    """Longer is better here, and (4 5 6 7 EOS) is the longest; but 4 5 needs a place beside 4 4 at the second word.

    At the first word EOS takes one place of the beam for good, with 4 (and 5, when there are three places); at the
    second 5 EOS takes another.  So 2 and 3 hypotheses leave a single place for 4 4, and only 4 hypotheses keep 4 5.
    """
    arrows = {
        (BOS, BOS): {EOS: 0.4, 4: 0.35, 5: 0.25},
        (BOS, 4): {4: 0.51, 5: 0.49},
        (4, 5): {6: 1.0},
        (5, 6): {7: 1.0},
    }
    world = chain(8, arrows)
    for size, words in ((1, (EOS,)), (2, (4, 4, EOS)), (3, (4, 4, EOS)), (4, (4, 5, 6, 7, EOS))):
        assert sentences(beam(world, media(0), Beam(size, 5.0, FREE))) == [words]


def test_length_penalty_by_hand():
    """.5 for (4 EOS), .4 for (5 6 7 EOS): log .5 / 2^a = log .4 / 4^a at a = log2(log .4 / log .5) = .4026."""
    arrows = {(BOS, BOS): {4: 0.5, 5: 0.4, 6: 0.1}, (BOS, 5): {6: 1.0}, (5, 6): {7: 1.0}}
    border = log(log(0.4) / log(0.5), 2)
    for penalty, words, share in (
        (0.0, (4, EOS), 0.5),
        (border - 0.01, (4, EOS), 0.5),
        (border + 0.01, (5, 6, 7, EOS), 0.4),
    ):
        found = beam(chain(8, arrows), media(0), Beam(3, penalty, FREE))
        assert sentences(found) == [words]
        assert found.logprob.item() == pytest.approx(log(share))  # reported without the penalty


def test_rules_by_hand():
    """4 is likeliest, and after it 4 again; UNK is next; EOS is third."""
    scores = torch.full((1, 6, 6, 6), -torch.inf)
    scores[..., 4], scores[..., UNK], scores[..., EOS], scores[..., 5] = 4.0, 3.0, 2.0, 1.0
    world = Table(scores)
    cases = {
        Rules(1, 5, no_repeat_word=False): (4, 4, 4, 4, 4),
        Rules(0, 5): (4, EOS),
        Rules(3, 5): (4, 5, 4, EOS),
        Rules(4, 5): (4, 5, 4, 5, 4),
        Rules(0, 1): (4,),
        Rules(3, 4, allow_unknown=True): (4, UNK, 4, UNK),
    }
    for rules, words in cases.items():
        assert sentences(greedy(world, media(0), rules)) == [words], rules
    total = torch.tensor([4.0, 3.0, 2.0, 1.0]).exp().sum().log().item()  # forbidden words keep their probability
    found = greedy(world, media(0), Rules(3, 5))
    assert found.logprob.item() == pytest.approx(4 + 1 + 4 + 2 - 4 * total, abs=1e-5)


def test_batch_order_and_size_change_nothing():
    """Media finish at different steps, so they leave the batch at different times."""
    world = tables(24, 4, seed=5, end=0.7)
    options = Beam(3, 0.3, Rules(1, 12))
    whole = beam(world, media(*range(24)), options)
    lengths = {len(words) for words in sentences(whole)}
    assert len(lengths) >= 3
    expected = list(zip(sentences(whole), whole.logprob.tolist(), strict=True))
    for numbers in (list(range(23, -1, -1)), [*range(12, 24), *range(12)], [3], [7, 7, 7, 1], [0, 23]):
        found = beam(world, media(*numbers), options)
        assert list(zip(sentences(found), found.logprob.tolist(), strict=True)) == [expected[n] for n in numbers]


def test_batch_order_changes_nothing_for_every_model(model: Captioner):
    many = random_features(12, seed=3)
    whole = beam(model, many, Beam(4))
    for rows in ([*range(11, -1, -1)], [5], [2, 9]):
        found = beam(model, pick(many, rows), Beam(4))
        assert sentences(found) == [sentences(whole)[row] for row in rows]
        torch.testing.assert_close(found.logprob, whole.logprob[rows], rtol=1e-4, atol=1e-4)


def forced(model: Captioner, features: Features, found: Captions) -> torch.Tensor:
    """Log-probability of given captions by teacher forcing."""
    inputs = torch.cat([torch.full((len(found.tokens), 1), BOS), found.tokens[:, :-1]], 1)
    logp = model(features, inputs).log_softmax(-1).gather(2, found.tokens[..., None]).squeeze(-1)
    return logp.masked_fill(found.tokens == PAD, 0).sum(1)


@pytest.mark.parametrize("size", [1, 4])
def test_logprob_and_attention_are_those_of_teacher_forcing(model: Captioner, features: Features, size: int):
    found = beam(model, features, Beam(size, 0.5))
    torch.testing.assert_close(found.logprob, forced(model, features, found), rtol=1e-4, atol=1e-4)
    inputs = torch.cat([torch.full((4, 1), BOS), found.tokens[:, :-1]], 1)
    expected = model.forward_teacher_forced(model.encode(features), inputs).attention
    torch.testing.assert_close(found.attention, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(
    "rules", [Rules(0, 2, no_repeat_word=False, allow_unknown=True), Rules(1, 2)], ids=["free", "usual"]
)
def test_samples_follow_the_constrained_distribution(rules: Rules, temperature: float):
    """All sequences of two tokens have a known probability; Pearson's chi-square of 20,000 draws, 4 sigma."""
    world, draws = tables(1, 2, seed=2), 20_000
    torch.manual_seed(0)
    found = sample(world, media(0), Sample(draws, temperature, rules))
    expected: dict[tuple[int, ...], float] = {}

    def spread(words: tuple[int, ...], share: float) -> None:
        if len(words) == 2 or EOS in words:
            expected[words] = share
            return
        last, before = [*words[::-1], BOS, BOS][:2]
        scores = world.tables[0, before, last].clone()
        forbidden = [] if rules.allow_unknown else [UNK]
        forbidden += [EOS] if len(words) < rules.min_length else []
        forbidden += list(words[-1:]) if rules.no_repeat_word else []
        scores[forbidden] = -torch.inf
        for word, p in enumerate((scores.double() / temperature).softmax(-1).tolist()):
            if p:
                spread((*words, word), share * p)

    spread((), 1.0)
    counts = Counter(sentences(found))
    assert counts.keys() <= expected.keys() and sum(expected.values()) == pytest.approx(1.0)
    chi = sum((counts[words] - draws * p) ** 2 / (draws * p) for words, p in expected.items())
    degrees = len(expected) - 1
    assert chi < degrees + 4 * (2 * degrees) ** 0.5
    for words, reported in zip(sentences(found)[:200], found.logprob.tolist(), strict=False):
        assert exp(reported) == pytest.approx(expected[words], rel=1e-4)


def test_unconstrained_samples_report_the_models_own_probability(model: Captioner, features: Features):
    """Rows 2i and 2i + 1 belong to medium i."""
    torch.manual_seed(0)
    found = sample(model, features, Sample(2, 1.0, Rules(0, 8, no_repeat_word=False, allow_unknown=True)))
    twice = features.map(lambda x: x.repeat_interleave(2, 0))
    torch.testing.assert_close(found.logprob, forced(model, twice, found), rtol=1e-4, atol=1e-4)


def test_samples_are_reproducible_by_seed_and_carry_no_inference_tensors():
    world = tables(4, 4)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(sample(world, media(0, 1, 2, 3), Sample(3)))
    assert torch.equal(draws[0].tokens, draws[1].tokens) and torch.equal(draws[0].logprob, draws[1].logprob)
    assert sentences(draws[0]) != sentences(draws[2])
    assert not draws[0].tokens.is_inference()  # self-critical training feeds them back


def test_scores_that_are_not_numbers_are_an_error_and_not_a_caption():
    world = tables(3, 2)
    with torch.no_grad():
        world.tables[1] = torch.nan
    message = r"the model's scores for (media|rows) \[1\] of the batch are nan or all -inf"
    for search in (beam, greedy, sample):
        with pytest.raises(FloatingPointError, match=message):
            search(world, media(0, 1, 2))
    assert len(sentences(beam(world, media(0, 2)))) == 2


def test_rules_that_forbid_every_word_are_not_applied():
    """One word and the special tokens, of which PAD and BOS never come: after 4 the rules forbid 4, EOS and UNK."""
    one = Table(torch.full((1, 5, 5, 5), -torch.inf))
    with torch.no_grad():
        one.tables[..., EOS], one.tables[..., UNK], one.tables[..., 4] = 0.0, -1.0, 2.0
    for search, options in ((greedy, Rules(3, 6)), (sample, Sample(temperature=0.05, rules=Rules(3, 6)))):
        torch.manual_seed(0)
        assert sentences(search(one, media(0), options)) == [(4, 4, 4, EOS)]
    # -.17 for each 4 and -2.17 for EOS: of the two that a beam keeps, the one that ends at once is the likelier
    assert sentences(beam(one, media(0), Beam(2, rules=Rules(3, 6)))) == [(4, EOS)]
    only_unknown = chain(5, {(BOS, BOS): {UNK: 1.0}})
    for found in (beam(only_unknown, media(0)), greedy(only_unknown, media(0)), sample(only_unknown, media(0))):
        assert sentences(found) == [(UNK, EOS)] and found.logprob.item() == 0


def test_rules_are_lifted_row_by_row():
    scores = torch.tensor([[-torch.inf, -torch.inf, 1.0, 2.0, 3.0], [-torch.inf, -torch.inf, 1.0, 2.0, -torch.inf]])
    ruled = apply_rules(Rules(3, 6), scores, torch.tensor([[2], [2]]))
    low = -torch.inf
    assert ruled.tolist() == [[low, low, low, low, 3], [low, low, 1, 2, low]]
    assert apply_rules(Rules(3, 6), torch.full((1, 5), torch.nan), torch.tensor([[2]])).isnan().any()  # stays an error


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match=r"at least one hypothesis, got size 0"):
        Beam(0)
    with pytest.raises(ValueError, match=r"expected temperature > 0 and count >= 1, got 0.0 and 1"):
        Sample(temperature=0.0)
    with pytest.raises(ValueError, match=r"expected 0 <= min_length < max_length, got min_length 5, max_length 5"):
        Rules(5, 5)


def test_search_does_not_change_the_model():
    captioner = small("show_attend_tell").train()
    before = {name: value.clone() for name, value in captioner.state_dict().items()}
    beam(captioner, random_features())
    assert captioner.training and all(
        torch.equal(before[name], value) for name, value in captioner.state_dict().items()
    )
    assert all(parameter.grad is None for parameter in captioner.parameters())


def test_rows_of_ended_hypotheses_are_not_computed():
    """EOS (.3) takes one of two slots at the first word; afterwards every step computes one row."""
    a, b = 4, 5
    world = chain(6, {(BOS, BOS): {a: 0.5, EOS: 0.3, b: 0.2}, (BOS, a): {b: 0.9, EOS: 0.1}, (a, b): {EOS: 1.0}})
    rows, step = [], world.step

    def counted(token, state, memory):
        rows.append(len(token))
        return step(token, state, memory)

    world.step = counted  # type: ignore[method-assign]
    found = beam(world, media(0), Beam(2, 0.0, FREE))
    assert sentences(found) == [(a, b, EOS)] and rows == [1, 1, 1]
    assert found.logprob.item() == pytest.approx(log(0.45))
