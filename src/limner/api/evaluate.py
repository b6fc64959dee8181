"""`limner.evaluate`: captions a split of a run's data and scores the captions."""

from collections.abc import Mapping, Sequence
from os import PathLike

from limner.decode.options import SearchOptions, with_options
from limner.metrics.report import select_metrics
from limner.runs.evaluation import Evaluation, evaluate_run
from limner.runs.resolve import resolve_model
from limner.runs.run import Run, load_run, with_recipe_fields


def evaluate(
    run: Run | str | PathLike[str],
    split: str = "test",
    *,
    decoding: SearchOptions | None = None,
    beam: int | None = None,
    limit: int | None = None,
    metrics: Sequence[str] | None = None,
    data_set: str = "",
    overrides: Mapping[str, object] | None = None,
    device: str = "cpu",
    clip: str | None = None,
) -> Evaluation:
    """Caption a split of a run's data and score the captions.

    `run` is a run folder or a packed model.  `decoding` or the beam size `beam` change the search (None: the recipe's).
    `limit` takes the first media only.  `metrics` are names (None: all).  Of a recipe with several data sets all are
    scored, each and together, or the one with the label `data_set`.  `overrides` replace recipe fields about the
    data, for example {"data.media": "images"} when it has moved.  Scores are fractions: BLEU, METEOR, ROUGE-L in
    [0, 1], CIDEr in [0, 10].  `clip` is how a captioner of images reads clips: "consensus" (None), "mosaic", "middle".
    Raises ValueError or FileNotFoundError when the run or its data cannot be read.

    >>> import limner
    >>> evaluation = limner.evaluate("runs/mine", "val", beam=2, metrics=["CIDEr"])
    >>> list(evaluation.report.scores)
    ['CIDEr']
    """
    loaded = run if isinstance(run, Run) else load_run(resolve_model(run), device=device)
    loaded = with_recipe_fields(loaded, overrides or {})
    search = with_options(decoding or loaded.recipe.decoding, beam=beam)
    chosen = None if metrics is None else select_metrics(metrics)
    return evaluate_run(loaded, split, search, limit, chosen, data_set=data_set, clip=clip)
