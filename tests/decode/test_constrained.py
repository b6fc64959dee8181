"""Words that must appear, against all sequences there are."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from limner.core.types import BOS, EOS, Features, Medium
from limner.decode.generate import generate
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.captioner import Captioner, Step
from limner.text.vocabulary import SPECIALS, Vocabulary
from tests.decode.tables import Table, chain, every, media, said, tables
from tests.decode.test_search import FREE, STRICT, forced
from tests.models.captioners import features, model

__all__ = ["features", "model"]


@pytest.mark.parametrize("must", [(4,), (6, 4), (4, 5, 6)])
@pytest.mark.parametrize("rules", [replace(FREE, max_length=4), replace(STRICT, max_length=5)])
def test_an_exhaustive_beam_finds_the_best_caption_with_the_words(must: tuple[int, ...], rules: Rules):
    world = tables(5, 3, seed=8, end=0.5)
    found = beam(world, media(*range(5)), Beam(260, 0.3, rules, n_best=4, must=must))
    for medium in range(5):
        ended = {w: s for w, s in every(world, medium, rules)[0].items() if set(must) <= set(w)}
        expected = sorted(ended, key=lambda words: -ended[words] / len(words) ** 0.3)[:4]
        rows = slice(4 * medium, 4 * medium + 4)
        assert said(found)[rows] == expected and len(expected) == 4
        assert found.logprob[rows].tolist() == pytest.approx([ended[words] for words in expected], abs=1e-4)


@pytest.mark.parametrize("must", [((4, 5),), ((4, 5), 6), ((4, 5), (5, 6)), ((4, 6), (5, 6), 4), (4, (4, 5))])
def test_alternatives_against_all_sequences(must: tuple[int | tuple[int, ...], ...]):
    """Each entry needs one of its words; a word of two entries serves both."""
    world, rules = tables(4, 3, seed=11, end=0.5), replace(FREE, max_length=4)
    found = beam(world, media(*range(4)), Beam(260, 0.3, rules, n_best=3, must=must))
    slots = [{entry} if isinstance(entry, int) else set(entry) for entry in must]
    for medium in range(4):
        sequences = every(world, medium, rules)[0]
        ended = {words: total for words, total in sequences.items() if all(slot & set(words) for slot in slots)}
        expected = sorted(ended, key=lambda words: -ended[words] / len(words) ** 0.3)[:3]
        rows = slice(3 * medium, 3 * medium + 3)
        assert said(found)[rows] == expected and len(expected) == 3
        assert found.logprob[rows].tolist() == pytest.approx([ended[words] for words in expected], abs=1e-4)


def test_a_narrow_beam_holds_alternatives(model: Captioner, features: Features):
    plain = said(beam(model, features, Beam(2)))
    unsaid = tuple(word for word in range(4, 9) if word not in plain[0])[:2]
    found = beam(model, features, Beam(2, must=(unsaid, 4)))
    assert all(set(unsaid) & set(words) and 4 in words for words in said(found))
    torch.testing.assert_close(found.logprob, forced(model, features, found), rtol=1e-4, atol=1e-4)


def test_a_narrow_beam_finds_captions_with_the_words(model: Captioner, features: Features):
    """Also words that a model does not say of its own accord."""
    plain = said(beam(model, features, Beam(2)))
    missing_words = tuple(word for word in range(4, 9) if word not in plain[0])[:2]
    for must in ((4,), (8, 6), missing_words):
        found = beam(model, features, Beam(2, must=must))
        assert all(set(must) <= set(words) for words in said(found))
        torch.testing.assert_close(found.logprob, forced(model, features, found), rtol=1e-4, atol=1e-4)


def test_words_that_are_in_every_caption_leave_the_beam_as_it_is():
    """What is anyhow in every caption costs nothing: the beam of the whole set is the plain beam."""
    world = chain(7, {(BOS, BOS): {4: 1.0}, (BOS, 4): {5: 0.6, 6: 0.4}, (4, 5): {6: 0.5, EOS: 0.5}})
    held, plain = (beam(world, media(0), Beam(3, rules=FREE, n_best=3, must=must)) for must in ((4,), ()))
    assert said(held) == said(plain)
    torch.testing.assert_close(held.logprob, plain.logprob)


def test_as_many_of_the_words_as_possible_where_not_all_fit():
    """Two tokens have no place for three words: the likeliest unfinished caption of those with most of them."""
    world = tables(3, 4, seed=9)
    found = beam(world, media(0, 1, 2), Beam(50, rules=Rules(0, 2), must=(4, 5, 6)))
    for medium, words in enumerate(said(found)):
        _, unfinished = every(world, medium, Rules(0, 2))
        two = {w: s for w, s in unfinished.items() if len({4, 5, 6} & set(w)) == 2}
        best = max(two, key=lambda words: two[words])
        assert words == best and found.logprob[medium].item() == pytest.approx(two[best], abs=1e-5)


def test_fewer_media_go_together_than_in_a_plain_beam():
    """Two words that must appear make 4 beams of each medium: 2 media at a time instead of 8 are 8 * 3 hypotheses."""
    world, rows, real = tables(8, 4, seed=3), [], Table.step
    vocabulary = Vocabulary((*SPECIALS, *"abcd"))
    asked = [Medium(str(i), "", "val") for i in range(8)]

    class Counted(Table):
        def step(self, token: Tensor, state: tuple[Tensor, Tensor], memory: tuple[Tensor]) -> Step:
            rows.append(len(token))
            return real(self, token, state, memory)

    def read(some: list[tuple[Medium, str]]) -> Features:
        return media(*(int(medium.id) for medium, _ in some))

    for must, together in {("a",): 4, ("a", "b"): 2, ("a", "b", "c", "d"): 1}.items():
        rows.clear()
        options = Beam(3, rules=Rules(0, 6), must=must)
        found = generate(Counted(world.tables), asked, read, vocabulary, options, batch_size=8)
        assert max(rows) == together * 3 * 2 ** len(must)
        bound = options.bind(vocabulary)
        alone = [vocabulary.decode(said(beam(world, media(i), bound))[0]) for i in range(8)]
        assert list(found.values()) == alone


def test_required_words_need_a_vocabulary():
    with pytest.raises(AssertionError, match=r"Beam\.bind"):
        beam(tables(1, 3), media(0), Beam(must=("dog",)))
