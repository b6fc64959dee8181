"""METEOR of captions.  What is known of the references is kept, so that each evaluation pays for the captions only."""

from collections.abc import Sequence
from itertools import chain
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int64

from limner.metrics.meteor import statistics
from limner.metrics.meteor.align import count
from limner.metrics.meteor.matches import Matcher
from limner.metrics.meteor.paraphrases import index, relations
from limner.metrics.meteor.records import Lexicon, Sentences
from limner.metrics.meteor.tables import Tables, load
from limner.metrics.references import Candidates, References, Score

SEPARATOR = "|||"  # of METEOR's protocol: it ends a reference, and coco-caption takes it out of a candidate


class Known:
    """References as METEOR sees them; `counts` is what an evaluation costs."""

    def __init__(self, references: Sequence[Sequence[str]], tables: Tables) -> None:
        parts = [[part for line in lines for part in line.split(SEPARATOR)] for lines in references]
        self.tables = tables
        self.lexicon = Lexicon(tables)
        self.start = np.cumsum([0] + [len(lines) for lines in parts])
        self.rows, self.sentences = self.lexicon.sentences(list(chain.from_iterable(parts)))
        self.index = index(self.start, self.rows, self.sentences)
        self.held = np.zeros(len(tables.phrase), dtype=bool)
        self.held[self.sentences.phrase] = True

    def counts(self, candidates: Sequence[str]) -> Int64[np.ndarray, "I 23"]:
        """The counts (see `statistics`) of each candidate with the reference of its image that it scores best with."""
        rows, sentences = self.lexicon.sentences([line.replace(SEPARATOR, "") for line in candidates])
        try:
            from limner.metrics.meteor.kernel import Images, best_counts
        except ImportError:  # numba is optional
            return self.slow_counts(rows, sentences)
        found: Int64[np.ndarray, "I 23"] = best_counts(
            Images(rows, self.start, self.rows),
            sentences,
            self.sentences,
            self.lexicon.words,
            self.index,
            relations(sentences.phrase, self.held, self.tables),
        )
        return found

    def slow_counts(self, rows: Int64[np.ndarray, " I"], sentences: Sentences) -> Int64[np.ndarray, "I 23"]:
        """The same without numba."""
        matcher = Matcher(self.lexicon.words, self.tables)
        function, own = self.lexicon.words.function.tolist(), self.rows.tolist()
        found = np.zeros((len(rows), statistics.COUNTS), dtype=np.int64)
        for i, row in enumerate(rows.tolist()):
            hypothesis = matcher.sentence(sentences, row)
            references = (matcher.sentence(self.sentences, r) for r in own[self.start[i] : self.start[i + 1]])
            each = (count(hypothesis, r, matcher.matches(hypothesis, r), function) for r in references)
            found[i] = max(each, key=statistics.score)  # the first of equals
        return found


_KNOWN: WeakKeyDictionary[References, Known] = WeakKeyDictionary()


def meteor(candidates: Candidates, references: References) -> Score:
    """METEOR 1.5 with exact, stem, synonym and paraphrase matches, in [0, 1]; equal to coco-caption's jar.

    Denkowski and Lavie, "Meteor Universal", WMT 2014.  The corpus value is that of the summed counts, not the mean.
    Raises MissingTables when pycocoevalcap, whose tables it needs, is not installed.
    """
    return _score(meteor_counts(candidates, references))


def meteor_counts(candidates: Candidates, references: References) -> Int64[np.ndarray, "I 23"]:
    """What METEOR counts for each image, see `statistics`; `statistics.score` of sums is the corpus value."""
    if references not in _KNOWN:
        _KNOWN[references] = Known(references.lines, load())
    return _KNOWN[references].counts(candidates.lines)


def meteor_lines(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """The same of plain lines, one candidate and any number of references per segment, tokenised by METEOR only.

    Raises ValueError unless there are as many candidates as lists of references, and none of these is empty.
    """
    empty = sum(not lines for lines in references)
    if len(candidates) != len(references) or empty:
        raise ValueError(
            f"{len(candidates)} candidates, {len(references)} lists of references, {empty} of them empty; "
            "expected one list for each candidate, with a reference at least"
        )
    return _score(Known(references, load()).counts(candidates))


def _score(counts: Int64[np.ndarray, "I 23"]) -> Score:
    segments = np.array([statistics.score(segment) for segment in counts.tolist()])
    return Score(statistics.score(statistics.total(counts)), segments)
