"""Ensembles: averages by hand, against enumeration, and members that cannot talk to each other."""

from math import inf, nan

import pytest
import torch

from limner.core.types import Features, Layout
from limner.decode.ensemble import Ensemble, EnsembleInputs, check_same_vocabulary
from limner.decode.options import Averaging
from limner.decode.rules import Rules
from limner.decode.search import Beam, Sample, beam, greedy, sample
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary
from tests.decode.tables import Table, every, media, said, tables
from tests.models.captioners import D, features, model, small

__all__ = ["features", "model"]


@pytest.mark.parametrize("weights", [None, (1.0, 3.0), (0.0, 2.0)])
@pytest.mark.parametrize("average", ["probabilities", "log_probabilities"])
def test_the_average_of_two_tables_is_a_table(weights: tuple[float, float] | None, average: str):
    """Searched like the one captioner whose table is the average; its best caption is that of all sequences."""
    one, two = tables(5, 3, seed=1), tables(5, 3, seed=2)
    a, b = (0.5, 0.5) if weights is None else tuple(weight / sum(weights) for weight in weights)
    shares = [table.tables.detach().softmax(-1) for table in (one, two)]
    if average == "probabilities":
        mixed = (a * shares[0] + b * shares[1]).log()
    else:
        mixed = a * shares[0].clamp(min=1e-45).log() + b * shares[1].clamp(min=1e-45).log()
        mixed[..., :2] = -torch.inf
    together, table = Ensemble([one, two], Averaging(weights, average)), Table(mixed)
    rules = Rules(1, 4)
    for options in (
        Beam(3, 0.5, rules),
        Beam(3, rules=rules, n_best=3),
        Beam(4, rules=rules, groups=2),
        Beam(2, rules=rules, must=(5,)),
    ):
        found, expected = (beam(it, media(*range(5)), options) for it in (together, table))
        assert said(found) == said(expected)
        torch.testing.assert_close(found.logprob, expected.logprob, rtol=1e-4, atol=1e-4)
    for medium, words in enumerate(said(beam(together, media(*range(5)), Beam(150, rules=rules)))):
        ended, _ = every(table, medium, rules)
        assert words == max(ended, key=ended.__getitem__)


def test_an_ensemble_of_equal_models_is_one_model(model: Captioner, features: Features):
    for average in ("probabilities", "log_probabilities"):
        for options in (Beam(3, 0.2), Beam(4, groups=2)):
            twins = Ensemble([model, model], Averaging(None, average))
            found, alone = (beam(it, features, options) for it in (twins, model))
            assert said(found) == said(alone)
            torch.testing.assert_close(found.logprob, alone.logprob, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.attention, alone.attention.float(), rtol=1e-4, atol=1e-5)


def test_members_read_their_own_features(features: Features):
    """An LSTM on six cells of ten channels and another kind on four cells of seven: as wide as neither, with attention
    over the first one's cells; drawn, searched, greedy, and taught."""
    from limner.models import CAPTIONERS, build_model

    torch.manual_seed(3)
    other = build_model(CAPTIONERS["sa_lstm"].config(name="sa_lstm", hidden=6, embed=5, attention=4), 9, 7).eval()
    grid = torch.randn(4, 4, 7, generator=torch.Generator().manual_seed(0))
    theirs = Features(grid, torch.ones(4, 4, dtype=torch.bool), Layout(1, 2, 2))
    assert features.grid.shape[2] == D
    pair, inputs = Ensemble([small("show_attend_tell"), other]), EnsembleInputs((features, theirs))
    torch.manual_seed(0)
    for found in (beam(pair, inputs, Beam(3)), greedy(pair, inputs), sample(pair, inputs, Sample(1))):
        assert found.attention.shape[2] == 6 and found.logprob.isfinite().all()
    alone = [said(beam(it, part, Beam(3))) for it, part in zip(pair.members, inputs.parts, strict=True)]
    first, second = (Ensemble(list(pair.members), Averaging(weights)) for weights in ((1.0, 0.0), (0.0, 1.0)))
    assert [said(beam(it, inputs, Beam(3))) for it in (first, second)] == alone and alone[0] != alone[1]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [nan, 1.0], [1.0, nan], [inf, 1.0]])
def test_invalid_weights_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="2 members need as many weights"):
        Ensemble([tables(1, 2), tables(1, 2)], Averaging(tuple(weights)))


def test_members_must_share_a_vocabulary():
    words = ("<pad>", "<bos>", "<eos>", "<unk>", "a", "dog")
    check_same_vocabulary([("a", Vocabulary(words)), ("b", Vocabulary(words, "ptb"))])
    with pytest.raises(ValueError, match=r"runs/a has 6 words, runs/b has 6: id 5 is 'dog' and 'cat'\. Train"):
        check_same_vocabulary([("runs/a", Vocabulary(words)), ("runs/b", Vocabulary((*words[:5], "cat")))])
    with pytest.raises(ValueError, match="one has the other's words and more"):
        check_same_vocabulary([("runs/a", Vocabulary(words)), ("runs/b", Vocabulary(words[:5]))])
