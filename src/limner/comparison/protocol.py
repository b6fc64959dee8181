"""How runs were measured, where their settings differ, and warnings that a reader needs before trusting the numbers."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limner.comparison.compared_runs import ComparedRun
from limner.core.version import __version__
from limner.metrics.references import References
from limner.text.tokens import UNPUBLISHED_TOKENIZERS

FEW_ITEMS = 50  # with fewer items the intervals of a bootstrap are too narrow
# Two runs whose scores.json differ in one of these fields were not measured in the same way.
PROTOCOL_FIELDS = ("split", "tokenizer", "images", "references min", "references mean", "df source", "scale", "limner")


def comparison_protocol(references: References, draws: int, seed: int) -> dict[str, str | int | float]:
    """How all runs of a comparison are measured: tokenizer, references, bootstrap and versions."""
    return {
        "tokenizer": references.tokenizer,
        "images": len(references.ids),
        "references min": int(references.per_medium.min()),
        "references mean": float(references.per_medium.mean()),
        "df source": "references of the compared items",
        "bootstrap draws": draws,
        "bootstrap seed": seed,
        "limner": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def flatten(tree: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a tree of mappings and lists by dotted name; a list of plain values is a leaf.

    >>> flatten({"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 2}]})
    {'a.b': 1, 'a.c': [1, 2], 'd.0.e': 2}
    """
    if isinstance(tree, list) and any(isinstance(item, Mapping | list) for item in tree):
        tree = {str(k): item for k, item in enumerate(tree)}
    if isinstance(tree, Mapping):
        return {
            n: value for key, inner in tree.items() for n, value in flatten(inner, f"{name}.{key}".lstrip(".")).items()
        }
    return {name: tree}


def recorded_protocol(run: ComparedRun) -> dict[str, Any]:
    """How a run was measured according to its own scores.json; {} when that does not say."""
    saved = run.evaluation.get("protocol")
    split = {"split": run.evaluation["split"]} if "split" in run.evaluation else {}
    return {**split, **(flatten(saved) if isinstance(saved, Mapping) else {})}


def differing_fields(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted name -> the value in each tree (None: missing), for the fields in which the trees are not equal."""
    values = [flatten(tree) for tree in trees]
    rows = {name: [value.get(name) for value in values] for name in dict.fromkeys(n for value in values for n in value)}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def comparison_warnings(
    runs: Mapping[str, ComparedRun], scores: Sequence[Mapping[str, float]], protocol: Mapping[str, Any]
) -> list[str]:
    """One line for each reason to doubt the numbers of a comparison.

    `runs` are by letter, `scores` are those measured now, in the same order, and `protocol` is how.
    """
    lines = [f"{letter}: {note}" for letter, run in runs.items() for note in run.notes]
    evaluated = {letter: run for letter, run in runs.items() if run.evaluation}
    for name, values in differing_fields([recorded_protocol(run) for run in evaluated.values()]).items():
        if name in PROTOCOL_FIELDS:
            recorded = ", ".join(f"{letter} {value!r}" for letter, value in zip(evaluated, values, strict=True))
            lines.append(
                f"the scores.json of the runs were measured differently ({name}: {recorded}); here all runs are "
                "measured in the same way"
            )
    recipes = {letter: run.recipe for letter, run in runs.items() if run.recipe}
    if differing_fields([recipe.get("data", {}) for recipe in recipes.values()]).keys() & {"name", "annotations"}:
        lines.append(
            "the recipes of the runs name different datasets; here all runs are scored with the same references"
        )
    changed = [
        _changed_score(letter, run, now, protocol) for (letter, run), now in zip(runs.items(), scores, strict=True)
    ]
    lines += [line for line in changed if line]
    if protocol["images"] < FEW_ITEMS:
        lines.append(f"{protocol['images']} items are few: intervals of a bootstrap from so few items are too narrow")
    if protocol["references mean"] == 1:
        lines.append("each item has only one reference: scores are lower and noisier than with several")
    if protocol["tokenizer"] in UNPUBLISHED_TOKENIZERS:
        lines.append(
            f"the tokenizer is '{protocol['tokenizer']}' and not PTB: the scores are not comparable with published ones"
        )
    return lines


def _changed_score(letter: str, run: ComparedRun, scores: Mapping[str, float], protocol: Mapping[str, Any]) -> str:
    """A warning when a score in scores.json, measured with the same protocol, is not the one measured now; else ""."""
    before = recorded_protocol(run)
    same_tokenizer = str(before.get("tokenizer", "")).split(" ")[0] == protocol["tokenizer"]
    same_items = all(before.get(n) == protocol[n] for n in ("images", "references min", "references mean"))
    if not same_tokenizer or not same_items:
        return ""
    for name, value in scores.items():
        old = run.scores.get(name)
        if isinstance(old, float) and abs(old - value) > 1e-6:
            return (
                f"{letter}: scores.json says {name} {100 * old:.2f}, but measured again it is {100 * value:.2f}; "
                "captions, references or limner have changed since"
            )
    return ""
