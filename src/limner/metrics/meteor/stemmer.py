"""Porter2, the Snowball stemmer for English, in the version that METEOR 1.5 uses (the same until Snowball 2.2).

M. Porter, "The English (Porter2) stemming algorithm", snowballstem.org; the steps keep their published names.  Later
versions differ on words like "added" and "biologist".

Most steps remove or replace an ending only if it lies in a certain region of the word:

    R1  begins after the first consonant that follows a vowel
    R2  begins after the first consonant that follows a vowel in R1

    word           R1           R2
    beautiful      iful         ul
    nationally     ionally      ally

"nationally" goes through the steps as follows.  Step 1c: nationalli (y becomes i).  Step 2: national ("alli" lies in R1
and becomes "al").  Step 3: no change ("ational" begins before R1).  Step 4: nation ("al" lies in R2 and is removed).
"""

import re

IRREGULAR = {  # the stems of words that the steps would treat wrongly; the words of the last row stay as they are
    **{"skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl"},
    **{"ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl"},
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}
UNCHANGED_AFTER_1A = frozenset(("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"))
VOWEL = "aeiouy"  # y as a consonant is written Y
# The text up to R1, and from there up to R2.  After three prefixes R1 begins right away.
REGION = re.compile(r"(?:gener|commun|arsen)|.*?[aeiouy][^aeiouy]", re.DOTALL)
NEXT_REGION = re.compile(r".*?[aeiouy][^aeiouy]", re.DOTALL)
# A word that ends in a short syllable: "bed", "shred", "at"
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
LETTERS_BEFORE_LI = "cdeghkmnrt"


def stem(word: str) -> str:
    """The stem of a lower-case word.

    >>> [stem(word) for word in ("running", "runs", "ponies", "nationally", "hopefulness", "dying")]
    ['run', 'run', 'poni', 'nation', 'hope', 'die']
    """
    if len(word) < 3:
        return word
    if word in IRREGULAR:
        return IRREGULAR[word]
    word = _mark_consonant_y(word.removeprefix("'"))
    first = REGION.match(word)
    r1 = first.end() if first else len(word)
    second = NEXT_REGION.match(word, r1)
    r2 = second.end() if second else len(word)
    word = _step_1a(word)
    if word in UNCHANGED_AFTER_1A:
        return word
    word = _step_1c(_step_1b(word, r1))
    word = _step_3(_step_2(word, r1), r1, r2)
    return _step_5(_step_4(word, r2), r1, r2).replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    """The word with Y for every y that is a consonant: at the beginning, and after a vowel.

    >>> _mark_consonant_y("yellow"), _mark_consonant_y("boy"), _mark_consonant_y("by")
    ('Yellow', 'boY', 'by')
    """
    if "y" not in word:
        return word
    marked = ""
    for letter in word:
        marked += "Y" if letter == "y" and (not marked or marked[-1] in VOWEL) else letter
    return marked


def _longest_ending(word: str, endings: tuple[str, ...]) -> str:
    """The longest of the endings that the word has, or an empty string."""
    if not word.endswith(endings):
        return ""
    return max((ending for ending in endings if word.endswith(ending)), key=len)


def _step_1a(word: str) -> str:
    """Remove 's, and the s of a plural: "dog's" -> dog, "ponies" -> poni, "gaps" -> gap; "gas" stays."""
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
    """Remove -ed and -ing after a vowel: "hopping" -> hop, "hoped" -> hope, "luxuriated" -> luxuriate."""
    ending = _longest_ending(word, STEP_1B)
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
    """Replace a final y after a consonant by i: "cry" -> cri; "by" and "say" stay."""
    return word[:-1] + "i" if len(word) > 2 and word[-1] in "yY" and word[-2] not in VOWEL else word


def _step_2(word: str, r1: int) -> str:
    """Replace an ending of STEP_2 that lies in R1: "nationalli" -> national."""
    ending = _longest_ending(word, tuple(STEP_2))
    rest = word[: len(word) - len(ending)]
    if not ending or len(rest) < r1:
        return word
    if ending == "ogi" and not rest.endswith("l"):
        return word
    if ending == "li" and rest[-1:] not in LETTERS_BEFORE_LI:
        return word
    return rest + STEP_2[ending]


def _step_3(word: str, r1: int, r2: int) -> str:
    """Replace an ending of STEP_3 that lies in R1 (-ative: in R2): "hopeful" -> hope."""
    ending = _longest_ending(word, tuple(STEP_3))
    rest = word[: len(word) - len(ending)]
    if not ending or len(rest) < (r2 if ending == "ative" else r1):
        return word
    return rest + STEP_3[ending]


def _step_4(word: str, r2: int) -> str:
    """Remove an ending of STEP_4 that lies in R2: "national" -> nation."""
    ending = _longest_ending(word, STEP_4)
    rest = word[: len(word) - len(ending)]
    if not ending or len(rest) < r2 or (ending == "ion" and rest[-1:] not in ("s", "t")):
        return word
    return rest


def _step_5(word: str, r1: int, r2: int) -> str:
    """Remove a final e, or one l of a final ll, in R2; in R1 an e that follows no short syllable."""
    rest = word[:-1]
    if word.endswith("e"):
        return rest if len(rest) >= r2 or (len(rest) >= r1 and not SHORT.fullmatch(rest)) else word
    return rest if word.endswith("ll") and len(rest) >= r2 else word
