"""Scores of each of several data sets, beside those of all their media together.

references = references_by_data_set(media)
reports = evaluate_each({"coco/7": "a cat", "mine/7": "a dog"}, references)     # {"coco": Report, "mine": Report}
"""

from collections.abc import Iterable, Mapping, Sequence

from limner.core.torch_free import Medium
from limner.data.shapes_words import Scene
from limner.metrics.references import References
from limner.metrics.report import Metric, Report, evaluate


def references_by_data_set(media: Sequence[Medium], tokenizer: str = "ptb") -> dict[str, References]:
    """The references of the media of each data set, by its label; {} when all media are of one data set."""
    texts: dict[str, dict[str, Sequence[str]]] = {}
    for medium in media:
        texts.setdefault(medium.part, {})[medium.id] = medium.references
    return {label: References(by_id, tokenizer) for label, by_id in texts.items()} if len(texts) > 1 else {}


def evaluate_each(
    captions: Mapping[str, str],
    references: Mapping[str, References],
    metrics: Mapping[str, Metric] | None = None,
    *,
    extra: Mapping[str, Metric] | None = None,
    training: Sequence[str] | None = None,
    scenes: Mapping[str, Scene] | None = None,
) -> dict[str, Report]:
    """The report of each data set, as if it were evaluated alone; arguments and errors as in `evaluate`.

    CIDEr weighs words by the references of the same data set, so the score of all media together is no mean of these.
    """
    return {
        label: evaluate(
            {id: captions[id] for id in texts.ids},
            texts,
            metrics,
            extra=extra,
            training=training,
            scenes=scenes_of(texts.ids, scenes or {}),
        )
        for label, texts in references.items()
    }


def scenes_of(ids: Iterable[str], scenes: Mapping[str, Scene]) -> dict[str, Scene]:
    """The scenes of `ids`; {} when one of them has none, because it is not of the micro-world."""
    ids = list(ids)
    return {id: scenes[id] for id in ids} if all(id in scenes for id in ids) else {}
