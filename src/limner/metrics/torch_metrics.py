"""limner's scores as metrics of `torchmetrics`: update, compute, reset, and the sum over all processes.

    cider = CaptionScore("CIDEr")
    cider.update(["a cat"], [["a cat sat", "the cat sits"]])        # a batch: captions, and references of each
    cider.compute()                                                 # of all batches, and of all processes

Captions are no tensors, and torchmetrics can only gather tensors.  The state is therefore text in bytes: one line of
JSON per medium, as a uint8 tensor.  Nothing is counted before `compute`, because CIDEr weighs words by the references
of all media.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from limner.metrics.references import References
from limner.metrics.report import METRICS, Metric, compute_scores, select_metrics

try:
    import torchmetrics
except ImportError as error:
    raise ImportError("the metrics of torchmetrics need it: pip install 'limner[torchmetrics]'") from error

Row = tuple[str | None, str, list[str]]  # id, caption, references


class _CaptionRows(torchmetrics.Metric):
    """The captions and references of every medium so far, in a state that torchmetrics can gather."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    rows: list[UInt8[Tensor, " _"]]

    def __init__(self, tokenizer: str = "ptb", **options: Any) -> None:
        super().__init__(**options)
        self.tokenizer = tokenizer
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(
        self,
        preds: Sequence[str],
        target: Sequence[Sequence[str]],
        ids: Sequence[str] | Sequence[int] | Tensor | None = None,
    ) -> None:
        """Add a batch.

        preds   one caption per medium
        target  for each of them its reference captions
        ids     of the media; a medium that comes again with the same caption counts once, as it does when a
                DistributedSampler repeats media to give all processes equally many.  Without ids each one counts

        Raises ValueError when the three have different lengths, or a value is no text.
        """
        names: list[Any] = [None] * len(preds) if ids is None else (ids.tolist() if isinstance(ids, Tensor) else [*ids])
        if isinstance(preds, str) or isinstance(target, str) or not len(preds) == len(target) == len(names):
            raise ValueError(
                f"expected a list of captions with as many lists of references and ids, got {len(preds)} captions, "
                f"{len(target)} references and {len(names)} ids"
            )
        for caption, references in zip(preds, target, strict=True):
            if (
                not isinstance(caption, str)
                or isinstance(references, str)
                or not all(isinstance(text, str) for text in references)
            ):
                raise ValueError(
                    f"expected a caption and a list of references, got {caption!r:.80}, {references!r:.80}"
                )
        rows = zip((None if name is None else str(name) for name in names), preds, map(list, target), strict=True)
        if text := "".join(json.dumps(row) + "\n" for row in rows):
            self.rows.append(torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8).to(self.device))

    def sync(self, *args: Any, **options: Any) -> None:
        """Gather the states of all processes; one that has seen no medium takes part with an empty text."""
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(torch.zeros(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **options)

    def texts(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Return captions and references by id, in the order of the processes and of their updates.

        Raises ValueError when there are none, or an id has two captions.
        """
        given: list[Tensor] = self.rows if isinstance(self.rows, list) else [self.rows]
        lines = b"".join(part.cpu().numpy().tobytes() for part in given).splitlines()
        rows: list[Row] = [json.loads(line) for line in lines]
        if not rows:
            raise ValueError("there are no captions to score: call update first")
        captions: dict[str, str] = {}
        references: dict[str, list[str]] = {}
        for number, (name, caption, target) in enumerate(rows):
            id = f"row {number}" if name is None else name
            if captions.setdefault(id, caption) != caption:
                raise ValueError(f"{id!r} has two captions, {captions[id]!r} and {caption!r}; give each medium one")
            references[id] = target
        return captions, references

    def scores(self, metrics: dict[str, Metric] | None) -> dict[str, Tensor]:
        """Compute corpus scores as limner.metrics does, float64 fractions (float32 where the device has no float64)."""
        captions, references = self.texts()
        counted = References(references, self.tokenizer)
        scores, notes = compute_scores(counted.candidates(captions), counted, metrics)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return {name: torch.tensor(score.corpus, dtype=dtype, device=self.device) for name, score in scores.items()}

    def compute(self) -> Any:
        raise NotImplementedError


class CaptionScore(_CaptionRows):
    """One score of limner as a torchmetrics metric; `compute` returns a scalar tensor, a fraction (not x100).

    `score` is a name of `limner.metrics.report.METRICS`; `options` are those of `torchmetrics.Metric`, for example
    `sync_on_compute`.  Raises UnknownName, which lists the known ones.

    >>> rouge = CaptionScore("ROUGE-L", tokenizer="simple")
    >>> rouge.update(["a cat sat"], [["A cat sat.", "the cat"]])
    >>> float(rouge.compute())
    1.0
    """

    def __init__(self, score: str = "CIDEr", tokenizer: str = "ptb", **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.score, self.metric = score, METRICS[score]

    def compute(self) -> Tensor:
        """Return the score of all media of all processes."""
        return self.scores({self.score: self.metric})[self.score]


class CaptionScores(_CaptionRows):
    """Several scores of limner as one torchmetrics metric; `compute` returns {name: scalar tensor}, fractions.

    `scores` are names; None are all that can be computed here, and a warning names the others.  Captions are tokenised
    and counted once for all of them.

    >>> scores = CaptionScores(["bleu", "ROUGE-L"], tokenizer="simple")
    >>> scores.update(["a dog sat down"], [["a cat sat down"]])  # 3 of 4 words, 1 of 3 pairs, no triple
    >>> {name: round(float(value), 3) for name, value in scores.compute().items()}
    {'BLEU-1': 0.75, 'BLEU-2': 0.5, 'BLEU-3': 0.0, 'BLEU-4': 0.0, 'ROUGE-L': 0.75}
    """

    def __init__(self, scores: Sequence[str] | None = None, tokenizer: str = "ptb", **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.metrics = None if scores is None else select_metrics(scores)

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all media of all processes."""
        return self.scores(self.metrics)
