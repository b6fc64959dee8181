"""`limner.score`: scores the captions of any tool against references, as coco-caption does."""

from collections.abc import Mapping, Sequence
from os import PathLike

from limner.core.plugins import load_entry_points
from limner.data.captions_file import CaptionsFile, read_captions
from limner.data.pairing import pair_captions
from limner.metrics.references import References
from limner.metrics.report import Report, select_metrics
from limner.metrics.report import evaluate as report_of

CaptionSource = str | PathLike[str] | Mapping[str, str] | Mapping[str, Sequence[str]]


def score(
    candidates: CaptionSource,
    references: CaptionSource,
    *,
    metrics: Sequence[str] | None = None,
    split: str = "",
    caption_column: str = "",
    tokenizer: str = "ptb",
    allow_missing: bool = False,
) -> Report:
    """Score one caption per id against all references of this id.

    `candidates` and `references` are caption files, or mappings {id: caption} and {id: captions}.  `metrics` are names
    (None: all).  `split` takes this split of the references only.  `caption_column` names the column of the references
    when it is unusual, for example "chCap" for VATEX's Chinese captions.  `tokenizer` is "ptb", which published scores
    use, or another one of `text.tokens.TOKENIZERS`, for example "characters" for Chinese.  With `allow_missing`,
    references without a candidate are left out.
    Scores are fractions: BLEU, METEOR, ROUGE-L in [0, 1], CIDEr in [0, 10].
    Raises ValueError that names the mistake: swapped files, ids that do not match, several candidates for one id.

    >>> report = score({"7": "a dog runs"}, {"7": ["a dog sits", "the dog is running"]}, metrics=["ROUGE-L"])
    >>> round(report.scores["ROUGE-L"], 3)  # two of three words, in order
    0.667
    """
    load_entry_points()
    known_captions = _read(references, "references", caption_column)
    pairs = pair_captions(_read(candidates, "candidates"), known_captions, split, allow_missing)
    captions = {id: texts[0] for id, texts in pairs.candidates.items()}
    known = References(pairs.references, tokenizer)
    report = report_of(captions, known, None if metrics is None else select_metrics(metrics))
    return Report(**{**vars(report), "notes": (*pairs.notes, *report.notes)})


def _read(captions: CaptionSource, role: str, caption_column: str = "") -> CaptionsFile:
    if isinstance(captions, (str, PathLike)):
        return read_captions(str(captions), caption_column)
    if caption_column:
        raise ValueError(f"caption_column is of a file, and the {role} are a mapping: leave it out")
    rows = {str(id): (text,) if isinstance(text, str) else tuple(text) for id, text in captions.items()}
    return CaptionsFile(role, "mapping", rows)
