"""limner's scores as a module of Hugging Face's `evaluate`; `evaluate.load` takes the path of this file, offline.

import evaluate
from limner.metrics import caption_scores

scores = evaluate.load(caption_scores.__file__)
scores.compute(predictions=["a cat"], references=[["a cat sat", "the cat sits"]], scores=["CIDEr"])

`evaluate` copies the file to its cache, so everything here is imported by its full name.
"""

from collections.abc import Sequence

from limner.metrics.references import References
from limner.metrics.report import compute_scores, select_metrics

try:
    import datasets
    import evaluate
except ImportError as error:
    raise ImportError("the module needs Hugging Face's evaluate: pip install 'limner[evaluate]'") from error

DESCRIPTION = """Scores of image and video captions, without Java: BLEU-1 to BLEU-4, METEOR, ROUGE-L and CIDEr, as
coco-caption computes them on PTB tokens."""
ARGUMENTS = """
predictions  one caption per image
references   for each of them the list of its reference captions
scores       names, for example ["CIDEr"] or ["bleu"]; all that can be computed here when it is left out
tokenizer    "ptb" (published scores), "simple", "characters" ...

Returns {name: fraction}, not x100: CIDEr in [0, 10], the others in [0, 1].
"""
CITATION = """@inproceedings{vedantam2015cider, title={CIDEr: Consensus-based image description evaluation},
author={Vedantam, Ramakrishna and Zitnick, C. Lawrence and Parikh, Devi}, booktitle={CVPR}, year={2015}}"""


class CaptionScores(evaluate.Metric):
    """The scores of one caption per medium, as `limner.metrics.report.evaluate` computes them."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=ARGUMENTS,
            features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        scores: Sequence[str] | None = None,
        tokenizer: str = "ptb",
    ) -> dict[str, float]:
        """Raises ValueError for a prediction without references, and UnknownName for an unknown score."""
        counted = References(dict(enumerate(map(list, references))), tokenizer)
        candidates = counted.candidates(dict(enumerate(predictions)))
        found, _ = compute_scores(candidates, counted, None if scores is None else select_metrics(scores))
        return {name: score.corpus for name, score in found.items()}
