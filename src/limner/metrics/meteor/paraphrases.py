"""Which phrases of candidates can match phrases of their references, prepared for all media at once.

`kernel` looks these arrays up.

Letters in shapes: I media, R references of all media, E phrases in these references, P phrases of METEOR's table,
G phrases in the candidates, D distinct ones among them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64

from limner.metrics.meteor.records import SentenceTable
from limner.metrics.meteor.tables import Tables
from limner.metrics.ngrams import concatenated_ranges

Array = np.ndarray


class PhraseIndex(NamedTuple):
    """The phrases of each medium's references, sorted by phrase within the medium, then by place."""

    start: Int64[Array, " I+1"]  # medium i has the entries start[i] .. start[i+1]
    phrase: Int64[Array, " E"]
    reference: Int64[Array, " E"]  # number of the reference among those of its medium
    begin: Int64[Array, " E"]  # place of the phrase's first word
    length: Int64[Array, " E"]


class ParaphraseRelations(NamedTuple):
    """The entries of METEOR's paraphrase table for the candidates' phrases, if a reference contains the other side.

    An entry of the table leads from a phrase to one of its paraphrases.  The distinct phrase d has the paraphrases
    paraphrase[paraphrase_start[d]:paraphrase_start[d+1]]; the phrases that have d as a paraphrase are
    source[source_start[d]:source_start[d+1]].
    """

    row: Int64[Array, " G"]  # the distinct phrase of each phrase in the candidates' table of sentences
    paraphrase_start: Int64[Array, " D+1"]
    paraphrase: Int64[Array, " _"]
    paraphrase_rank: Int64[Array, " _"]  # its place among all paraphrases of the phrase
    source_start: Int64[Array, " D+1"]
    source: Int64[Array, " _"]
    source_rank: Int64[Array, " _"]  # place of d among all paraphrases of the source


def index_phrases(
    start: Int64[Array, " starts"], reference: Int64[Array, " R"], sentences: SentenceTable
) -> PhraseIndex:
    """The index of references; medium i has the references reference[start[i]:start[i+1]], rows of `sentences`."""
    first = sentences.phrase_start[reference]
    count = sentences.phrase_start[reference + 1] - first
    place = concatenated_ranges(first, count)
    owner = np.repeat(np.arange(len(reference)), count)  # the reference of each phrase
    medium = np.repeat(np.arange(len(start) - 1), np.diff(start))[owner]
    phrase = sentences.phrase[place]
    order = np.argsort(medium * (int(phrase.max(initial=0)) + 1) + phrase, kind="stable")
    place, medium, owner = place[order], medium[order], owner[order]
    return PhraseIndex(
        start=np.searchsorted(medium, np.arange(len(start))),
        phrase=phrase[order],
        reference=owner - start[medium],
        begin=sentences.begin[place],
        length=sentences.length[place],
    )


def find_relations(phrase: Int64[Array, " G"], in_reference: Bool[Array, " P"], tables: Tables) -> ParaphraseRelations:
    """The relations of the candidates' phrases; `in_reference` says which phrases of the table a reference contains."""
    distinct, row = np.unique(phrase, return_inverse=True)
    start, place, paraphrase, first = _select_rows(distinct, tables.paraphrase_start, tables.paraphrase, in_reference)
    source_start, source_place, source, _ = _select_rows(distinct, tables.source_start, tables.source, in_reference)
    source_rank = tables.source_rank[source_place].astype(np.int64)
    return ParaphraseRelations(row, start, paraphrase, place - first, source_start, source, source_rank)


def _select_rows(
    row: Int64[Array, " D"], start: Int[Array, " starts"], value: Int[Array, " N"], keep: Bool[Array, " P"]
) -> tuple[Int64[Array, " D+1"], Int64[Array, " M"], Int64[Array, " M"], Int64[Array, " M"]]:
    """Some rows of a table (row r has the values value[start[r]:start[r+1]]), with the M values to keep only.

    Returns where each selected row begins among the M values; and for each value its place in the table, the value, and
    the place where its row begins in the table.
    """
    first = start[row].astype(np.int64)
    count = start[row + 1] - first
    place = concatenated_ranges(first, count)
    owner = np.repeat(np.arange(len(row)), count)
    kept = np.flatnonzero(keep[value[place]])
    place, owner = place[kept], owner[kept]
    return np.searchsorted(owner, np.arange(len(row) + 1)), place, value[place].astype(np.int64), first[owner]
