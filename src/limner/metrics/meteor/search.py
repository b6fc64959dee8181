"""METEOR's beam search on arrays, compiled with numba: the counts of the best alignment of two sentences.

The algorithm and a worked example are in `align`, the plain Python version; a test checks that both agree.

The matches of single words are not stored: they are read from a table of bits, `SentencePair.module_bits`, when the
search reaches their word.  Two texts of thousands of words therefore need memory for their words only.
"""

from typing import NamedTuple

import numpy as np

from limner.metrics.meteor.align import BEAM_SIZE, NO_CHUNK
from limner.metrics.meteor.compiled import compile_inner
from limner.metrics.meteor.matches import EXACT, PARAPHRASE, STEM, SYNONYM
from limner.metrics.meteor.records import WordTable
from limner.metrics.meteor.statistics import CHUNKS, COUNTS, FUNCTION_WORDS, LENGTH, MATCHED, WORDS_MATCHED

Array = np.ndarray
WORD_MODULES = (EXACT, STEM, SYNONYM)
UNMATCHED, COVERED = -1, -2  # in place of a match: the word stays without one; an earlier match contains the word

# Columns of a table of matches.  REF_WORD is the place in the reference, counted over all references of the medium.
KEY, REF_WORD, REF_LENGTH, HYP_START, HYP_LENGTH = range(5)
MODULE = 0  # in place of KEY in `SearchBuffers.options` and `SearchBuffers.chain`
PREVIOUS = 5  # in `SearchBuffers.chain`: the row of the match before this one
# Columns of a partial alignment, see `align.AlignmentPath`.  In REF_USED bit 0 is the current word, bit 1 the next one.
# LAST_MATCH is a row of `SearchBuffers.chain`, or -1.
WEIGHT, CHUNK_COUNT, DISTANCE, CHUNK_END, REF_USED, LAST_MATCH = range(6)
PARENT, MATCH = 3, 4  # columns of a branch, beside WEIGHT, CHUNK_COUNT and DISTANCE


class SentencePair(NamedTuple):
    """A hypothesis and one of its references.

    hypothesis   rows of its words in the table of words
    reference    the same of the reference
    column       for each word of the hypothesis its column in `module_bits`
    row          for each word of the reference its row in `module_bits`
    module_bits  (rows, columns + 1) bit m is set where module m matches the two words; the last column combines the row
    paraphrases  the paraphrase matches, in METEOR's order
    before       number of words in the references before this one, which REF_WORD counts too
    """

    hypothesis: Array
    reference: Array
    column: Array
    row: Array
    module_bits: Array
    paraphrases: Array
    before: int


class SearchBuffers(NamedTuple):
    """Memory for the search, used again for every reference of a medium.

    beam          (BEAM_SIZE, 6) the partial alignments, the best first
    hyp_used      (BEAM_SIZE, words of the hypothesis) whether a word is matched
    branches      (BEAM_SIZE, 5) the best continuations of the partial alignments, the best first
    options       (matches that can begin at one word, 5) those that begin at the current word of the reference
    chain         (words of the reference * BEAM_SIZE, 6) the matches of all partial alignments, each linked to the one
                  before it
    """

    beam: Array
    hyp_used: Array
    next_beam: Array
    next_hyp_used: Array
    branches: Array
    options: Array
    chain: Array


@compile_inner
def allocate_buffers(hypothesis: int, reference: int, paraphrases: int) -> SearchBuffers:
    """Memory for sentences of the given numbers of words and of paraphrase matches."""
    return SearchBuffers(
        np.empty((BEAM_SIZE, 6), np.int64),
        np.empty((BEAM_SIZE, hypothesis), np.bool_),
        np.empty((BEAM_SIZE, 6), np.int64),
        np.empty((BEAM_SIZE, hypothesis), np.bool_),
        np.empty((BEAM_SIZE, 5), np.int64),
        np.empty((3 * hypothesis + paraphrases, 5), np.int64),
        np.empty((reference * BEAM_SIZE, 6), np.int64),
    )


@compile_inner
def count_pair(pair: SentencePair, words: WordTable, buffers: SearchBuffers) -> Array:
    """The counts of the best alignment of a pair, (23,); see `statistics`."""
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
    paraphrases = pair.paraphrases[:0] if same else pair.paraphrases
    match_count, uncontested, matches = find_uncontested(pair, modules, paraphrases)
    if matches:
        last, counts[CHUNKS] = search_alignment(pair, modules, paraphrases, match_count, uncontested, buffers)
        tally_alignment(last, buffers.chain, pair, words, counts)
    return counts


