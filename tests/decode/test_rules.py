"""Rules about words: against a twin that looks at whole sentences, and by hand."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from limner.core.types import EOS, UNK
from limner.decode.logits import apply_rules, warp_logits
from limner.decode.required_words import missing_alternatives
from limner.decode.rules import ENDINGS, Rules, missing_words
from limner.decode.search import Beam, Sample, beam, greedy, sample
from limner.text.clip_bpe import read_clip_vocabulary
from limner.text.vocabulary import Vocabulary
from tests.decode.tables import every, media, said, score, tables
from tests.text.test_clip_bpe import write as write_pairs

WORDS = Vocabulary(("<pad>", "<bos>", "<eos>", "<unk>", "a", "dog", "runs"))
RULES = {
    "trigrams": Rules(0, 8, no_repeat_word=False, allow_unknown=True, no_repeat_trigram=True),
    "endings": Rules(1, 5, bad_endings=(4, 5)),
    "never": Rules(0, 5, no_repeat_word=False, never=(5,)),
    "all": Rules(2, 8, True, False, True, (4,), (6,)),
}


def obeys(words: tuple[int, ...], rules: Rules) -> bool:
    """What the new rules say, written again for a whole sentence."""
    spoken = words[:-1] if words[-1] == EOS else words
    thirds = [words[i : i + 3] for i in range(len(words) - 2)]
    return (
        (not rules.no_repeat_trigram or len(set(thirds)) == len(thirds))
        and not (spoken and spoken[-1] in rules.bad_endings)  # be it ended or cut off
        and not set(rules.never) & set(words)
    )


@pytest.mark.parametrize("name", RULES)
def test_forbidden_words_are_never_generated(name: str):
    """Samples, greedy captions and beams of random worlds; unruled ones break each rule."""
    rules, world = RULES[name], tables(40, 5, seed=1, end=-1.0)
    torch.manual_seed(0)
    for found in (
        sample(world, media(*range(40)), Sample(20, rules=rules)),
        greedy(world, media(*range(40)), rules),
        beam(world, media(*range(40)), Beam(4, rules=rules, n_best=3)),
    ):
        assert all(obeys(words, rules) for words in said(found) if words)
    free = replace(rules, no_repeat_trigram=False, bad_endings=(), never=())
    assert not all(obeys(words, rules) for words in said(sample(world, media(*range(40)), Sample(20, rules=free))))


@pytest.mark.parametrize("name", ["endings", "never"])
def test_an_exhaustive_beam_finds_the_best_caption_that_obeys_the_rules(name: str):
    rules, world = replace(RULES[name], max_length=4), tables(8, 3, seed=2, end=0.5)
    found = beam(world, media(*range(8)), Beam(150, rules=rules))
    for medium, words in enumerate(said(found)):
        ended = {w: s for w, s in every(world, medium, rules)[0].items() if obeys(w, rules)}
        assert words == max(ended, key=ended.__getitem__)


def test_a_repeated_trigram_by_hand():
    """After 4 5 6 4 5 only the word that would make 4 5 6 again is forbidden, row by row."""
    rules = Rules(0, 9, no_repeat_word=False, allow_unknown=True, no_repeat_trigram=True)
    tokens = torch.tensor([[4, 5, 6, 4, 5], [4, 4, 4, 4, 4], [4, 5, 6, 5, 4], [5, 4, 5, 4, 5]])
    ruled = apply_rules(rules, torch.zeros(4, 7), tokens)
    assert [(row == -torch.inf).nonzero().flatten().tolist() for row in ruled] == [[6], [4], [], [4]]
    assert torch.equal(apply_rules(rules, torch.zeros(4, 7), tokens[:, :2]), torch.zeros(4, 7))


def test_words_of_rules_become_ids():
    rules = Rules(bad_endings=("a", "zebra"), never=("dog",)).bind(WORDS)
    assert rules == Rules(bad_endings=(4,), never=(5,)) and rules.bind(WORDS) == rules
    assert {"a", "the", "of", "with"} <= set(ENDINGS) and len(set(ENDINGS)) == len(ENDINGS)
    with pytest.raises(AssertionError, match="bound to a vocabulary first"):
        apply_rules(Rules(never=("dog",)), torch.zeros(1, 7), torch.zeros(1, 0, dtype=torch.long))
    bound = Beam(must=("Dog runs", "a"), rules=Rules(never=("zebra",))).bind(WORDS)
    assert bound.must == (5, 6, 4) and bound.bind(WORDS) == bound
    with pytest.raises(ValueError, match="the vocabulary has no 'zebra', which must appear"):
        Beam(must=("zebra",)).bind(WORDS)
    with pytest.raises(ValueError, match="'dog' must appear and must never appear"):
        Beam(must=("dog",), rules=Rules(never=("dog",))).bind(WORDS)


def test_words_that_must_not_appear_are_read_as_the_vocabulary_reads():
    assert Rules(never=("Dog", "RUNS!", "dog", "Zebra")).bind(WORDS).never == (5, 6, 5)
    assert missing_words(("Dog", "Zebra", "runs.", "!"), WORDS) == ["Zebra", "!"]
    odd = Vocabulary((*WORDS.words, "a.m."))
    assert Rules(never=("a.m.",)).bind(odd).never == (7,)  # a word of it, though the tokenizer would part it
    with pytest.raises(ValueError, match=r"'Dog runs' is 2 words \(dog, runs\), and only single words"):
        Rules(never=("Dog runs",)).bind(WORDS)
    with pytest.raises(ValueError, match="the vocabulary has no '!', which must appear"):
        Beam(must=("!",)).bind(WORDS)
    with pytest.raises(ValueError, match="'dog' must appear and must never appear"):
        Beam(must=("dog",), rules=Rules(never=("Dog!",))).bind(WORDS)


def test_alternatives_become_ids():
    """WORDS has a, dog and runs: alternatives that it lacks are left out as long as one is left."""
    bound = Beam(must=("Dog|runs!", "a| zebra", "zebra|a", "dog|Dog"), rules=Rules(never=("runs",))).bind(WORDS)
    assert bound.must == ((5, 6), 4, 5) and bound.bind(WORDS) == bound
    assert missing_alternatives(("dog|zebra", "yak", "a"), WORDS) == ["zebra"]
    pipe = Vocabulary((*WORDS.words, "|"))
    assert Beam(must=("|",)).bind(pipe).must == (7,)
    for must, never, why in (
        ("zebra|yak", "", "the vocabulary has no 'zebra' or 'yak', which must appear"),
        ("dog|runs", "runs,dog", "'dog' or 'runs' must appear and must never appear"),
        ("a dog|runs", "", "'a dog' is 2 words, and each of the alternatives in 'a dog|runs' is a single word"),
    ):
        with pytest.raises(ValueError, match=re.escape(why)):
            Beam(must=(must,), rules=Rules(never=tuple(never.split(",")))).bind(WORDS)


def test_rules_about_words_of_byte_pairs(tmp_path: Path):
    """The piece that says the whole word, never the one inside of words; `a` is the only ending that is one piece."""
    clip = read_clip_vocabulary(write_pairs(tmp_path / "clip", ["d o", "do g</w>", "r i", "ri d", "i n", "in g</w>"]))
    dog, a = clip.ids["dog</w>"], clip.ids["a</w>"]
    bound = Beam(rules=Rules(never=("Dog",), bad_endings=("a", "an", "the")), must=("a x",)).bind(clip)
    assert bound.rules.never == (dog,) and bound.rules.bad_endings == (a,)
    assert bound.must == (a, clip.ids["x</w>"]) and bound.bind(clip) == bound
    assert clip.word_pieces("a riding, dog") == [("a</w>",), ("rid", "ing</w>"), (",</w>",), ("dog</w>",)]
    for wrong in (Beam(must=("riding",)), Beam(must=("a riding",)), Beam(rules=Rules(never=("riding",)))):
        with pytest.raises(ValueError, match=r"riding' is written in 2 pieces \(rid, ing</w>\), which other"):
            wrong.bind(clip)
    assert missing_words(("dog", "x"), clip) == []


@pytest.mark.parametrize(("top_k", "top_p"), [(2, None), (None, 0.55), (3, 0.7), (99, 1.0)])
def test_top_k_and_top_p_by_their_definitions(top_k: int | None, top_p: float | None):
    """For every history of one world: the words that are left, and their shares among themselves."""
    world, rules = tables(1, 4, seed=7), Rules(1, 9)
    options = Sample(1, 0.8, rules, top_k, top_p)
    for before, last in product(range(4, 8), repeat=2):
        logits = world.tables[0, before, last].detach()
        found = warp_logits(options, logits[None], torch.tensor([[before, last]]))[0].softmax(0)
        shares = (logits / 0.8).double()
        shares[[UNK, last]] = -torch.inf
        ranked = sorted(((p, i) for i, p in enumerate(shares.softmax(0).tolist()) if p), reverse=True)[:top_k]
        total, kept = sum(p for p, _ in ranked), []
        for p, i in ranked:
            if top_p is None or sum(q for q, _ in kept) < top_p:
                kept.append((p / total, i))
        mass = sum(p for p, _ in kept)
        expected = torch.zeros(8, dtype=torch.double)
        for p, i in kept:
            expected[i] = p / mass
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_drawn_words_are_among_the_likeliest():
    world = tables(3, 5, seed=3)
    torch.manual_seed(0)
    found = sample(world, media(0, 1, 2), Sample(200, rules=Rules(0, 2, False, True), top_k=2))
    for medium in range(3):
        rows = said(found)[200 * medium : 200 * medium + 200]
        likely = world.tables[medium, 1, 1].topk(2).indices.tolist()
        assert {words[0] for words in rows} == set(likely)
    first = said(found)[0]
    assert found.logprob[0] > score(world, 0, first)  # of the narrower distribution
