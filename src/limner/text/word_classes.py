"""Nouns and verbs of a caption, found by a few rules for the plain English of captions.

There is no tagger and no model.  The closed word classes are listed.  A verb is a word in -ing, a word after "is" or
"are", or a word in -s that follows a noun in the singular.  A noun is the last word before a preposition, a verb or the
end.  The rules fail on elaborate sentences and on other languages.
"""

ARTICLES = frozenset(
    "a an the this that these those some any every each another other his her its their my your".split()
)
NUMBERS = frozenset("one two three four five six seven eight nine ten several many few multiple both all no".split())
AUXILIARIES = frozenset("is are was were be been being am has have had do does did can could will would may".split())
PREPOSITIONS_AND_PRONOUNS = frozenset(
    """about above across after against along among and around as at away back before behind below beneath beside
    between but by down during for from front he how i if in inside into it next not of off on onto or out outside over
    past she so than then there they through to together too toward towards under until up upon very we what when where
    which while who with without you himself herself itself themselves""".split()
)
NOUNS_IN_ING = frozenset(  # no verbs, although they end in -ing
    """building ceiling clothing evening king morning painting ring sibling something everything anything nothing spring
    string thing wedding wing drawing""".split()
)
NO_THIRD_PERSON_ENDINGS = ("ss", "us", "is", "ous")  # endings in -s of words that are neither a verb nor a plural
ADJECTIVES = frozenset(
    """red green blue yellow black white brown orange purple pink gray grey young old small large big little tall short
    long different colorful wooden two-toned""".split()
)


def nouns_and_verbs(words: list[str]) -> tuple[list[str], list[str]]:
    """The nouns and the verbs among the lower-case words of one caption, in their order, each once.

    >>> nouns_and_verbs("a man is riding a red bike".split())
    (['man', 'bike'], ['riding'])
    >>> nouns_and_verbs("a dog runs".split())
    (['dog'], ['runs'])
    """
    nouns: list[str] = []
    verbs: list[str] = []
    last = ""  # the last word of the noun phrase that is being read
    for before, word in zip(["", *words], words, strict=False):
        gerund = word.endswith("ing") and len(word) > 4 and word not in NOUNS_IN_ING
        closed_class = word in PREPOSITIONS_AND_PRONOUNS | ARTICLES | NUMBERS | AUXILIARIES
        after_auxiliary = before in AUXILIARIES and not gerund and not closed_class
        verb = gerund or _is_third_person(last, word) or after_auxiliary
        if verb:
            verbs.append(word)
        if verb or closed_class:
            nouns += [last] if last else []
            last = ""
        else:
            last = word
    nouns += [last] if last else []
    return list(dict.fromkeys(nouns)), list(dict.fromkeys(verbs))


def _is_third_person(last: str, word: str) -> bool:
    """Whether `word` is a verb in -s whose subject is `last`: "dog runs", but not "red dogs"."""
    verb_ending = word.endswith("s") and not word.endswith(NO_THIRD_PERSON_ENDINGS) and len(word) > 3
    return bool(last) and verb_ending and not last.endswith("s") and last not in ADJECTIVES
