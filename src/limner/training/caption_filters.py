"""Filters for a teacher's captions: which of them a student should not learn from, and why.

A caption gets the first reason that fits, in the order of `REASONS`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from limner.metrics.consensus import agreement
from limner.text.language import other_language
from limner.text.refusals import is_refusal
from limner.text.scripts import foreign_script
from limner.text.tokens import get_tokenizer

REASONS = {
    "empty": "has no letter and no digit",
    "refusal": "refuses to describe the picture, or says that it sees none",
    "short": "fewer words than --min-words",
    "long": "more words than --max-words",
    "cut off": "ends at the limit of tokens, in the middle of a sentence",
    "repeats": "says a word three times in a row, or a phrase twice in a row",
    "language": "is written in another language than --language",
    "duplicate": "the same caption was drawn for the same image before",
    "agreement": "agrees less than --min-agreement with the teacher's other captions of the image",
    "CLIPScore": "fits the image less than --min-clip-score",
}
LONGEST_PHRASE = 12  # words of a phrase that is looked for twice in a row


@dataclass(frozen=True)
class TeacherCaption:
    """One caption of a teacher; `logprob` is None where the teacher tells none."""

    text: str
    logprob: float | None = None
    finished: bool = True


@dataclass(frozen=True)
class RejectedCaption:
    """A caption that was filtered out: the id of its image, the reason (of `REASONS`) and what was measured."""

    id: str
    caption: TeacherCaption
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class CaptionFilters:
    """The bounds of the filters.

    language        code of `limner.text.language`; "": any language of the script
    letters         letters of the expected script; "": any script
    min_agreement   of `limner.metrics.consensus.agreement`, 0 to 1; 0: not tested
    min_clip_score  of CLIPScore, 0 to 2.5
    """

    min_words: int = 2
    max_words: int = 30
    language: str = "en"
    letters: str = "a"
    min_agreement: float = 0.0
    min_clip_score: float = 0.0


@dataclass
class FilteredCaptions:
    """The captions that are left, by image, and those that were rejected."""

    kept: dict[str, list[TeacherCaption]] = field(default_factory=dict)
    rejected: list[RejectedCaption] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of captions that are left."""
        return sum(map(len, self.kept.values()))

    def reasons(self) -> dict[str, int]:
        """How many captions were rejected for each reason, in the order of `REASONS`."""
        counts = Counter(rejected.reason for rejected in self.rejected)
        return {reason: counts[reason] for reason in REASONS if counts[reason]}


# captions by image -> the CLIPScores of each
ClipScorer = Callable[[Mapping[str, Sequence[str]]], Mapping[str, Sequence[float]]]


def filter_captions(
    captions: Mapping[str, Sequence[TeacherCaption]],
    filters: CaptionFilters,
    tokenizer: str = "ptb",
    clip_scores: ClipScorer | None = None,
) -> FilteredCaptions:
    """Sort a teacher's captions of each image into those that a student learns from, and rejected ones.

    `tokenizer` splits captions into words.  `clip_scores` is only asked about captions that pass all other filters.

    >>> told = {"1": [TeacherCaption("a dog runs"), TeacherCaption("I cannot see any image.")]}
    >>> filter_captions(told, CaptionFilters()).reasons()
    {'refusal': 1}
    """
    result = FilteredCaptions()
    flat = [(id, caption) for id, several in captions.items() for caption in several]
    lines = get_tokenizer(tokenizer)([caption.text for _, caption in flat]) if flat else []
    words: dict[str, list[list[str]]] = {}
    for (id, caption), line in zip(flat, lines, strict=True):
        tokens = line.split()
        found = rejection(caption, tokens, filters)
        if not found and tokens in words.get(id, []):
            found = ("duplicate", "")
        if found:
            result.rejected.append(RejectedCaption(id, caption, *found))
        else:
            result.kept.setdefault(id, []).append(caption)
            words.setdefault(id, []).append(tokens)
    if filters.min_agreement:
        _drop_below(result, "agreement", filters.min_agreement, {id: agreement(own) for id, own in words.items()})
    if clip_scores is not None and result.kept:
        texts = {id: [caption.text for caption in own] for id, own in result.kept.items()}
        _drop_below(result, "CLIPScore", filters.min_clip_score, clip_scores(texts))
    return result


def rejection(caption: TeacherCaption, words: Sequence[str], filters: CaptionFilters) -> tuple[str, str] | None:
    """The reason against a caption by itself, and what was found; None for a good one.  `words` are its tokens.

    >>> rejection(TeacherCaption("a dog and and and a cat"), "a dog and and and a cat".split(), CaptionFilters())
    ('repeats', 'and')
    """
    return next(_reasons(caption, words, filters), None)


def _reasons(caption: TeacherCaption, words: Sequence[str], filters: CaptionFilters) -> Iterator[tuple[str, str]]:
    """The reasons against a caption, in the order of `REASONS`; later tests are only made when earlier ones pass."""
    text = caption.text
    if not any(char.isalnum() for char in text):
        yield "empty", ""
    if is_refusal(text):
        yield "refusal", ""
    if len(words) < filters.min_words:
        yield "short", f"{len(words)} words"
    if len(words) > filters.max_words:
        yield "long", f"{len(words):,} words"
    if not caption.finished:
        yield "cut off", ""
    if phrase := repeated_phrase(words):
        yield "repeats", phrase
    if filters.letters and (script := foreign_script(text, filters.letters)):
        yield "language", script
    if filters.language and (language := other_language(text, filters.language)):
        yield "language", language


def repeated_phrase(words: Sequence[str]) -> str:
    """The first word that stands three times in a row, or phrase of several words that stands twice in a row; or "".

    >>> repeated_phrase("a man in a boat in a boat".split()), repeated_phrase("a red circle above a red square".split())
    ('in a boat', '')
    """
    for start in range(len(words)):
        if len(set(words[start : start + 3])) == 1 and start + 3 <= len(words):
            return words[start]
        for length in range(2, min(LONGEST_PHRASE, (len(words) - start) // 2) + 1):
            phrase = words[start : start + length]
            if phrase == words[start + length : start + 2 * length] and len(set(phrase)) > 1:
                return " ".join(phrase)
    return ""


def _drop_below(
    result: FilteredCaptions, reason: str, least: float, values: Mapping[str, Sequence[float | None]]
) -> None:
    """Reject the kept captions whose value is below `least`; a value of None is not known, and no reason."""
    for id, own in list(result.kept.items()):
        low = [value is not None and value < least for value in values[id]]
        for caption, value, is_low in zip(own, values[id], low, strict=True):
            if is_low:
                result.rejected.append(RejectedCaption(id, caption, reason, f"{value:.3f}"))
        result.kept[id] = [caption for caption, is_low in zip(own, low, strict=True) if not is_low]
        if not result.kept[id]:
            del result.kept[id]