@compile_inner
def find_uncontested(pair: SentencePair, modules: int, paraphrases: Array) -> tuple[Array, Array, int]:
    """The matches without a rival, see `align.uncontested`.

    Returns per word of the reference the number of matches that begin there, and whether it is a single one without a
    rival; and the number of all matches.
    """
    size = len(pair.reference)
    match_count, ref_count = np.zeros(size, np.int64), np.zeros(size, np.int64)
    hyp_count = np.zeros(len(pair.hypothesis), np.int64)
    # of the last match that begins at each word
    hyp_start, ref_length, hyp_length = np.zeros(size, np.int64), np.ones(size, np.int64), np.ones(size, np.int64)
    matches = len(paraphrases)
    for place in range(size):
        row = pair.row[place]
        if pair.module_bits[row, -1] & modules:
            for i in range(len(pair.hypothesis)):
                bits = pair.module_bits[row, pair.column[i]] & modules
                if bits:
                    count = (bits & 1) + (bits >> 1 & 1) + (bits >> 2)
                    match_count[place] += count
                    ref_count[place] += count
                    hyp_count[i] += count
                    hyp_start[place] = i
                    matches += count
    for h in range(len(paraphrases)):
        place = paraphrases[h, REF_WORD] - pair.before
        match_count[place] += 1
        hyp_start[place], hyp_length[place] = paraphrases[h, HYP_START], paraphrases[h, HYP_LENGTH]
        ref_length[place] = paraphrases[h, REF_LENGTH]
        for i in range(place, place + ref_length[place]):
            ref_count[i] += 1
        for i in range(hyp_start[place], hyp_start[place] + hyp_length[place]):
            hyp_count[i] += 1
    uncontested = np.zeros(size, np.bool_)
    for place in range(size):
        alone = match_count[place] == 1
        if alone:
            for i in range(place, place + ref_length[place]):
                alone = alone and ref_count[i] == 1
            for i in range(hyp_start[place], hyp_start[place] + hyp_length[place]):
                alone = alone and hyp_count[i] == 1
        uncontested[place] = alone
    return match_count, uncontested, matches


@compile_inner
def search_alignment(
    pair: SentencePair, modules: int, paraphrases: Array, match_count: Array, uncontested: Array, buffers: SearchBuffers
) -> tuple[int, int]:
    """The last match of the best alignment, a row of `buffers.chain` or -1, and the number of its chunks."""
    beam, hyp_used, next_beam, next_hyp_used = buffers.beam, buffers.hyp_used, buffers.next_beam, buffers.next_hyp_used
    for column in range(beam.shape[1]):
        beam[0, column] = 0
    beam[0, CHUNK_END], beam[0, LAST_MATCH] = NO_CHUNK, -1
    for i in range(hyp_used.shape[1]):
        hyp_used[0, i] = False
    size, nodes, next_paraphrase = 1, 0, 0
    for place in range(len(pair.reference)):
        count = 0
        if match_count[place]:
            count, next_paraphrase = list_options(pair, place, modules, paraphrases, next_paraphrase, buffers.options)
        following = expand_paths(
            place, beam, hyp_used, size, buffers.options, count, uncontested[place], buffers.branches
        )
        for b in range(following):
            parent, match = buffers.branches[b, PARENT], buffers.branches[b, MATCH]
            for column in range(CHUNK_END):
                next_beam[b, column] = buffers.branches[b, column]
            for column in range(CHUNK_END, beam.shape[1]):
                next_beam[b, column] = beam[parent, column]
            for i in range(hyp_used.shape[1]):
                next_hyp_used[b, i] = hyp_used[parent, i]
            if match >= 0:
                apply_match(place, buffers.options, match, next_beam, next_hyp_used, b, buffers.chain, nodes)
                nodes += 1
            elif match == UNMATCHED:
                next_beam[b, CHUNK_END] = NO_CHUNK
            next_beam[b, REF_USED] >>= 1
        beam, hyp_used, next_beam, next_hyp_used, size = next_beam, next_hyp_used, beam, hyp_used, following
    best = 0
    for p in range(size):
        beam[p, CHUNK_COUNT] += beam[p, CHUNK_END] != NO_CHUNK
        if is_better(beam[p, WEIGHT], beam[p, CHUNK_COUNT], beam[p, DISTANCE], beam, best):
            best = p
    return beam[best, LAST_MATCH], beam[best, CHUNK_COUNT]


@compile_inner
def list_options(
    pair: SentencePair, place: int, modules: int, paraphrases: Array, next_paraphrase: int, options: Array
) -> tuple[int, int]:
    """Write the matches that begin at a word of the reference into `options`, in METEOR's order.

    Returns their number, and the number of the first paraphrase match that begins at a later word.
    """
    count = 0
    row = pair.row[place]
    for module in WORD_MODULES:
        if pair.module_bits[row, -1] & modules & 1 << module:
            for i in range(len(pair.hypothesis)):
                if pair.module_bits[row, pair.column[i]] & 1 << module:
                    options[count, MODULE], options[count, HYP_START] = module, i
                    options[count, REF_LENGTH] = options[count, HYP_LENGTH] = 1
                    count += 1
    while next_paraphrase < len(paraphrases) and paraphrases[next_paraphrase, REF_WORD] == pair.before + place:
        options[count, MODULE] = PARAPHRASE
        options[count, HYP_START] = paraphrases[next_paraphrase, HYP_START]
        options[count, REF_LENGTH] = paraphrases[next_paraphrase, REF_LENGTH]
        options[count, HYP_LENGTH] = paraphrases[next_paraphrase, HYP_LENGTH]
        count += 1
        next_paraphrase += 1
    return count, next_paraphrase


