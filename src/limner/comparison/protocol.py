"""How runs say they were measured, in what they differ, and what of it a reader must know before believing numbers."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limner.comparison.sides import Side
from limner.core.version import __version__
from limner.metrics.references import References

FEW = 50  # items; a bootstrap of fewer draws too narrow intervals
# Two runs whose scores.json differ in one of these were not measured alike.
ALIKE = ("split", "tokenizer", "images", "references min", "references mean", "df source", "scale", "limner")
STAND_INS = ("simple",)  # tokenizers whose scores are not comparable with published ones


def protocol(references: References, draws: int, seed: int) -> dict[str, str | int | float]:
    """How everything is measured in a comparison."""
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


def flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Plain values, and lists of them, by their dotted names."""
    if isinstance(tree, list) and any(isinstance(item, Mapping | list) for item in tree):
        tree = {str(k): item for k, item in enumerate(tree)}
    if isinstance(tree, Mapping):
        return {
            n: value for key, inner in tree.items() for n, value in flat(inner, f"{name}.{key}".lstrip(".")).items()
        }
    return {name: tree}


def stored(side: Side) -> dict[str, Any]:
    """How a run's own scores.json was measured, by plain names; {} if it does not say."""
    found = side.about.get("protocol")
    split = {"split": side.about["split"]} if "split" in side.about else {}
    return {**split, **(flat(found) if isinstance(found, Mapping) else {})}


def disagreements(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted name -> the values of all trees, where they are not equal; None where a tree has none."""
    values = [flat(tree) for tree in trees]
    rows = {name: [value.get(name) for value in values] for name in dict.fromkeys(n for value in values for n in value)}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def doubts(sides: Mapping[str, Side], found: Sequence[Mapping[str, float]], here: Mapping[str, Any]) -> list[str]:
    """What a reader must know, a line each: sides by letter, the scores found for them, and the protocol."""
    lines = [f"{letter}: {note}" for letter, side in sides.items() for note in side.notes]
    runs = {letter: side for letter, side in sides.items() if side.about}
    for name, values in disagreements([stored(side) for side in runs.values()]).items():
        if name in ALIKE:
            said = ", ".join(f"{letter} {value!r}" for letter, value in zip(runs, values, strict=True))
            lines.append(f"before, the runs were measured differently ({name}: {said}); here all are measured alike")
    recipes = {letter: side.recipe for letter, side in sides.items() if side.recipe}
    if disagreements([recipe.get("data", {}) for recipe in recipes.values()]).keys() & {"name", "annotations"}:
        lines.append("the runs' recipes name different data sets; all are measured against the same references here")
    moved = [_moved(letter, side, scores, here) for (letter, side), scores in zip(sides.items(), found, strict=True)]
    lines += [line for line in moved if line]
    if here["images"] < FEW:
        lines.append(f"{here['images']} items are few: the intervals of a bootstrap from so few are too narrow")
    if here["references mean"] == 1:
        lines.append("there is one reference for each item: scores are lower and noisier than with several")
    if here["tokenizer"] in STAND_INS:
        lines.append(f"tokens are '{here['tokenizer']}', not PTB's: the scores are not comparable with published ones")
    return lines


def _moved(letter: str, side: Side, scores: Mapping[str, float], here: Mapping[str, Any]) -> str:
    """A line if a run's own scores, measured in the same way, are not those found here."""
    before = stored(side)
    same_tokens = str(before.get("tokenizer", "")).split(" ")[0] == here["tokenizer"]
    if not same_tokens or any(before.get(n) != here[n] for n in ("images", "references min", "references mean")):
        return ""
    for name, value in scores.items():
        old = side.scores.get(name)
        if isinstance(old, float) and abs(old - value) > 1e-6:
            return (
                f"{letter}: scores.json says {name} {100 * old:.2f}, and measured anew it is {100 * value:.2f}; "
                "captions, references or limner have changed since"
            )
    return ""
