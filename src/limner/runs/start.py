"""What a recipe with `start` leaves out comes from the model that it starts from: sizes, encoder, tokenizer.

It is filled in when a recipe is read, so that the recipe of the run says what was trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from limner import shipped
from limner.core.files import read_json
from limner.core.migration import migrate
from limner.core.untrusted import check_safetensors
from limner.runs.resolve import resolve_model


def fill_from_start(tree: Any, changes: Mapping[str, Any]) -> Any:
    """Return the tree of a recipe with what it leaves out taken from the model that it starts from.

    `changes` are the values of overrides by their dotted names.  Without `start` the tree stays as it is.  The fields
    are those of `model`, of `encoder` (if its name is the same), and `tokenizer` and `min_count` of `vocabulary`.
    Nothing is filled in while there is no such model.
    """
    if not isinstance(tree, Mapping):
        return tree
    start = changes.get("start", tree.get("start"))
    if not isinstance(start, str) or not start:
        return tree
    if all(name in tree for name in ("model", "encoder")) and not shipped.folder_of(start).is_dir():
        return tree  # nothing to fetch from the hub for
    try:
        folder = resolve_model(start)
        saved = migrate(read_json(folder / "recipe.json"))
        words = read_json(folder / "vocabulary.json")
        has_encoder = bool(read_json(folder / "run.json")["encoder"])
    except (OSError, KeyError, ValueError):
        return tree  # a run that is not there yet, or not any more; training says what is wrong with it
    parts = {"model": saved["model"]}
    if has_encoder:
        parts["encoder"] = _encoder(saved["encoder"], folder, start, tree, changes)
    if "merges" not in words:  # CLIP's pieces are not built from captions
        parts["vocabulary"] = {name: words[name] for name in ("tokenizer", "min_count")}
    filled = {part: _filled(tree.get(part), theirs, changes.get(f"{part}.name")) for part, theirs in parts.items()}
    return {**tree, **{part: value for part, value in filled.items() if value is not None}}


def _filled(own: Any, theirs: Mapping[str, Any], name: Any) -> Any:
    """The fields of `own`, and those of `theirs` that it leaves out, unless it names another model or encoder."""
    if own is not None and not isinstance(own, Mapping):
        return own
    name = name or (own or {}).get("name", theirs.get("name"))
    return {**theirs, **(own or {})} if name == theirs.get("name") else own


def _encoder(
    saved: Mapping[str, Any], folder: Path, start: str, tree: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The encoder of the model in `folder` for a new recipe: its weights come from the model if they are in it.

    A recipe with other sizes (a contradiction that training reports) keeps its own source.
    """
    encoder, own = dict(saved), tree.get("encoder") or {}
    if tree.get("features") or changes.get("features"):
        encoder.pop("trainable_from", None)  # stored features cannot be trained
    agrees = isinstance(own, Mapping) and all(saved.get(name) == value for name, value in own.items())
    if agrees and has_encoder_weights(folder):
        encoder["source"] = start
    return encoder


def has_encoder_weights(folder: Path) -> bool:
    """Whether a run or a model holds the weights of its encoder."""
    if (folder / "encoder").is_dir():
        return True
    path = folder / "model.safetensors"
    if not path.is_file():  # a run of which no weights are saved yet
        return False
    check_safetensors(path)
    with safe_open(str(path), framework="np") as file:
        return any(name.startswith("encoder.") for name in file.keys())  # noqa: SIM118
