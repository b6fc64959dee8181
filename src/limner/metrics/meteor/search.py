"""`align` on arrays, compiled: the counts of the best alignment of a hypothesis with a reference.

Matches of words are read off a table of bits when they are wanted, so that a pair of texts of thousands of words needs
room for its words only.
"""

from typing import NamedTuple

import numpy as np

from limner.metrics.meteor.align import BEAM, CLOSED
from limner.metrics.meteor.compiled import inner
from limner.metrics.meteor.matches import EXACT, PARAPHRASE, STEM, SYNONYM
from limner.metrics.meteor.records import Words
from limner.metrics.meteor.statistics import CHUNKS, COUNTS, FUNCTION_WORDS, LENGTH, MATCHED, WORDS_MATCHED

Array = np.ndarray
WORD_MODULES = (EXACT, STEM, SYNONYM)
UNMATCHED, COVERED = -1, -2  # instead of a match

# columns of paraphrase matches: sorting key, the reference's word (counted over all references of the image), ...
KEY, WORD, SPAN, HYP_PLACE, HYP_SPAN = range(5)
MODULE = 0  # in a list of matches, instead of KEY
BEFORE = 5  # and in a chain of matches the row of the one before
# columns of a partial alignment, as in `align.Path`; bit k of COVER is the k-th word of the reference from here on
WEIGHT, CHUNK, DISTANCE, END, COVER, NODE = range(6)
PARENT, MATCH = 3, 4  # columns of a continuation, beside WEIGHT, CHUNK and DISTANCE


class Pair(NamedTuple):
    """A hypothesis and one of its references."""

    hypothesis: Array  # words
    reference: Array
    column: Array  # of each word of the hypothesis in `related`
    row: Array  # of each word of the reference in `related`
    related: Array  # (rows, columns+1) bit m: module m matches the two words; last column: any of the row
    hits: Array  # paraphrase matches, in METEOR's order
    before: int  # words of the references before this one, which hits count too


class Room(NamedTuple):
    """Memory for the search, used again for every pair."""

    beam: Array  # (BEAM, 6)
    used: Array  # (BEAM, words of the hypothesis)
    next_beam: Array
    next_used: Array
    branches: Array  # (BEAM, 5)
    here: Array  # (matches that can begin at one word, 5)
    chain: Array  # (words of the reference * BEAM, 6)


@inner
def new_room(hypothesis: int, reference: int, hits: int) -> Room:
    """For sentences of so many words and so many paraphrase matches."""
    return Room(
        np.empty((BEAM, 6), np.int64),
        np.empty((BEAM, hypothesis), np.bool_),
        np.empty((BEAM, 6), np.int64),
        np.empty((BEAM, hypothesis), np.bool_),
        np.empty((BEAM, 5), np.int64),
        np.empty((3 * hypothesis + hits, 5), np.int64),
        np.empty((reference * BEAM, 6), np.int64),
    )


@inner
def count_pair(pair: Pair, words: Words, room: Room) -> Array:
    """(23,) see `statistics`."""
    counts = np.zeros(COUNTS, dtype=np.int64)
    same = len(pair.hypothesis) == len(pair.reference)
    for i in range(len(pair.hypothesis)):
        counts[LENGTH] += 1
        counts[FUNCTION_WORDS] += words.function[pair.hypothesis[i]]
        same = same and words.key[pair.hypothesis[i]] == words.key[pair.reference[i]]
    for i in range(len(pair.reference)):
        counts[LENGTH + 1] += 1
        counts[FUNCTION_WORDS + 1] += words.function[pair.reference[i]]
    modules = 1 << EXACT if same else 1 << EXACT | 1 << STEM | 1 << SYNONYM
    hits = pair.hits[:0] if same else pair.hits
    begin, fixed, matches = find_fixed(pair, modules, hits)
    if matches:
        node, counts[CHUNKS] = search(pair, modules, hits, begin, fixed, room)
        tally(node, room.chain, pair, words, counts)
    return counts


