"""`limner.evaluate`: a run's captions for a split of its data, and their scores."""

from collections.abc import Mapping, Sequence
from os import PathLike

from limner.decode.options import SearchOptions, with_options
from limner.metrics.report import select_metrics
from limner.runs.evaluation import Evaluation, evaluate_run
from limner.runs.package import resolve_model
from limner.runs.run import Run, load_run, with_recipe_fields


def evaluate(
    run: Run | str | PathLike[str],
    split: str = "test",
    *,
    decoding: SearchOptions | None = None,
    beam: int | None = None,
    limit: int | None = None,
    metrics: Sequence[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Caption a split of a run's data and score the captions.

    `run` is a run folder or a packed model; `beam` or `decoding` change how captions are searched (None: as the recipe
    says); `limit` takes the first media only; `metrics` are names (None: all).  `overrides` say where the data lie by
    now, for example {"data.media": "pictures"}.  Scores are fractions: BLEU, METEOR, ROUGE-L in [0, 1], CIDEr in
    [0, 10].
    Raises ValueError or FileNotFoundError when the run or its data cannot be read.

    >>> import limner
    >>> evaluation = limner.evaluate("runs/mine", "val", beam=2, metrics=["CIDEr"])
    >>> list(evaluation.report.scores)
    ['CIDEr']
    """
    loaded = run if isinstance(run, Run) else load_run(resolve_model(run), device=device)
    loaded = with_recipe_fields(loaded, overrides or {})
    search = with_options(decoding or loaded.recipe.decoding, beam=beam)
    return evaluate_run(loaded, split, search, limit, None if metrics is None else select_metrics(metrics))
