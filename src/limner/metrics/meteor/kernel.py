"""`matches` on arrays, compiled: every image's candidate against all its references."""

from typing import Any, NamedTuple

import numpy as np

from limner.metrics.meteor import statistics
from limner.metrics.meteor.compiled import inner, kept, sources
from limner.metrics.meteor.matches import EXACT, STEM, SYNONYM
from limner.metrics.meteor.paraphrases import Index, Relations
from limner.metrics.meteor.records import Sentences, Words
from limner.metrics.meteor.search import HYP_PLACE, HYP_SPAN, KEY, SPAN, WORD, Pair, count_pair, new_room
from limner.metrics.meteor.statistics import COUNTS

Array = np.ndarray
score = inner(statistics.score)


class Images(NamedTuple):
    """Which sentences belong together."""

    candidate: Array  # (I,) row in the candidates' `Sentences`
    start: Array  # (I+1,) image i has the references reference[start[i]:start[i+1]]
    reference: Array  # row in the references' `Sentences`


@inner
def each_image(
    images: Images, candidates: Sentences, references: Sentences, words: Words, index: Index, relations: Relations
) -> Array:
    """(I, 23) the counts of each image's candidate with the reference that it scores best with, the first of equals."""
    result = np.zeros((len(images.candidate), COUNTS), dtype=np.int64)
    number = np.full(len(words.key), -1, dtype=np.int64)  # of words in an image's references
    for i in range(len(images.candidate)):
        sentence, rows = images.candidate[i], images.reference[images.start[i] : images.start[i + 1]]
        hypothesis = candidates.word[candidates.start[sentence] : candidates.start[sentence + 1]]
        column, distinct = number_words(hypothesis, number)
        related = relate(distinct, rows, references, words, number)
        hits = find_hits(i, sentence, rows, candidates, references, index, relations)
        longest = 0
        for row in rows:
            longest = max(longest, references.start[row + 1] - references.start[row])
        room = new_room(len(hypothesis), longest, len(hits))
        best, before, first = -1.0, 0, 0
        for row in rows:
            reference = references.word[references.start[row] : references.start[row + 1]]
            last = first
            while last < len(hits) and hits[last, WORD] < before + len(reference):
                last += 1
            pair = Pair(hypothesis, reference, column, looked_up(number, reference), related, hits[first:last], before)
            counts = count_pair(pair, words, room)
            found = score(counts)
            if found > best:
                best = found
                for k in range(COUNTS):
                    result[i, k] = counts[k]
            before += len(reference)
            first = last
        for row in rows:
            forget(number, references.word[references.start[row] : references.start[row + 1]])
    return result


@inner
def looked_up(number: Array, words: Array) -> Array:
    found = np.empty_like(words)
    for i in range(len(words)):
        found[i] = number[words[i]]
    return found


@inner
def forget(number: Array, words: Array) -> None:
    for i in range(len(words)):
        number[words[i]] = -1


@inner
def number_words(sentence: Array, number: Array) -> tuple[Array, Array]:
    """For each word its place among the sentence's distinct words, and those.  `number` is -1 before and after."""
    place, distinct = np.empty_like(sentence), np.empty_like(sentence)
    count = 0
    for i in range(len(sentence)):
        word = sentence[i]
        if number[word] < 0:
            number[word] = count
            distinct[count] = word
            count += 1
        place[i] = number[word]
    forget(number, distinct[:count])
    return place, distinct[:count]


@inner
def relate(hypothesis: Array, rows: Array, references: Sentences, words: Words, number: Array) -> Array:
    """`Pair.related` of the hypothesis' distinct words and the references', which are numbered in `number`."""
    size = 0
    for row in rows:
        size += references.start[row + 1] - references.start[row]
    distinct = np.empty(size, dtype=np.int64)
    count = 0
    for row in rows:
        for word in references.word[references.start[row] : references.start[row + 1]]:
            if number[word] < 0:
                number[word] = count
                distinct[count] = word
                count += 1
    related = np.zeros((count, len(hypothesis) + 1), dtype=np.uint8)
    for row in range(count):
        a = distinct[row]
        for column in range(len(hypothesis)):
            b = hypothesis[column]
            bits = 0
            if words.key[a] == words.key[b]:
                bits = 1 << EXACT
            else:
                bits |= (words.stem[a] == words.stem[b]) << STEM
                bits |= synonyms(a, b, words) << SYNONYM
            related[row, column] = bits
            related[row, -1] |= bits
    return related


@inner
def synonyms(a: int, b: int, words: Words) -> bool:
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


@inner
def find_hits(
    image: int,
    sentence: int,
    rows: Array,
    candidates: Sentences,
    references: Sentences,
    index: Index,
    relations: Relations,
) -> Array:
    """Paraphrase matches of a candidate and all references of its image, in METEOR's order.

    By reference and place; there first those whose entry in the table leads from the reference's phrase to the
    candidate's, by length and rank; then the others, by place and length of the candidate's phrase, and rank.
    """
    before = np.zeros(len(rows), dtype=np.int64)
    for r in range(1, len(rows)):
        before[r] = before[r - 1] + references.start[rows[r - 1] + 1] - references.start[rows[r - 1]]
    hits, count = np.empty((32, 5), dtype=np.int64), 0
    for p in range(candidates.phrase_start[sentence], candidates.phrase_start[sentence + 1]):
        row, place, span = relations.row[p], candidates.begin[p], candidates.length[p]
        for k in range(relations.source_start[row], relations.source_start[row + 1]):
            first, last = held(index, image, relations.source[k])
            for e in range(first, last):
                order = index.length[e] << 31 | relations.source_rank[k] << 21 | place
                hits = with_room(hits, count)
                write(hits, count, order, before[index.reference[e]] + index.begin[e], index.length[e], place, span)
                count += 1
        for k in range(relations.paraphrase_start[row], relations.paraphrase_start[row + 1]):
            first, last = held(index, image, relations.paraphrase[k])
            for e in range(first, last):
                order = 1 << 34 | place << 13 | span << 10 | relations.paraphrase_rank[k]
                hits = with_room(hits, count)
                write(hits, count, order, before[index.reference[e]] + index.begin[e], index.length[e], place, span)
                count += 1
    return sort_rows(hits, count)


@inner
def held(index: Index, image: int, phrase: int) -> tuple[int, int]:
    """Where the image's index has a phrase."""
    first, last = index.start[image], index.start[image + 1]
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


@inner
def with_room(table: Array, count: int) -> Array:
    """The table, twice as long when `count` rows fill it."""
    if count < len(table):
        return table
    longer = np.empty((2 * len(table), table.shape[1]), dtype=table.dtype)
    for i in range(count):
        for k in range(table.shape[1]):
            longer[i, k] = table[i, k]
    return longer


@inner
def write(hits: Array, row: int, order: int, word: int, span: int, hyp_place: int, hyp_span: int) -> None:
    hits[row, KEY], hits[row, WORD], hits[row, SPAN] = word << 35 | order, word, span
    hits[row, HYP_PLACE], hits[row, HYP_SPAN] = hyp_place, hyp_span


@inner
def sort_rows(table: Array, count: int) -> Array:
    """The first rows of a table by their first column (merge sort)."""
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
    @kept
    def best_counts(
        images: Images, candidates: Sentences, references: Sentences, words: Words, index: Index, relations: Relations
    ) -> Array:
        assert version >= 0
        return each_image(images, candidates, references, words, index, relations)

    return best_counts


best_counts = _best_counts(sources())  # see `each_image`
