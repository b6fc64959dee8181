"""Which words of a caption name things, and which say what happens: rules for the plain English of captions.

No tagger and no model: closed classes are listed, `-ing` and the word after `is` and `are` say what happens, a word in
`-s` does so behind a thing that is not plural, and the last word before a preposition, a verb or the end names a thing.
It is wrong where captions are not plain, and knows no other language.
"""

ARTICLES = frozenset(
    "a an the this that these those some any every each another other his her its their my your".split()
)
NUMBERS = frozenset("one two three four five six seven eight nine ten several many few multiple both all no".split())
AUXILIARIES = frozenset("is are was were be been being am has have had do does did can could will would may".split())
LINKS = frozenset(
    """about above across after against along among and around as at away back before behind below beneath beside
    between but by down during for from front he how i if in inside into it next not of off on onto or out outside over
    past she so than then there they through to together too toward towards under until up upon very we what when where
    which while who with without you himself herself itself themselves""".split()
)
THINGS = frozenset(  # in -ing, and no deed
    """building ceiling clothing evening king morning painting ring sibling something everything anything nothing spring
    string thing wedding wing drawing""".split()
)
PLURAL = ("ss", "us", "is", "ous")  # endings in -s that make no verb and no plural


def nouns_and_verbs(words: list[str]) -> tuple[list[str], list[str]]:
    """Lower-case words of one caption -> its nouns and its verbs, in their order, each once.

    `a man is riding a red bike` gives man, bike and riding; `a dog runs` gives dog and runs.
    """
    nouns: list[str] = []
    verbs: list[str] = []
    last = ""  # the last word of a phrase that has not ended yet
    for before, word in zip(["", *words], words, strict=False):
        deed = word.endswith("ing") and len(word) > 4 and word not in THINGS
        after = before in AUXILIARIES and not deed and word not in LINKS | ARTICLES | NUMBERS | AUXILIARIES
        said = _third(last, word)
        if deed or said or after:
            verbs.append(word)
        if deed or said or after or word in LINKS | ARTICLES | NUMBERS | AUXILIARIES:
            nouns += [last] if last else []
            last = ""
        else:
            last = word
    nouns += [last] if last else []
    return list(dict.fromkeys(nouns)), list(dict.fromkeys(verbs))


def _third(last: str, word: str) -> bool:
    """Is `word` what one thing, `last`, does?  `dog runs`, but not `red dogs` with nothing done by red."""
    ends = word.endswith("s") and not word.endswith(PLURAL) and len(word) > 3
    return bool(last) and ends and not last.endswith("s") and last not in COLOURS


COLOURS = frozenset(
    """red green blue yellow black white brown orange purple pink gray grey young old small large big little tall short
    long different colorful wooden two-toned""".split()
)
