"""METEOR's matches on arrays, compiled with numba: every medium's candidate against all of its references.

The plain Python version is in `matches`; a test checks that both agree.

Letters in shapes: I media.
"""

from typing import Any, NamedTuple

import numpy as np

from limner.metrics.meteor import statistics
from limner.metrics.meteor.compiled import compile_cached, compile_inner, source_checksum
from limner.metrics.meteor.matches import EXACT, STEM, SYNONYM
from limner.metrics.meteor.paraphrases import ParaphraseRelations, PhraseIndex
from limner.metrics.meteor.records import SentenceTable, WordTable
from limner.metrics.meteor.search import (
    HYP_LENGTH,
    HYP_START,
    KEY,
    REF_LENGTH,
    REF_WORD,
    SentencePair,
    allocate_buffers,
    count_pair,
)
from limner.metrics.meteor.statistics import COUNTS

Array = np.ndarray
score_from_counts = compile_inner(statistics.score_from_counts)


class MediumRows(NamedTuple):
    """The rows of each medium's sentences in their tables.

    candidate  (I,) row in the candidates' `SentenceTable`
    start      (I+1,) medium i has the references reference[start[i]:start[i+1]]
    reference  rows in the references' `SentenceTable`
    """

    candidate: Array
    start: Array
    reference: Array


@compile_inner
def best_counts_per_medium(
    media: MediumRows,
    candidates: SentenceTable,
    references: SentenceTable,
    words: WordTable,
    index: PhraseIndex,
    relations: ParaphraseRelations,
) -> Array:
    """(I, 23) the counts of each candidate with the reference that gives the best score, the first of equals."""
    result = np.zeros((len(media.candidate), COUNTS), dtype=np.int64)
    local_id = np.full(len(words.key), -1, dtype=np.int64)  # numbers the words in the references of one medium
    for i in range(len(media.candidate)):
        sentence, rows = media.candidate[i], media.reference[media.start[i] : media.start[i + 1]]
        hypothesis = candidates.word[candidates.start[sentence] : candidates.start[sentence + 1]]
        column, distinct = number_words(hypothesis, local_id)
        module_bits = relation_bits(distinct, rows, references, words, local_id)
        paraphrases = find_paraphrases(i, sentence, rows, candidates, references, index, relations)
        longest = 0
        for row in rows:
            longest = max(longest, references.start[row + 1] - references.start[row])
        buffers = allocate_buffers(len(hypothesis), longest, len(paraphrases))
        best, before, first = -1.0, 0, 0
        for row in rows:
            reference = references.word[references.start[row] : references.start[row + 1]]
            last = first
            while last < len(paraphrases) and paraphrases[last, REF_WORD] < before + len(reference):
                last += 1
            pair = SentencePair(
                hypothesis, reference, column, gather(local_id, reference), module_bits, paraphrases[first:last], before
            )
            counts = count_pair(pair, words, buffers)
            score = score_from_counts(counts)
            if score > best:
                best = score
                for k in range(COUNTS):
                    result[i, k] = counts[k]
            before += len(reference)
            first = last
        for row in rows:
            clear(local_id, references.word[references.start[row] : references.start[row + 1]])
    return result


@compile_inner
def gather(local_id: Array, words: Array) -> Array:
    """The local number of each word."""
    ids = np.empty_like(words)
    for i in range(len(words)):
        ids[i] = local_id[words[i]]
    return ids


@compile_inner
def clear(local_id: Array, words: Array) -> None:
    """Set the local numbers of these words to -1, so that the array can be used again."""
    for i in range(len(words)):
        local_id[words[i]] = -1


@compile_inner
def number_words(sentence: Array, local_id: Array) -> tuple[Array, Array]:
    """For each word its place among the sentence's distinct words, and these words.

    `local_id` is memory that is -1 everywhere before and after the call.
    """
    place, distinct = np.empty_like(sentence), np.empty_like(sentence)
    count = 0
    for i in range(len(sentence)):
        word = sentence[i]
        if local_id[word] < 0:
            local_id[word] = count
            distinct[count] = word
            count += 1
        place[i] = local_id[word]
    clear(local_id, distinct[:count])
    return place, distinct[:count]


@compile_inner
def relation_bits(
    hypothesis: Array, rows: Array, references: SentenceTable, words: WordTable, local_id: Array
) -> Array:
    """`SentencePair.module_bits` of the distinct words of the references (rows) and of the hypothesis (columns).

    Writes the row of each reference word into `local_id`.  For the reference words "a", "dogs" and the hypothesis words
    "a", "dog" the bits are 1 (EXACT) for "a" with "a", and 1 << STEM = 2 for "dogs" with "dog" (plus 1 << SYNONYM if
    they share a synonym set); all other bits are 0.
    """
    size = 0
    for row in rows:
        size += references.start[row + 1] - references.start[row]
    distinct = np.empty(size, dtype=np.int64)
    count = 0
    for row in rows:
        for word in references.word[references.start[row] : references.start[row + 1]]:
            if local_id[word] < 0:
                local_id[word] = count
                distinct[count] = word
                count += 1
    module_bits = np.zeros((count, len(hypothesis) + 1), dtype=np.uint8)
    for row in range(count):
        a = distinct[row]
        for column in range(len(hypothesis)):
            b = hypothesis[column]
            bits = 0
            if words.key[a] == words.key[b]:
                bits = 1 << EXACT
            else:
                bits |= (words.stem[a] == words.stem[b]) << STEM
                bits |= share_synset(a, b, words) << SYNONYM
            module_bits[row, column] = bits
            module_bits[row, -1] |= bits
    return module_bits


