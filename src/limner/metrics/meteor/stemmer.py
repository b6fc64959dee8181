"""Porter2, the Snowball stemmer for English, as it was when METEOR 1.5 was built (and until Snowball 2.2).

A word goes in, its stem comes out: "running" -> "run".  Later versions differ on words like "added" and "biologist".
Source: M. Porter, "The English (Porter2) stemming algorithm", snowballstem.org; the steps keep their published names.
"""

import re

WHOLE = {  # words with a stem of their own; the last two rows are left as they are
    **{"skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl"},
    **{"ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl"},
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}
DONE_AFTER_1A = frozenset(("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"))
VOWEL = "aeiouy"  # a consonant y is written Y
REGION = re.compile(r"(?:gener|commun|arsen)|.*?[aeiouy][^aeiouy]", re.DOTALL)
NEXT_REGION = re.compile(r".*?[aeiouy][^aeiouy]", re.DOTALL)
SHORT = re.compile(r"(?:.*[^aeiouy][aeiouy][^aeiouywxY]|[aeiouy][^aeiouy])", re.DOTALL)
DOUBLE = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")

STEP_1B = ("eed", "eedly", "ed", "edly", "ing", "ingly")
STEP_2 = {
    **{"tional": "tion", "enci": "ence", "anci": "ance", "abli": "able", "entli": "ent", "izer": "ize"},
    **{"ization": "ize", "ational": "ate", "ation": "ate", "ator": "ate", "alism": "al", "aliti": "al", "alli": "al"},
    **{"fulness": "ful", "ousli": "ous", "ousness": "ous", "iveness": "ive", "iviti": "ive", "biliti": "ble"},
    **{"bli": "ble", "ogi": "og", "fulli": "ful", "lessli": "less", "li": ""},
}
STEP_3 = {
    **{"tional": "tion", "ational": "ate", "alize": "al", "icate": "ic", "iciti": "ic", "ical": "ic"},
    **{"ful": "", "ness": "", "ative": ""},
}
STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ism", "ate", "iti", "ous"),
    *("ive", "ize", "ion"),
)
VALID_LI = "cdeghkmnrt"


def stem(word: str) -> str:
    """The stem of a lower-cased word."""
    if len(word) < 3:
        return word
    if word in WHOLE:
        return WHOLE[word]
    word = _mark(word.removeprefix("'"))
    first = REGION.match(word)
    r1 = first.end() if first else len(word)
    second = NEXT_REGION.match(word, r1)
    r2 = second.end() if second else len(word)
    word = _step_1a(word)
    if word in DONE_AFTER_1A:
        return word
    word = _step_1c(_step_1b(word, r1))
    word = _step_3(_step_2(word, r1), r1, r2)
    return _step_5(_step_4(word, r2), r1, r2).replace("Y", "y")


def _mark(word: str) -> str:
    """Write a y that begins the word or follows a vowel as Y: it is a consonant."""
    if "y" not in word:
        return word
    marked = ""
    for letter in word:
        marked += "Y" if letter == "y" and (not marked or marked[-1] in VOWEL) else letter
    return marked


def _ending(word: str, endings: tuple[str, ...]) -> str:
    """The longest of the endings that the word has, or none."""
    if not word.endswith(endings):
        return ""
    return max((ending for ending in endings if word.endswith(ending)), key=len)


def _step_1a(word: str) -> str:
    for ending in ("'s'", "'s", "'"):
        if word.endswith(ending):
            word = word[: -len(ending)]
            break
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and any(letter in VOWEL for letter in word[:-2]):
        return word[:-1]
    return word


def _step_1b(word: str, r1: int) -> str:
    ending = _ending(word, STEP_1B)
    if not ending:
        return word
    rest = word[: -len(ending)]
    if ending in ("eed", "eedly"):
        return rest + "ee" if len(rest) >= r1 else word
    if not any(letter in VOWEL for letter in rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if rest.endswith(DOUBLE):
        return rest[:-1]
    return rest + "e" if r1 >= len(rest) and SHORT.fullmatch(rest) else rest


def _step_1c(word: str) -> str:
    return word[:-1] + "i" if len(word) > 2 and word[-1] in "yY" and word[-2] not in VOWEL else word


def _step_2(word: str, r1: int) -> str:
    ending = _ending(word, tuple(STEP_2))
    rest = word[: len(word) - len(ending)]
    if not ending or len(rest) < r1:
        return word
    if ending == "ogi" and not rest.endswith("l"):
        return word
    if ending == "li" and rest[-1:] not in VALID_LI:
        return word
    return rest + STEP_2[ending]


def _step_3(word: str, r1: int, r2: int) -> str:
    ending = _ending(word, tuple(STEP_3))
    rest = word[: len(word) - len(ending)]
    if not ending or len(rest) < (r2 if ending == "ative" else r1):
        return word
    return rest + STEP_3[ending]


def _step_4(word: str, r2: int) -> str:
    ending = _ending(word, STEP_4)
    rest = word[: len(word) - len(ending)]
    if not ending or len(rest) < r2 or (ending == "ion" and rest[-1:] not in ("s", "t")):
        return word
    return rest


def _step_5(word: str, r1: int, r2: int) -> str:
    rest = word[:-1]
    if word.endswith("e"):
        return rest if len(rest) >= r2 or (len(rest) >= r1 and not SHORT.fullmatch(rest)) else word
    return rest if word.endswith("ll") and len(rest) >= r2 else word
