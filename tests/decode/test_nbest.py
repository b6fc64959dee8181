"""Several captions per medium, and length penalties, against all sequences there are."""

from dataclasses import replace
from math import log

import pytest
import torch

from limner.core.types import EOS, PAD, Features
from limner.decode.nbest import BeamHypothesis, NBest
from limner.decode.rules import Rules
from limner.decode.search import Beam, Sample, beam, sample, search
from limner.models.captioner import Captioner
from tests.decode.tables import chain, every, media, said, tables
from tests.decode.test_search import FREE, STRICT, forced
from tests.models.captioners import features, model

__all__ = ["features", "model"]


@pytest.mark.parametrize("rules", [replace(FREE, max_length=3), replace(STRICT, max_length=4)])
@pytest.mark.parametrize(
    ("normalise", "penalty"), [("power", 0.0), ("power", 0.7), ("wu", 0.9), ("avg", 0.0), ("wu", -1.0)]
)
def test_an_exhaustive_beam_finds_the_n_best_captions_of_all(normalise: str, penalty: float, rules: Rules):
    """Ended captions by logprob / divisor, best first, then unfinished ones; enumerated."""
    divisors = {
        "power": lambda n: n**penalty,
        "wu": lambda n: (5 + n) ** penalty / 6**penalty,
        "avg": lambda n: n,
    }
    world = tables(6, 2, seed=4, end=0.5)
    options = Beam(100, penalty, rules, normalise=normalise, n_best=7)
    found = beam(world, media(*range(6)), options)
    assert found.tokens.shape[0] == 42
    for medium in range(6):
        ended, _ = every(world, medium, rules)
        expected = sorted(ended, key=lambda words: -ended[words] / divisors[normalise](len(words)))[:7]
        mine = said(found)[7 * medium : 7 * medium + 7]
        assert mine[: len(expected)] == expected and len(expected) >= 4
        logprobs = found.logprob[7 * medium : 7 * medium + len(expected)].tolist()
        assert logprobs == pytest.approx([ended[words] for words in expected], abs=1e-4)


def test_too_few_captions_leave_empty_rows():
    """(4 EOS), (EOS) and nothing else; then one that never ends in time comes after those that did."""
    world = chain(5, {(1, 1): {4: 0.75, EOS: 0.25}})
    found = beam(world, media(0), Beam(3, n_best=3, rules=FREE))
    assert found.tokens.tolist() == [[4, EOS], [EOS, PAD], [PAD, PAD]]
    assert found.logprob.tolist() == pytest.approx([log(0.75), log(0.25), -torch.inf])
    assert (found.attention[2] == 0).all()
    late = beam(world, media(0), Beam(2, n_best=2, rules=Rules(0, 1, False, True)))
    assert said(late) == [(EOS,), (4,)]


def test_the_first_of_the_n_best_is_the_best_for_every_model(model: Captioner, features: Features):
    one, four = beam(model, features, Beam(5, 0.4)), beam(model, features, Beam(5, 0.4, n_best=4))
    assert said(one) == said(four)[::4]
    torch.testing.assert_close(one.logprob, four.logprob[::4])
    repeated = features.map(lambda x: x.repeat_interleave(4, 0))
    found = four.logprob.isfinite()
    torch.testing.assert_close(four.logprob[found], forced(model, repeated, four)[found], rtol=1e-4, atol=1e-4)
    assert all(len(set(said(four)[i : i + 4])) == 4 for i in range(0, 16, 4))


def test_search_chooses_by_the_decoding_it_is_given():
    world = tables(2, 3)
    assert torch.equal(search(world, media(0, 1), Beam(3)).tokens, beam(world, media(0, 1), Beam(3)).tokens)
    torch.manual_seed(0)
    a = search(world, media(0, 1), Sample(3))
    torch.manual_seed(0)
    assert torch.equal(a.tokens, sample(world, media(0, 1), Sample(3)).tokens) and Sample(3).n_best == 3


def test_equal_captions_are_kept_once():
    best = NBest(1, 3)
    for score, words in ((-1.0, [4]), (-2.0, [5]), (-1.5, [4]), (-0.5, [6, 7])):
        best.add(0, BeamHypothesis(score, score, torch.tensor(words), torch.zeros(len(words), 2)))
    assert best.captions().tokens.tolist() == [[6, 7], [4, PAD], [5, PAD]] and best.worst(0) == -2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_best": 6}, "a beam of 5 cannot give the 6 best captions"),
        ({"groups": 2}, "5 hypotheses cannot be parted into 2 equal groups"),
        ({"groups": 5, "must": (4,)}, "must and groups are two searches"),
        ({"finished_compete": True, "n_best": 2}, "finished_compete is one beam with one caption"),
        ({"finished_compete": True, "normalise": "avg"}, "finished_compete does not normalise"),
        ({"must": tuple(range(4, 11))}, "7 words that must appear; at most 6"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Beam(5, **options)
    for wrong in ({"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sample(**wrong)