@compile_inner
def share_synset(a: int, b: int, words: WordTable) -> bool:
    """Whether two words share a synonym set."""
    i, j = words.synset_start[a], words.synset_start[b]
    last_i, last_j = words.synset_start[a + 1], words.synset_start[b + 1]
    while i < last_i and j < last_j:
        if words.synset[i] == words.synset[j]:
            return True
        if words.synset[i] < words.synset[j]:
            i += 1
        else:
            j += 1
    return False


@compile_inner
def find_paraphrases(
    medium: int,
    sentence: int,
    rows: Array,
    candidates: SentenceTable,
    references: SentenceTable,
    index: PhraseIndex,
    relations: ParaphraseRelations,
) -> Array:
    """The paraphrase matches of a candidate and all references of its medium, in METEOR's order.

    They are sorted by reference and by place.  An entry of METEOR's table leads from a phrase to its paraphrase.  At
    one place, first come the entries that lead from the reference to the candidate, sorted by length and rank; then
    those in the other direction, sorted by place and length of the candidate's phrase and by rank.

    This order is packed into one integer, the column KEY, by which the rows are sorted.  From the highest bit on:

        bits 35..      34   33..31                  30..21                20..0
        word           0    length of the phrase    rank                  place of the candidate's phrase
        word           1    place of the candidate's phrase (33..13), its length (12..10), rank (9..0)

    The word is that of the reference, counted over all references of the medium; bit 34 is the direction.
    """
    before = np.zeros(len(rows), dtype=np.int64)
    for r in range(1, len(rows)):
        before[r] = before[r - 1] + references.start[rows[r - 1] + 1] - references.start[rows[r - 1]]
    paraphrases, count = np.empty((32, 5), dtype=np.int64), 0
    for p in range(candidates.phrase_start[sentence], candidates.phrase_start[sentence + 1]):
        row, place, length = relations.row[p], candidates.begin[p], candidates.length[p]
        for k in range(relations.source_start[row], relations.source_start[row + 1]):
            first, last = phrase_range(index, medium, relations.source[k])
            for e in range(first, last):
                order = index.length[e] << 31 | relations.source_rank[k] << 21 | place
                paraphrases = grown(paraphrases, count)
                word = before[index.reference[e]] + index.begin[e]
                write_row(paraphrases, count, order, word, index.length[e], place, length)
                count += 1
        for k in range(relations.paraphrase_start[row], relations.paraphrase_start[row + 1]):
            first, last = phrase_range(index, medium, relations.paraphrase[k])
            for e in range(first, last):
                order = 1 << 34 | place << 13 | length << 10 | relations.paraphrase_rank[k]
                paraphrases = grown(paraphrases, count)
                word = before[index.reference[e]] + index.begin[e]
                write_row(paraphrases, count, order, word, index.length[e], place, length)
                count += 1
    return sort_rows(paraphrases, count)


@compile_inner
def phrase_range(index: PhraseIndex, medium: int, phrase: int) -> tuple[int, int]:
    """The range of the index with a phrase of this medium's references, by binary search."""
    first, last = index.start[medium], index.start[medium + 1]
    end = last
    while first < last:
        middle = (first + last) // 2
        if index.phrase[middle] < phrase:
            first = middle + 1
        else:
            last = middle
    while last < end and index.phrase[last] == phrase:
        last += 1
    return first, last


@compile_inner
def grown(table: Array, count: int) -> Array:
    """The table, or a copy of twice its length when `count` rows already fill it."""
    if count < len(table):
        return table
    longer = np.empty((2 * len(table), table.shape[1]), dtype=table.dtype)
    for i in range(count):
        for k in range(table.shape[1]):
            longer[i, k] = table[i, k]
    return longer


@compile_inner
def write_row(
    paraphrases: Array, row: int, order: int, word: int, ref_length: int, hyp_start: int, hyp_length: int
) -> None:
    """Write one match into a table of matches; `word` and `order` make its sorting key."""
    paraphrases[row, KEY], paraphrases[row, REF_WORD] = word << 35 | order, word
    paraphrases[row, REF_LENGTH], paraphrases[row, HYP_START] = ref_length, hyp_start
    paraphrases[row, HYP_LENGTH] = hyp_length


@compile_inner
def sort_rows(table: Array, count: int) -> Array:
    """The first `count` rows of a table, sorted by their first column (merge sort)."""
    source, target = table, np.empty_like(table)
    width = 1
    while width < count:
        for begin in range(0, count, 2 * width):
            middle, end = min(begin + width, count), min(begin + 2 * width, count)
            i, j = begin, middle
            for k in range(begin, end):
                left = j == end or (i < middle and source[i, 0] <= source[j, 0])
                chosen = i if left else j
                for column in range(table.shape[1]):
                    target[k, column] = source[chosen, column]
                i += left
                j += not left
        source, target = target, source
        width *= 2
    return source[:count]


def _best_counts(version: int) -> Any:
    @compile_cached
    def best_counts(
        media: MediumRows,
        candidates: SentenceTable,
        references: SentenceTable,
        words: WordTable,
        index: PhraseIndex,
        relations: ParaphraseRelations,
    ) -> Array:
        assert version >= 0
        return best_counts_per_medium(media, candidates, references, words, index, relations)

    return best_counts


best_counts = _best_counts(source_checksum())  # see `best_counts_per_medium`