@compile_inner
def expand_paths(
    place: int,
    beam: Array,
    hyp_used: Array,
    paths: int,
    options: Array,
    matches: int,
    uncontested: bool,
    branches: Array,
) -> int:
    """Write the best continuations of the paths into `branches`, the best first, and return their number.

    A path can take each option that only has free words, or leave the word unmatched.  An option without a rival is
    always taken.
    """
    size = 0
    for p in range(paths):
        weight, chunks, distance, end = beam[p, WEIGHT], beam[p, CHUNK_COUNT], beam[p, DISTANCE], beam[p, CHUNK_END]
        if not uncontested and beam[p, REF_USED] & 1:
            size = insert_branch(weight, chunks, distance, p, COVERED, branches, size)
            continue
        for m in range(matches):
            hyp_start, ref_length, hyp_length = options[m, HYP_START], options[m, REF_LENGTH], options[m, HYP_LENGTH]
            taken = (beam[p, REF_USED] & ((1 << ref_length) - 1)) != 0
            for i in range(hyp_start, hyp_start + hyp_length):
                taken = taken or hyp_used[p, i]
            if taken:
                continue
            gain = 2 if options[m, MODULE] == EXACT else ref_length // 2 + hyp_length // 2
            broken = end not in (NO_CHUNK, hyp_start)
            step = abs(place - hyp_start)
            # METEOR adds the distance of a branch to the path from which it branches, not to the branch; a match
            # without a rival is no branch
            distance += step * uncontested
            size = insert_branch(weight + gain, chunks + broken, distance, p, m, branches, size)
            distance += step * (not uncontested)
        if not uncontested:
            size = insert_branch(weight, chunks + (end != NO_CHUNK), distance, p, UNMATCHED, branches, size)
    return size


@compile_inner
def insert_branch(weight: int, chunks: int, distance: int, parent: int, match: int, branches: Array, size: int) -> int:
    """Insert a branch behind all that are better or equal, and return the new number of branches.

    When BEAM_SIZE branches are there already, the worst one is dropped.
    """
    if size == BEAM_SIZE:
        if not is_better(weight, chunks, distance, branches, size - 1):
            return size
        size -= 1
    place = size
    while place and is_better(weight, chunks, distance, branches, place - 1):
        for column in range(branches.shape[1]):
            branches[place, column] = branches[place - 1, column]
        place -= 1
    branches[place, WEIGHT], branches[place, CHUNK_COUNT], branches[place, DISTANCE] = weight, chunks, distance
    branches[place, PARENT], branches[place, MATCH] = parent, match
    return size + 1


@compile_inner
def is_better(weight: int, chunks: int, distance: int, table: Array, row: int) -> bool:
    """Whether a branch is better than a row of a table: more weight, else fewer chunks, else a smaller distance."""
    if weight != table[row, WEIGHT]:
        return weight > table[row, WEIGHT]
    if chunks != table[row, CHUNK_COUNT]:
        return chunks < table[row, CHUNK_COUNT]
    return distance < table[row, DISTANCE]


@compile_inner
def apply_match(
    place: int, options: Array, match: int, beam: Array, hyp_used: Array, path: int, chain: Array, node: int
) -> None:
    """Add an option to a path, and write it into the chain as row `node`."""
    for column in range(options.shape[1]):
        chain[node, column] = options[match, column]
    chain[node, REF_WORD], chain[node, PREVIOUS] = place, beam[path, LAST_MATCH]
    hyp_end = options[match, HYP_START] + options[match, HYP_LENGTH]
    beam[path, LAST_MATCH], beam[path, CHUNK_END] = node, hyp_end
    beam[path, REF_USED] |= (1 << options[match, REF_LENGTH]) - 1
    for i in range(options[match, HYP_START], hyp_end):
        hyp_used[path, i] = True


@compile_inner
def tally_alignment(node: int, chain: Array, pair: SentencePair, words: WordTable, counts: Array) -> None:
    """Count the matched words of the alignment whose last match is the row `node` of the chain."""
    while node >= 0:
        column = MATCHED + 4 * chain[node, MODULE]
        for i in range(chain[node, HYP_START], chain[node, HYP_START] + chain[node, HYP_LENGTH]):
            counts[column + 2 * words.function[pair.hypothesis[i]]] += 1
            counts[WORDS_MATCHED] += 1
        for i in range(chain[node, REF_WORD], chain[node, REF_WORD] + chain[node, REF_LENGTH]):
            counts[column + 2 * words.function[pair.reference[i]] + 1] += 1
            counts[WORDS_MATCHED + 1] += 1
        node = chain[node, PREVIOUS]
