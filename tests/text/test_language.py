"""The language of a caption by its function words: clear cases are noticed, unclear ones are not."""

import pytest

from limner.text.language import FUNCTION_WORDS, language_of, other_language

SENTENCES = {
    "en": "a man with a red hat is standing on the beach",
    "de": "ein Mann mit einem roten Hut steht auf dem Strand und wartet",
    "fr": "un homme avec un chapeau rouge est debout sur la plage",
    "es": "un hombre con un sombrero rojo está de pie en la playa",
    "it": "un uomo con un cappello rosso è in piedi sulla spiaggia della città",
    "pt": "um homem com um chapéu vermelho está de pé na praia",
    "nl": "een man met een rode hoed staat op het strand",
    "sv": "en man med en röd hatt står på en strand och är glad",
    "pl": "mężczyzna w czerwonym kapeluszu stoi na plaży i jest obok psa",
    "cs": "muž v červeném klobouku stojí na pláži a je vedle psa",
    "tr": "bir adam ve bir köpek plajda, su kenarında bir çocuk var",
    "id": "seorang pria dengan topi merah sedang berdiri di pantai",
}


@pytest.mark.parametrize("language", [language for language in SENTENCES if language != "en"])
def test_a_sentence_of_another_language_is_noticed(language: str):
    assert other_language(SENTENCES[language], "en") == language
    assert other_language(SENTENCES["en"], language) == "en"
    assert other_language(SENTENCES[language], language) == ""


@pytest.mark.parametrize("caption", [
    "two brown dogs", "a dog in a car", "die hard", "a cafe en route", "man on a de la cruz street", "stop sign",
    "a red circle left of a blue square", "in the rain a man is on a bike",
])  # fmt: skip
def test_english_captions_stay(caption: str):
    assert other_language(caption, "en") == ""


def test_the_language_of_many_texts():
    assert language_of([SENTENCES["de"], SENTENCES["de"], SENTENCES["en"]]) == "de"
    assert language_of([]) == language_of(["kutya", "macska"]) == ""


def test_no_language_has_a_word_twice():
    for words in FUNCTION_WORDS.values():
        assert len(set(words.split())) == len(words.split())
