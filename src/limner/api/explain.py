"""`limner.explain`: one map per word of a caption that shows which cells of the image or clip the word depends on."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path

from limner import shipped
from limner.explanations.clip_sentence import captioned
from limner.explanations.explanation_input import load_explanation_input
from limner.explanations.maps import Explanation, default_method, sentence_from_text
from limner.explanations.maps import explain as explain_sentence
from limner.explanations.page import PAGE, collect, find_references, write_page
from limner.explanations.write import write_explanation
from limner.metrics.breakdown import break_down
from limner.runs.resolve import resolve_model
from limner.runs.run import Run, load_run


def explain(
    source: str | PathLike[str],
    model: Run | str | PathLike[str] | None = None,
    *,
    method: str | None = None,
    sentence: str | None = None,
    out: str | PathLike[str] | None = None,
    references: Sequence[str] = (),
    reference_file: str | PathLike[str] = "",
    font: str | PathLike[str] = "",
    frames: int | None = None,
    device: str = "cpu",
    clip: str | None = None,
) -> Explanation:
    """Explain the caption of an image or clip: one map over its cells for every word.

    `model` is a run folder or a packed model (None: the model that comes with limner).  `method` is "attention",
    "gradcam", "gradcam++" or "saliency" (None: attention, if the model has it).  `sentence` is explained instead of
    the model's own caption.  `out` is the path of a figure (.png, .pdf, .svg), a film (.mp4, .gif), a page (.html) or
    a folder of frames to write.  A page also shows how the scores come about: against `references`, or against those
    that `reference_file`, the captions of a data set, has for this file.  `font` is a font file for words that DejaVu
    Sans lacks, for example Chinese ones.  `frames` are sampled from a clip (None: as in training); `clip` is how a
    captioner of images reads them: "consensus" (None), "mosaic" or "middle".
    Raises ValueError for an unknown method, or a source that cannot be read.

    >>> import limner
    >>> explanation = limner.explain("photo.jpg", "runs/mine", method="saliency")
    >>> len(explanation.maps) == len(explanation.words)
    True
    """
    run = model if isinstance(model, Run) else load_run(resolve_model(model or shipped.model()), device=device)
    explained = load_explanation_input(run, fspath(source), device, frames)
    given = None if sentence is None else sentence_from_text(run.vocabulary, sentence)
    words, weights = captioned(run, explained.features, run.recipe.beam, clip, given)
    chosen = method or default_method(run.model)
    explanation = explain_sentence(run.model, explained.features, words, chosen, weights)
    if out is not None and Path(out).suffix.lower() == PAGE:
        known = find_references(fspath(source), references, fspath(reference_file))
        content = collect(run, explained, fspath(source), run.recipe.beam, clip, given, method)
        breakdown = None if known is None else break_down(*known, content.caption)
        write_page(replace(content, breakdown=breakdown), Path(out))
    elif out is not None:
        write_explanation(explanation, explained.display, Path(out), font=fspath(font))
    return explanation
