"""Which phrases of candidates may match phrases of their references: what `kernel` looks up, prepared for all images.

Letters in shapes: I images, R references of all images, E phrases in those, P phrases of the table, G phrases of the
candidates, D distinct ones.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64

from limner.metrics.meteor.records import Sentences, ranges
from limner.metrics.meteor.tables import Tables

Array = np.ndarray


class Index(NamedTuple):
    """The phrases of each image's references, sorted by phrase within the image, then by place."""

    start: Int64[Array, " I+1"]
    phrase: Int64[Array, " E"]
    reference: Int64[Array, " E"]  # counted from the image's first one
    begin: Int64[Array, " E"]
    length: Int64[Array, " E"]


class Relations(NamedTuple):
    """What the paraphrase table says of the candidates' phrases, as far as some reference holds the other side."""

    row: Int64[Array, " G"]  # of each phrase in the candidates' `Sentences`
    paraphrase_start: Int64[Array, " D+1"]
    paraphrase: Int64[Array, " _"]
    paraphrase_rank: Int64[Array, " _"]  # its place in the table's row
    source_start: Int64[Array, " D+1"]
    source: Int64[Array, " _"]
    source_rank: Int64[Array, " _"]


def index(start: Int64[Array, " starts"], reference: Int64[Array, " R"], sentences: Sentences) -> Index:
    """Image i has the references reference[start[i]:start[i+1]], rows of `sentences`."""
    first = sentences.phrase_start[reference]
    count = sentences.phrase_start[reference + 1] - first
    place = ranges(first, count)
    owner = np.repeat(np.arange(len(reference)), count)
    image = np.repeat(np.arange(len(start) - 1), np.diff(start))[owner]
    phrase = sentences.phrase[place]
    order = np.argsort(image * (int(phrase.max(initial=0)) + 1) + phrase, kind="stable")
    place, image, owner = place[order], image[order], owner[order]
    return Index(
        start=np.searchsorted(image, np.arange(len(start))),
        phrase=phrase[order],
        reference=owner - start[image],
        begin=sentences.begin[place],
        length=sentences.length[place],
    )


def relations(phrase: Int64[Array, " G"], held: Bool[Array, " P"], tables: Tables) -> Relations:
    """`held` says which phrases of the table references hold."""
    distinct, row = np.unique(phrase, return_inverse=True)
    start, place, paraphrase, rank = _rows(distinct, tables.paraphrase_start, tables.paraphrase, held)
    rank = place - rank
    source_start, place, source, _ = _rows(distinct, tables.source_start, tables.source, held)
    return Relations(row, start, paraphrase, rank, source_start, source, tables.source_rank[place].astype(np.int64))


def _rows(
    row: Int64[Array, " D"], start: Int[Array, " starts"], value: Int[Array, " N"], held: Bool[Array, " P"]
) -> tuple[Int64[Array, " D+1"], Int64[Array, " M"], Int64[Array, " M"], Int64[Array, " M"]]:
    """The held values of some rows of a table: where each row begins now, and of each value its place in the table, the
    value, and where its row begins in the table."""
    first = start[row].astype(np.int64)
    count = start[row + 1] - first
    place = ranges(first, count)
    owner = np.repeat(np.arange(len(row)), count)
    kept = np.flatnonzero(held[value[place]])
    place, owner = place[kept], owner[kept]
    return np.searchsorted(owner, np.arange(len(row) + 1)), place, value[place].astype(np.int64), first[owner]
