"""METEOR of captions.

What METEOR needs to know about the references is computed once and cached, so each evaluation pays for the captions
only.
"""

from collections.abc import Sequence
from itertools import chain
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int64

from limner.metrics.meteor import statistics
from limner.metrics.meteor.align import count_alignment
from limner.metrics.meteor.matches import Matcher
from limner.metrics.meteor.paraphrases import find_relations, index_phrases
from limner.metrics.meteor.records import Lexicon, SentenceTable
from limner.metrics.meteor.tables import Tables, load_tables
from limner.metrics.references import Candidates, References, Score

SEPARATOR = "|||"  # of METEOR's protocol: it ends a reference, and coco-caption removes it from a candidate


class MeteorReferences:
    """References, prepared for METEOR.  `count` scores candidates against them.

    lexicon       the words of all sentences so far
    sentences     the distinct references
    start, rows   medium i has the references rows[start[i]:start[i+1]] of `sentences`
    index         the phrases of each medium's references
    in_reference  for each phrase of METEOR's table, whether a reference contains it
    """

    def __init__(self, references: Sequence[Sequence[str]], tables: Tables) -> None:
        parts = [[part for line in lines for part in line.split(SEPARATOR)] for lines in references]
        self.tables = tables
        self.lexicon = Lexicon(tables)
        self.start = np.cumsum([0] + [len(lines) for lines in parts])
        self.rows, self.sentences = self.lexicon.sentences(list(chain.from_iterable(parts)))
        self.index = index_phrases(self.start, self.rows, self.sentences)
        self.in_reference = np.zeros(len(tables.phrase), dtype=bool)
        self.in_reference[self.sentences.phrase] = True

    def count(self, candidates: Sequence[str]) -> Int64[np.ndarray, "I 23"]:
        """The counts of each candidate with the reference of its medium that gives the best score, see `statistics`."""
        rows, sentences = self.lexicon.sentences([line.replace(SEPARATOR, "") for line in candidates])
        try:
            from limner.metrics.meteor.kernel import MediumRows, best_counts
        except ImportError:  # numba is optional
            return self.count_without_numba(rows, sentences)
        counts: Int64[np.ndarray, "I 23"] = best_counts(
            MediumRows(rows, self.start, self.rows),
            sentences,
            self.sentences,
            self.lexicon.words,
            self.index,
            find_relations(sentences.phrase, self.in_reference, self.tables),
        )
        return counts

    def count_without_numba(self, rows: Int64[np.ndarray, " I"], sentences: SentenceTable) -> Int64[np.ndarray, "I 23"]:
        """The same in plain Python: slow.  Candidate i is the row rows[i] of `sentences`."""
        matcher = Matcher(self.lexicon.words, self.tables)
        function, reference_rows = self.lexicon.words.function.tolist(), self.rows.tolist()
        counts = np.zeros((len(rows), statistics.COUNTS), dtype=np.int64)
        for i, row in enumerate(rows.tolist()):
            hypothesis = matcher.sentence(sentences, row)
            references = (
                matcher.sentence(self.sentences, r) for r in reference_rows[self.start[i] : self.start[i + 1]]
            )
            each = (count_alignment(hypothesis, r, matcher.find_matches(hypothesis, r), function) for r in references)
            counts[i] = max(each, key=statistics.score_from_counts)  # the first of equals
        return counts


_PREPARED: WeakKeyDictionary[References, MeteorReferences] = WeakKeyDictionary()


def meteor(candidates: Candidates, references: References) -> Score:
    """METEOR 1.5 with exact, stem, synonym and paraphrase matches, in [0, 1]; equal to the jar of coco-caption.

    Denkowski and Lavie, "Meteor Universal", WMT 2014.  The corpus value is that of the summed counts; it is not the
    mean.  METEOR needs the tables of pycocoevalcap; raises MissingTablesError when they are missing.
    """
    return _score(meteor_counts(candidates, references))


def meteor_counts(candidates: Candidates, references: References) -> Int64[np.ndarray, "I 23"]:
    """The counts of METEOR for each medium, see `statistics`."""
    if references not in _PREPARED:
        _PREPARED[references] = MeteorReferences(references.tokenized, load_tables())
    return _PREPARED[references].count(candidates.tokenized)


def meteor_lines(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """METEOR of plain lines: one candidate and one or more references per segment, tokenised by METEOR only.

    Raises ValueError unless there are as many candidates as lists of references, and none of these lists is empty.
    """
    empty = sum(not lines for lines in references)
    if len(candidates) != len(references) or empty:
        raise ValueError(
            f"{len(candidates)} candidates, {len(references)} lists of references, {empty} of them empty; "
            "expected one list for each candidate, with at least one reference"
        )
    return _score(MeteorReferences(references, load_tables()).count(candidates))


def _score(counts: Int64[np.ndarray, "I 23"]) -> Score:
    segments = np.array([statistics.score_from_counts(segment) for segment in counts.tolist()])
    return Score(statistics.score_from_counts(statistics.corpus_counts(counts)), segments)
