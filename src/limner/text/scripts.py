"""Writing systems without blanks between words: Chinese, Japanese, Thai, Khmer and others.

A tokenizer that splits at blanks takes a whole Chinese sentence for one word.  Then no n-gram of two captions is equal,
and BLEU is 0.  This module splits such text into characters, joins characters to text again, and notices captions that
need it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from limner.text import ptb

# Code points of the scripts, as the inside of [...]
CHINESE_JAPANESE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u30fa\u30fc-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U000323af"
)
SOUTH_EAST_ASIAN = (  # Thai, Lao, Tibetan, Burmese, Khmer, New Tai Lue, Tai Tham, Balinese, Javanese, Tai Viet
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0edf\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff"
    "\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
)
SCRIPTS_WITHOUT_BLANKS = CHINESE_JAPANESE + SOUTH_EAST_ASIAN
WIDE_SIGNS = "\u3000-\u303f\u30fb\uff01-\uff65"  # punctuation that brings its own space
CHARACTER_TOKENIZERS = ("characters", "script-runs")  # what a user is told to choose

_INVISIBLE = re.compile("[\0-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff]")  # \u200b: a break
# A run of more characters than this, on average, is no single word.  Words of Chinese mostly have one to three.
_LONGEST_WORDS = {CHINESE_JAPANESE: 3.5, SOUTH_EAST_ASIAN: 8.0}


@cache
def _marks() -> str:
    """All combining marks, joiners and halfwidth sound marks: they belong to the character before them."""
    codes = (*range(0x300, 0x10000), *range(0xE0100, 0xE01F0))
    return (
        "".join(chr(code) for code in codes if unicodedata.category(chr(code))[0] == "M") + "\u200c\u200d\uff9e\uff9f"
    )


@cache
def _character() -> re.Pattern[str]:
    return re.compile(rf"\S[{_marks()}]*")


@cache
def _script_character() -> re.Pattern[str]:
    return re.compile(f"[{SCRIPTS_WITHOUT_BLANKS}][{_marks()}]*")


def _clean(text: str) -> str:
    """The text in Unicode's NFC form; control characters and zero-width blanks become blanks."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub(" ", text))


def characters(text: str) -> list[str]:
    """Every visible character of a text, lower-cased and in NFC form; an accent or vowel sign stays with its letter.

    Punctuation stays.  For Chinese these are the tokens of a text whose characters are separated by blanks.

    >>> characters("一只 T恤。")
    ['一', '只', 't', '恤', '。']
    """
    return _character().findall(_clean(_clean(text).lower()))


def script_runs(captions: Sequence[str]) -> list[str]:
    """A line per caption: single characters of scripts without blanks, and PTB tokens of all other text.

    >>> script_runs(["一只dog在2014年奔跑", "It isn't."])
    ['一 只 dog 在 2014 年 奔 跑', "it is n't"]
    """
    pattern = _script_character()
    runs: list[list[str]] = []  # per caption: other text, character, other text, character, ..., other text
    for caption in captions:
        text = _clean(caption)
        others, inside = pattern.split(text), pattern.findall(text)
        runs.append([part for pair in zip(others, [*inside, ""], strict=True) for part in pair])
    lines = iter(ptb.tokenize([text for run in runs for text in run[::2]], isolated=True))
    joined = []
    for run in runs:
        run[::2] = [next(lines) for _ in run[::2]]
        joined.append(" ".join(filter(None, run)))
    return joined


def join_characters(words: Iterable[str], tokenizer: str) -> str:
    """The text of tokens: joined by blanks, but by nothing where the script has no blanks.

    >>> join_characters(["一", "只", "dog", "runs"], "script-runs")
    '一只dog runs'
    >>> join_characters(["a", "dog"], "ptb")
    'a dog'
    """
    if tokenizer not in CHARACTER_TOKENIZERS:
        return " ".join(words)
    joined = ""
    for word in words:
        alone = tokenizer == "characters" or _needs_no_blank(joined.rstrip(_marks())[-1:] + word[:1])
        joined += word if alone and word[:1] not in _marks() else f" {word}"  # a mark would join the letter before it
    return joined.lstrip()


