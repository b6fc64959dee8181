"""All scores of one caption, broken down: what `limner score --why` prints and the page of `limner explain` shows."""

import difflib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from limner.data.pairing import normalise_id
from limner.metrics.breakdown.bleu import BleuBreakdown, break_down_bleu
from limner.metrics.breakdown.cider import CiderBreakdown, break_down_cider
from limner.metrics.breakdown.meteor import MeteorBreakdown, break_down_meteor
from limner.metrics.breakdown.rouge import RougeBreakdown, break_down_rouge
from limner.metrics.meteor import MissingTablesError
from limner.metrics.references import References
from limner.text.tokens import get_tokenizer


@dataclass(frozen=True)
class CaptionBreakdown:
    """How the scores of one caption come about; scores are fractions, as `limner.metrics` gives them.

    text, references  the caption and its references, as given
    tokens            the caption as BLEU, ROUGE-L and CIDEr see it
    meteor            None where METEOR cannot be computed here; a note says why
    notes             what a reader of the numbers should know, one line each
    """

    id: str
    text: str
    references: tuple[str, ...]
    tokens: tuple[str, ...]
    bleu: BleuBreakdown
    meteor: MeteorBreakdown | None
    rouge: RougeBreakdown
    cider: CiderBreakdown
    notes: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float]:
        """The scores by the names of `limner.metrics.report.METRICS`."""
        scores = {f"BLEU-{order.n}": order.score for order in self.bleu.orders}
        if self.meteor is not None:
            scores["METEOR"] = self.meteor.score
        return scores | {"ROUGE-L": self.rouge.score, "CIDEr": self.cider.score}

    def to_json(self) -> dict[str, Any]:
        """All numbers as values of JSON."""
        return {"id": self.id, "caption": self.text, "scores": self.scores} | {
            name: value for name, value in asdict(self).items() if name not in ("id", "text")
        }


def break_down(references: References, id: str, caption: str) -> CaptionBreakdown:
    """Break down the scores of a caption of the medium `id`, one of `references`, which give the idf weights too.

    The BLEU is that of the single caption.  Raises ValueError for an unknown id.

    >>> references = References({"7": ["a cat sat"], "8": ["a dog"]}, "split")
    >>> found = break_down(references, "7", "a cat")
    >>> found.rouge.precision, found.rouge.recall == 2 / 3, found.cider.weights[0].idf
    (1.0, True, 0.0)
    """
    if id not in references.ids:
        raise ValueError(unknown_id(id, references.ids))
    row = references.ids.index(id)
    (line,) = get_tokenizer(references.tokenizer)([caption])
    theirs = references.tokenized[row]
    words, own = line.split(), [reference.split() for reference in theirs]
    notes: list[str] = []
    meteor = None
    try:
        meteor = break_down_meteor(line, theirs)
    except MissingTablesError as error:
        notes.append(f"METEOR is not shown: {error}")
    if len(references.ids) == 1:
        notes.append("every idf is log(1 / 1) = 0 with the references of a single medium, and so is CIDEr")
    bleu = break_down_bleu(words, own)
    if not bleu.orders[-1].correct:
        added = "coco-caption adds 1e-15 to the matches and 1e-9 to the n-grams"
        notes.append(f"BLEU of an order without a match is not 0: {added}")
    return CaptionBreakdown(
        id=id,
        text=caption,
        references=references.texts[row],
        tokens=tuple(words),
        bleu=bleu,
        meteor=meteor,
        rouge=break_down_rouge(line.split(" "), [reference.split(" ") for reference in theirs]),
        cider=break_down_cider(words, own, references),
        notes=tuple(notes),
    )


def find_id(id: str, ids: Collection[str]) -> str:
    """The one of `ids` that a user means: equal, or without folder, file type, COCO's prefix and leading zeros.

    Raises ValueError, which lists near ones, when there is none.

    >>> find_id("COCO_val2014_000000000042.jpg", ["7", "42"])
    '42'
    """
    if id in ids:
        return id
    alike = [each for each in ids if normalise_id(each) == normalise_id(id)]
    if len(alike) != 1:
        raise ValueError(unknown_id(id, ids))
    return alike[0]


def unknown_id(id: str, ids: Collection[str]) -> str:
    """The message for an id that does not exist, with the nearest ones.

    >>> unknown_id("dog1", ["dog.1", "cat"])
    "there is no caption with the id 'dog1'; near ones are 'dog.1'"
    """
    near = difflib.get_close_matches(id, list(ids)[:100_000], n=5, cutoff=0.5)
    if near:
        return f"there is no caption with the id {id!r}; near ones are {', '.join(map(repr, near))}"
    some = ", ".join(map(repr, list(ids)[:5])) + (", ..." if len(ids) > 5 else "")
    return f"there is no caption with the id {id!r}; the {len(ids)} ids are {some}"
