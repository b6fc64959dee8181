import random

from limner.metrics.meteor.records import Lexicon, java_hash
from limner.metrics.meteor.stemmer import stem
from limner.metrics.meteor.tables import Tables
from tests.metrics.meteor.conftest import FUNCTION, WORDS, paraphrases
from tests.metrics.meteor.test_tables import number


def synsets(words: list[str], tables: Tables) -> dict[str, list[int]]:
    lexicon = Lexicon(tables)
    _, sentences = lexicon.sentences([" ".join(words)])
    facts = lexicon.words
    return {
        word: facts.synset[facts.synset_start[row] : facts.synset_start[row + 1]].tolist()
        for word, row in zip(words, sentences.word.tolist(), strict=True)
    }


def test_synonym_sets_of_forms(little: Tables) -> None:
    # dog 1 2, hound 2, run 4 5, walk 5, mouse 7; exceptions: mice, ran
    expected = {
        **{"dog": [1, 2], "dogs": [1, 2], "hounds": [2], "runs": [4, 5], "walked": [5], "walking": [5], "walker": [5]},
        **{"mice": [7], "ran": [4, 5]},  # by the list of exceptions
        **{"mices": [], "rans": []},  # a base has to be a word of its own
        **{"dogss": [], "running": [], "s": [], "zebra": []},  # no word in -ss; no doubled letters in the rules
    }
    assert synsets(list(expected), little) == expected


def test_words_learned_later_keep_the_earlier_facts(little: Tables) -> None:
    lexicon = Lexicon(little)
    lexicon.sentences(["dog hounds"])
    early = lexicon.words
    _, sentences = lexicon.sentences(["the dog runs", "hounds ."])
    facts = lexicon.words
    words = ["dog", "hounds", "the", "runs", "."]
    assert sentences.word.tolist() == [2, 0, 3, 1, 4] and sentences.start.tolist() == [0, 3, 5]
    assert facts.key.tolist() == [java_hash(word) for word in words]
    assert facts.stem.tolist() == [java_hash(stem(word)) for word in words]
    assert facts.function.tolist() == [word in FUNCTION for word in words]
    assert facts.synset[: len(early.synset)].tolist() == early.synset.tolist() == [1, 2, 2]


def test_lines_that_are_equal_are_one_sentence(little: Tables) -> None:
    rows, sentences = Lexicon(little).sentences(["a dog", "", "a dog", "the"])
    assert rows.tolist() == [0, 1, 0, 2]
    assert sentences.start.tolist() == [0, 2, 2, 3]


def test_every_phrase_of_the_table_is_found(little: Tables) -> None:
    phrases = {phrase for pair in paraphrases() for phrase in pair}
    rng = random.Random(1)
    lines = [" ".join(rng.choices((*WORDS, "zebra"), k=length)) for length in (0, 1, 2, 7, 8, 60)]
    lines += rng.sample(sorted(phrases), 20)
    rows, sentences = Lexicon(little).sentences(lines)
    for line, row in zip(lines, rows.tolist(), strict=True):
        words = line.split()
        spans = [(begin, length) for begin in range(len(words)) for length in range(1, len(words) - begin + 1)]
        expected = [
            (number(little, " ".join(words[begin : begin + length])), begin, length)
            for begin, length in spans
            if " ".join(words[begin : begin + length]) in phrases
        ]
        here = slice(sentences.phrase_start[row], sentences.phrase_start[row + 1])
        columns = (sentences.phrase[here], sentences.begin[here], sentences.length[here])
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