def _needs_no_blank(neighbours: str) -> bool:
    """Whether one of two characters is of a script without blanks, or a wide sign."""
    return re.search(f"[{SCRIPTS_WITHOUT_BLANKS}{WIDE_SIGNS}]", neighbours) is not None


# --- What a user should know about the captions -----------------------------------------------------------------------


def caption_notes(captions: Iterable[str], tokenizer: str, option: str = "--tokenizer") -> list[str]:
    """Notes on captions that this tokenizer does not split into words as their writers meant it.

    There is one when at least a tenth of the captions have no blanks between words, and one when some captions are in
    Unicode's decomposed form (NFD) and others in the composed form (NFC).  `option` chooses the tokenizer.

    >>> caption_notes(["一只黑狗在草地上奔跑"], "ptb")[0][:75]
    "1 of 1 captions have no blanks between words, for example '一只黑狗在草地上奔跑': the"
    >>> caption_notes(["一 只 黑 狗 在 草 地 上", "a black dog"], "ptb"), caption_notes(["一只黑狗"], "characters")
    ([], [])
    """
    if tokenizer in CHARACTER_TOKENIZERS:
        return []
    texts = list(captions)
    others = [text for text in texts if not text.isascii()]
    notes = []
    whole = [text for text in others if has_no_blanks(text)]
    if 10 * len(whole) >= max(1, len(texts)):
        example = whole[0] if len(whole[0]) <= 40 else f"{whole[0][:40]}..."
        notes.append(
            f"{len(whole)} of {len(texts)} captions have no blanks between words, for example {example!r}: the "
            f"tokenizer '{tokenizer}' takes each run of them for one word; {option} characters makes every character a "
            f"token, {option} script-runs does so for such scripts only and keeps the words of others"
        )
    decomposed = [text for text in others if not unicodedata.is_normalized("NFC", text)]
    composed = any(text != unicodedata.normalize("NFD", text) for text in others) if decomposed else False
    if decomposed and composed and tokenizer != "simple":
        notes.append(
            f"{len(decomposed)} of {len(texts)} captions are in Unicode's decomposed form (NFD) and others in the "
            f"composed form (NFC), for example {decomposed[0][:40]!r}: the tokenizer '{tokenizer}' takes their words "
            f"for different ones; normalise the files to NFC (Python: unicodedata.normalize), or give {option} simple, "
            "which does so"
        )
    return notes


def has_no_blanks(caption: str) -> bool:
    """Whether words of a caption follow one another without a blank, as in Chinese, Japanese or Thai.

    >>> has_no_blanks("一只黑狗在草地上奔跑"), has_no_blanks("一 只 黑狗 在 草地 上"), has_no_blanks("a 黑狗")
    (True, False, False)
    """
    for script, longest in _LONGEST_WORDS.items():
        runs = re.findall(f"[{script}{_marks()}]+", caption)
        runs = [run for run in runs if re.search(f"[{script}]", run)]
        if sum(len(_character().findall(run)) for run in runs) > longest * len(runs):
            return True
    return False


def foreign_script(text: str, reference: str) -> str:
    """The script of most letters of a text, by the names of Unicode, when `reference` has no letter of it; or "".

    >>> foreign_script("Собака бежит.", "Describe this image."), foreign_script("a dog", "Describe this image.")
    ('Cyrillic', '')
    """
    scripts = _scripts(text)
    if not scripts or not (known := _scripts(reference)):
        return ""
    script, count = scripts.most_common(1)[0]
    return script.title() if 2 * count > scripts.total() and script not in known else ""


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script a text has: the first word of their names, LATIN, CYRILLIC, CJK ..."""
    return Counter(unicodedata.name(char, "?").partition(" ")[0] for char in text if char.isalpha())
