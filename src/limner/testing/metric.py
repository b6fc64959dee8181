"""`check_metric`: what every metric must do."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from limner.metrics.references import Candidates, References, Score

REFERENCES = {
    "1": ("a dog runs on the grass", "the dog is running outside"),
    "2": ("a man rides a red bike", "a cyclist on a red bicycle", "someone is riding a bike"),
    "3": ("two children play with a ball", "kids playing football"),
}
RIGHT = {id: texts[0] for id, texts in REFERENCES.items()}
WRONG = {"1": RIGHT["2"], "2": RIGHT["3"], "3": RIGHT["1"]}
EMPTY = {"1": "", "2": "a", "3": RIGHT["3"]}


def check_metric(metric: Callable[[Candidates, References], Score], higher_is_better: bool | None = True) -> float:
    """Check a metric on small corpora -> the corpus score of correct captions.

    Checked: it returns a finite corpus score and one finite score per medium; it is deterministic; the order of the
    media does not matter; empty captions are scored; correct captions get a better score than wrong ones (not checked
    with `higher_is_better` None).
    Raises AssertionError that says what was expected.

    >>> from limner.metrics.rouge import rouge_l
    >>> check_metric(rouge_l)
    1.0
    """
    right = _scored(metric, RIGHT, REFERENCES)
    again = _scored(metric, RIGHT, REFERENCES)
    assert right.corpus == again.corpus and np.array_equal(right.segments, again.segments), "two calls differ"
    order = ["3", "1", "2"]
    reordered = _scored(metric, {id: RIGHT[id] for id in order}, {id: REFERENCES[id] for id in order})
    assert np.isclose(reordered.corpus, right.corpus), "the corpus score depends on the order of the media"
    expected = [right.segments[list(REFERENCES).index(id)] for id in order]
    assert np.allclose(reordered.segments, expected), "scores of media are not in the order of the references"
    _scored(metric, EMPTY, REFERENCES)
    wrong = _scored(metric, WRONG, REFERENCES)
    if higher_is_better is not None:
        better, worse = (right, wrong) if higher_is_better else (wrong, right)
        assert better.corpus > worse.corpus, f"right captions score {right.corpus:.4f}, wrong ones {wrong.corpus:.4f}"
    return float(right.corpus)


def _scored(
    metric: Callable[[Candidates, References], Score],
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
) -> Score:
    known = References(references, "simple")
    score = metric(known.candidates(captions), known)
    assert np.isfinite(score.corpus), f"the corpus score is {score.corpus}"
    assert len(score.segments) == len(captions), f"{len(score.segments)} scores for {len(captions)} media"
    assert np.isfinite(np.asarray(score.segments)).all(), "a score of a medium is not finite"
    return score
