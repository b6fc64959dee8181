"""Which language a caption is written in, by its function words ("the", "auf", "une"): a plain test without a model.

Function words are the most frequent words of a language, and few are shared with others.  A caption of a dozen words
has four or five.  One without any ("two brown dogs") tells nothing, and the test says so.  Languages in other scripts
are told apart by `limner.text.scripts.foreign_script`.
"""

import re
from collections import Counter
from collections.abc import Iterable

FUNCTION_WORDS = {
    "en": "a an the of in on at with and is are to for from by near next his her its their while that this",
    "de": "der die das ein eine einen einem einer und auf mit ist sind im am zu von den dem vor neben bei sich für aus",
    "fr": "le la les un une des du de et est sont sur avec dans au aux en pour par devant qui son sa près",
    "es": "el la los las un una unos unas de del y es son en con sobre por para al junto su que está están",
    "it": "il lo la i gli le un una uno di del della e è sono su sul con in nel nella da che si al sta",
    "pt": "o a os as um uma de do da e é são em no na com sobre por para ao que está estão dos das",
    "nl": "de het een en op met is zijn in van aan bij naast voor dat die te naar zich uit",
    "sv": "en ett och på med är i av den det som vid för till sig ur framför står",
    "da": "en et og på med er i af den det som ved for til sig foran står der",
    "pl": "w na z i jest są do od przy obok się który która pod nad ze oraz jego jej",
    "cs": "v na s a je jsou do od u vedle se který která pod nad ve ze jeho její",
    "fi": "on ja kaksi joka sen sekä vieressä päällä kanssa edessä ovat hän seisoo istuu",
    "tr": "bir ve ile bu üzerinde yanında içinde olan var için da de önünde",
    "ro": "un o cu și pe în este sunt de la lângă care din pentru al ale unei unui",
    "id": "di dan yang dengan sebuah seorang pada dari ke untuk adalah sedang dua itu ini",
}
_WORDS = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}
_LETTERS = re.compile(r"[^\W\d_]+")
LEAST = 2  # function words of another language from which on a caption is judged


def function_words(text: str) -> Counter[str]:
    """How many function words of each language a text has; languages without any are left out.

    >>> function_words("a dog in the water")["en"], function_words("a dog in the water")["it"]
    (3, 1)
    """
    words = [word.lower() for word in _LETTERS.findall(text)]
    counts = {language: sum(word in known for word in words) for language, known in _WORDS.items()}
    return Counter({language: count for language, count in counts.items() if count})


def other_language(text: str, expected: str) -> str:
    """The language of a text that is clearly not the `expected` one; "" when it may be that one.

    Another language is clear when the text has at least two different function words of it, and more than twice as
    many, repetitions counted, as of the expected one.  A text in a language that is not in `FUNCTION_WORDS`, or a
    short one, is not noticed.

    >>> other_language("ein Hund auf einem Sofa", "en"), other_language("a dog on a sofa", "en")
    ('de', '')
    >>> other_language("two brown dogs", "en"), other_language("a dog on a sofa", "de")
    ('', 'en')
    >>> other_language("see no evil, hear no evil, speak no evil", "en")  # no is a Portuguese function word
    ''
    """
    counts = function_words(text)
    present = {word.lower() for word in _LETTERS.findall(text)}
    for language, count in counts.most_common():
        different = len(present & _WORDS[language])
        if language != expected and different >= LEAST and count > 2 * counts[expected]:
            return language
    return ""


def language_of(texts: Iterable[str]) -> str:
    """The language of many texts: the one with the most function words; "" when there are too few to tell.

    >>> language_of(["ein Hund auf einem Sofa", "eine Katze"]), language_of(["dog", "cat"])
    ('de', '')
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts += function_words(text)
    (best, most), *_ = counts.most_common(1) or [("", 0)]
    return best if most >= LEAST else ""