@inner
def find_fixed(pair: Pair, modules: int, hits: Array) -> tuple[Array, Array, int]:
    """How many matches begin at each word of the reference, whether that is one without rivals, and how many in all."""
    size = len(pair.reference)
    begin, rivals = np.zeros(size, np.int64), np.zeros(size, np.int64)
    hyp_rivals = np.zeros(len(pair.hypothesis), np.int64)
    hyp_place, span, hyp_span = (
        np.zeros(size, np.int64),
        np.ones(size, np.int64),
        np.ones(size, np.int64),
    )  # of the last
    matches = len(hits)
    for place in range(size):
        row = pair.row[place]
        if pair.related[row, -1] & modules:
            for i in range(len(pair.hypothesis)):
                bits = pair.related[row, pair.column[i]] & modules
                if bits:
                    count = (bits & 1) + (bits >> 1 & 1) + (bits >> 2)
                    begin[place] += count
                    rivals[place] += count
                    hyp_rivals[i] += count
                    hyp_place[place] = i
                    matches += count
    for h in range(len(hits)):
        place = hits[h, WORD] - pair.before
        begin[place] += 1
        hyp_place[place], span[place], hyp_span[place] = hits[h, HYP_PLACE], hits[h, SPAN], hits[h, HYP_SPAN]
        for i in range(place, place + span[place]):
            rivals[i] += 1
        for i in range(hyp_place[place], hyp_place[place] + hyp_span[place]):
            hyp_rivals[i] += 1
    fixed = np.zeros(size, np.bool_)
    for place in range(size):
        alone = begin[place] == 1
        if alone:
            for i in range(place, place + span[place]):
                alone = alone and rivals[i] == 1
            for i in range(hyp_place[place], hyp_place[place] + hyp_span[place]):
                alone = alone and hyp_rivals[i] == 1
        fixed[place] = alone
    return begin, fixed, matches


@inner
def search(pair: Pair, modules: int, hits: Array, begin: Array, fixed: Array, room: Room) -> tuple[int, int]:
    """The last match of the best alignment, a row of `room.chain` or -1, and how many chunks the alignment has."""
    beam, used, next_beam, next_used = room.beam, room.used, room.next_beam, room.next_used
    for column in range(beam.shape[1]):
        beam[0, column] = 0
    beam[0, END], beam[0, NODE] = CLOSED, -1
    for i in range(used.shape[1]):
        used[0, i] = False
    size, nodes, hit = 1, 0, 0
    for place in range(len(pair.reference)):
        count = 0
        if begin[place]:
            count, hit = list_matches(pair, place, modules, hits, hit, room.here)
        following = branch(place, beam, used, size, room.here, count, fixed[place], room.branches)
        for b in range(following):
            parent, match = room.branches[b, PARENT], room.branches[b, MATCH]
            for column in range(END):
                next_beam[b, column] = room.branches[b, column]
            for column in range(END, beam.shape[1]):
                next_beam[b, column] = beam[parent, column]
            for i in range(used.shape[1]):
                next_used[b, i] = used[parent, i]
            if match >= 0:
                take(place, room.here, match, next_beam, next_used, b, room.chain, nodes)
                nodes += 1
            elif match == UNMATCHED:
                next_beam[b, END] = CLOSED
            next_beam[b, COVER] >>= 1
        beam, used, next_beam, next_used, size = next_beam, next_used, beam, used, following
    best = 0
    for p in range(size):
        beam[p, CHUNK] += beam[p, END] != CLOSED
        if better(beam[p, WEIGHT], beam[p, CHUNK], beam[p, DISTANCE], beam, best):
            best = p
    return beam[best, NODE], beam[best, CHUNK]


@inner
def list_matches(pair: Pair, place: int, modules: int, hits: Array, hit: int, here: Array) -> tuple[int, int]:
    """Write the matches that begin at a word of the reference into `here`; how many, and the next paraphrase match."""
    count = 0
    row = pair.row[place]
    for module in WORD_MODULES:
        if pair.related[row, -1] & modules & 1 << module:
            for i in range(len(pair.hypothesis)):
                if pair.related[row, pair.column[i]] & 1 << module:
                    here[count, MODULE], here[count, HYP_PLACE] = module, i
                    here[count, SPAN] = here[count, HYP_SPAN] = 1
                    count += 1
    while hit < len(hits) and hits[hit, WORD] == pair.before + place:
        here[count, MODULE], here[count, HYP_PLACE] = PARAPHRASE, hits[hit, HYP_PLACE]
        here[count, SPAN], here[count, HYP_SPAN] = hits[hit, SPAN], hits[hit, HYP_SPAN]
        count += 1
        hit += 1
    return count, hit


