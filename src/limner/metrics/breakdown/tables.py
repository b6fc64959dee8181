"""A caption's breakdown as tables of text: the same for the terminal and for HTML.

for table in breakdown_tables(found):       # "BLEU-1: ...", its columns, its rows
    print(table.title, table.rows)
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from limner.metrics.breakdown.bleu import BleuBreakdown, Ngram
from limner.metrics.breakdown.caption import CaptionBreakdown
from limner.metrics.breakdown.cider import CiderBreakdown, CiderReference
from limner.metrics.breakdown.meteor import MeteorBreakdown, MeteorReference
from limner.metrics.breakdown.rouge import RougeBreakdown

SHOWN = 400  # rows of a table; a caption has few, but nobody limits its length


class BreakdownTable(NamedTuple):
    """One step of a metric.  `lines` are sentences with the arithmetic, below the rows."""

    metric: str  # BLEU, METEOR, ROUGE-L or CIDEr
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...] = ()

    def is_text(self, place: int) -> bool:
        """Whether a column holds words and not numbers."""
        return place == 0 or not self.rows[0][place][:1].isdigit()


def breakdown_tables(found: CaptionBreakdown) -> list[BreakdownTable]:
    """All tables of a caption, metric by metric."""
    tables = [*_bleu(found.bleu)]
    if found.meteor is not None:
        tables += _meteor(found.meteor)
    return [_shortened(table) for table in (*tables, *_rouge(found.rouge), *_cider(found.cider))]


def number(value: float) -> str:
    """A number with four digits behind the point, or more where it would be 0.

    >>> number(0.25), number(2.0), number(1e-6)
    ('0.2500', '2.0000', '1e-06')
    """
    return f"{value:.4f}" if value == 0 or abs(value) >= 5e-5 else f"{value:.0e}"


def _text(ngram: Ngram) -> str:
    return " ".join(ngram)


def _shortened(table: BreakdownTable) -> BreakdownTable:
    if len(table.rows) <= SHOWN:
        return table
    more = f"and {len(table.rows) - SHOWN} further rows"
    return table._replace(rows=table.rows[:SHOWN], lines=(*table.lines, more))


def _bleu(bleu: BleuBreakdown) -> Iterator[BreakdownTable]:
    for order in bleu.orders:
        rows = [(_text(it.ngram), str(it.count), str(it.reference), str(it.clipped)) for it in order.matches]
        ratio = f"precision = {order.correct} / {order.total} = {number(order.precision)}"
        title = f"{order.n}-grams of the caption: {order.correct} of {order.total} match"
        columns = (f"{order.n}-gram", "in the caption", "most in one reference", "clipped count")
        yield BreakdownTable("BLEU", title, columns, tuple(rows), (ratio,))
    lengths = ", ".join(map(str, bleu.reference_lengths))
    if bleu.length >= bleu.closest and bleu.length:
        penalty = "not shorter than it, so the brevity penalty is 1"
    else:
        formula = f"exp(1 - {bleu.closest} / {bleu.length}) = " if bleu.length else ""
        penalty = f"shorter than it: brevity penalty = {formula}{number(bleu.brevity_penalty)}"
    length = f"the caption has {bleu.length} words, the references {lengths}; the closest is {bleu.closest}: {penalty}"
    scores = []
    for order in bleu.orders:
        product = " x ".join(number(it.precision) for it in bleu.orders[: order.n])
        root = product if order.n == 1 else f"({product})^(1/{order.n})"
        scores.append((f"BLEU-{order.n}", f"{root} x {number(bleu.brevity_penalty)}", number(order.score)))
    yield BreakdownTable("BLEU", "Mean of the precisions, times the brevity penalty", ("", "", "score"), tuple(scores),
                         (length,))  # fmt: skip


def _rouge(rouge: RougeBreakdown) -> Iterator[BreakdownTable]:
    rows = []
    for i, it in enumerate(rouge.references, 1):
        common = " ".join(it.words[place] for _, place in it.pairs)
        lengths = f"{len(it.pairs)} / {len(rouge.words)}", f"{len(it.pairs)} / {len(it.words)}"
        rows.append((str(i), _text(it.words), common, *lengths))
    lines = (
        f"best precision P = {number(rouge.precision)}, best recall R = {number(rouge.recall)}",
        f"score = (1 + 1.2^2) P R / (R + 1.2^2 P) = {number(rouge.score)}",
    )
    columns = ("", "reference", "longest common subsequence", "precision", "recall")
    yield BreakdownTable("ROUGE-L", "Longest common subsequence with each reference", columns, tuple(rows), lines)


def _meteor(meteor: MeteorBreakdown) -> Iterator[BreakdownTable]:
    for i, it in enumerate(meteor.references):
        rows = [
            (_text(pair.words), _text(pair.reference_words), pair.stage, f"{pair.weight:.1f}", str(pair.chunk + 1))
            for pair in it.pairs
        ]
        best = ", the best" if i == meteor.best else ""
        title = f"Alignment with reference {i + 1}{best}: {_text(it.words)}"
        columns = ("caption", "reference", "stage", "weight", "chunk")
        yield BreakdownTable("METEOR", title, columns, tuple(rows), _meteor_lines(it))
    if meteor.function_words:
        words = ", ".join(meteor.function_words)
        yield BreakdownTable("METEOR", f"Function words of the caption, which weigh 0.25 and others 0.75: {words}", (),
                             ())  # fmt: skip


def _meteor_lines(it: MeteorReference) -> tuple[str, ...]:
    if not it.pairs or it.score == 0:
        return (f"nothing matches: score = {number(it.score)}",)
    p, r, mean = number(it.precision), number(it.recall), number(it.mean)
    return (
        f"weighted precision P = {p}, recall R = {r}; mean = 1 / (0.15 / P + 0.85 / R) = {mean}",
        f"{it.chunks} chunk{'s' if it.chunks != 1 else ''}, fragmentation = {number(it.fragmentation)}; "
        f"penalty = 0.6 x fragmentation^0.2 = {number(it.penalty)}",
        f"score = {mean} x (1 - {number(it.penalty)}) = {number(it.score)}",
    )


def _cider(cider: CiderBreakdown) -> Iterator[BreakdownTable]:
    weights = [(_text(it.ngram), str(it.count), f"{it.media} of {cider.media}", number(it.idf)) for it in cider.weights]
    title = f"idf = log({cider.media} / media whose references have the n-gram)"
    yield BreakdownTable("CIDEr", title, ("n-gram", "in the caption", "media", "idf"), tuple(weights))
    for i, it in enumerate(cider.references, 1):
        rows = [
            (_text(match.ngram), str(match.count), str(match.reference), number(match.idf), number(match.product))
            for cosine in it.cosines
            for match in cosine.shared
        ]
        columns = ("shared n-gram", "caption", "reference", "idf", "min x reference x idf^2")
        title = f"Shared with reference {i}: {_text(it.words)}"
        yield BreakdownTable("CIDEr", title, columns, tuple(rows), _cider_lines(it))
    values = " + ".join(number(it.value) for it in cider.references)
    yield BreakdownTable("CIDEr", f"score = 10 x ({values}) / {len(cider.references)} = {number(cider.score)}", (), ())


def _cider_lines(it: CiderReference) -> tuple[str, ...]:
    cosines = [
        f"n = {c.n}: cosine = {number(c.dot)} / ({number(c.norm)} x {number(c.reference_norm)}) = {number(c.cosine)}"
        for c in it.cosines
    ]
    penalty = f"exp(-({it.difference})^2 / 72) = {number(it.length_penalty)}"
    return (*cosines, f"mean of the four x length penalty {penalty}: {number(it.value)}")


def by_metric(tables: Sequence[BreakdownTable]) -> dict[str, list[BreakdownTable]]:
    """The tables of each metric, in their order."""
    found: dict[str, list[BreakdownTable]] = {}
    for table in tables:
        found.setdefault(table.metric, []).append(table)
    return found
