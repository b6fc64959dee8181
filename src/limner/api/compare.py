"""`limner.compare`: scores of two or more runs on the same items, with confidence intervals and p-values."""

from os import PathLike

from limner.comparison.compare import Comparison
from limner.comparison.compare import compare as compare_captions
from limner.comparison.compared_runs import read_compared_runs, references_from_file, references_from_runs


def compare(
    *runs: str | PathLike[str],
    references: str | PathLike[str] | None = None,
    caption_column: str = "",
    tokenizer: str = "ptb",
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Score the captions of runs on the same items; the first run is the baseline of all differences.

    `runs` are folders that `limner.evaluate` or `limner evaluate` has written captions into, or caption files;
    `references` is a caption file (None: the dataset of the runs' recipes), and `caption_column` is its column of
    captions, when it is unusual.  Intervals and p-values come from a paired bootstrap of `draws` resamples.
    Raises ValueError when the runs have fewer than two items in common, FileNotFoundError when captions are missing.

    >>> comparison = compare("a.json", "b.json", references="refs.json")
    >>> comparison.runs[0].scores["BLEU-1"].value > comparison.runs[1].scores["BLEU-1"].value
    True
    """
    read = read_compared_runs([str(run) for run in runs])
    media = references_from_runs(read) if references is None else references_from_file(str(references), caption_column)
    return compare_captions(read, media, tokenizer, draws, seed)