@inner
def branch(
    place: int, beam: Array, used: Array, paths: int, here: Array, matches: int, fixed: bool, branches: Array
) -> int:
    """Write the best continuations of the paths into `branches`, best first; how many."""
    size = 0
    for p in range(paths):
        weight, chunks, distance, end = beam[p, WEIGHT], beam[p, CHUNK], beam[p, DISTANCE], beam[p, END]
        if not fixed and beam[p, COVER] & 1:
            size = insert(weight, chunks, distance, p, COVERED, branches, size)
            continue
        for m in range(matches):
            hyp_place, span, hyp_span = here[m, HYP_PLACE], here[m, SPAN], here[m, HYP_SPAN]
            taken = (beam[p, COVER] & ((1 << span) - 1)) != 0
            for i in range(hyp_place, hyp_place + hyp_span):
                taken = taken or used[p, i]
            if taken:
                continue
            gain = 2 if here[m, MODULE] == EXACT else span // 2 + hyp_span // 2
            broken = end not in (CLOSED, hyp_place)
            step = abs(place - hyp_place)
            # METEOR adds a branch's distance to the path it leaves, not to the branch; a fixed match is no branch
            distance += step * fixed
            size = insert(weight + gain, chunks + broken, distance, p, m, branches, size)
            distance += step * (not fixed)
        if not fixed:
            size = insert(weight, chunks + (end != CLOSED), distance, p, UNMATCHED, branches, size)
    return size


@inner
def insert(weight: int, chunks: int, distance: int, parent: int, match: int, branches: Array, size: int) -> int:
    """Put a continuation behind all that are as good; the worst may fall out.  The number there are then."""
    if size == BEAM:
        if not better(weight, chunks, distance, branches, size - 1):
            return size
        size -= 1
    place = size
    while place and better(weight, chunks, distance, branches, place - 1):
        for column in range(branches.shape[1]):
            branches[place, column] = branches[place - 1, column]
        place -= 1
    branches[place, WEIGHT], branches[place, CHUNK], branches[place, DISTANCE] = weight, chunks, distance
    branches[place, PARENT], branches[place, MATCH] = parent, match
    return size + 1


@inner
def better(weight: int, chunks: int, distance: int, table: Array, row: int) -> bool:
    """Whether a continuation is better than a row of a table of them."""
    if weight != table[row, WEIGHT]:
        return weight > table[row, WEIGHT]
    if chunks != table[row, CHUNK]:
        return chunks < table[row, CHUNK]
    return distance < table[row, DISTANCE]


@inner
def take(place: int, here: Array, match: int, beam: Array, used: Array, path: int, chain: Array, node: int) -> None:
    """Add a match to a path and to the chain, as its row `node`."""
    for column in range(here.shape[1]):
        chain[node, column] = here[match, column]
    chain[node, WORD], chain[node, BEFORE] = place, beam[path, NODE]
    hyp_end = here[match, HYP_PLACE] + here[match, HYP_SPAN]
    beam[path, NODE], beam[path, END] = node, hyp_end
    beam[path, COVER] |= (1 << here[match, SPAN]) - 1
    for i in range(here[match, HYP_PLACE], hyp_end):
        used[path, i] = True


@inner
def tally(node: int, chain: Array, pair: Pair, words: Words, counts: Array) -> None:
    """PositiveInt the matched words of the alignment that ends with a row of the chain."""
    while node >= 0:
        column = MATCHED + 4 * chain[node, MODULE]
        for i in range(chain[node, HYP_PLACE], chain[node, HYP_PLACE] + chain[node, HYP_SPAN]):
            counts[column + 2 * words.function[pair.hypothesis[i]]] += 1
            counts[WORDS_MATCHED] += 1
        for i in range(chain[node, WORD], chain[node, WORD] + chain[node, SPAN]):
            counts[column + 2 * words.function[pair.reference[i]] + 1] += 1
            counts[WORDS_MATCHED + 1] += 1
        node = chain[node, BEFORE]
