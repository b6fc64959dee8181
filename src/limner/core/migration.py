"""Tables of renamed fields and tensors: runs, packed models, exports and stores of format 1 are read through them.

A recipe that a user writes is not migrated: it gives an error that names the new field (`new_field_name`).
"""

import copy
from collections.abc import Mapping
from typing import Any

_RULES = {
    "no_repeat": "no_repeat_word",
    "no_trigram": "no_repeat_trigram",
    "not_last": "bad_endings",
    "unknown": "allow_unknown",
}
_SAMPLING = {
    "start": "start_epoch",
    "first": "initial_prob",
    "increase": "increase_prob",
    "every": "increase_every",
    "highest": "max_prob",
}
# where in a tree of format 1 (`*`: every item of a list) -> {field of format 1: field of format 2}
FIELDS: dict[str, dict[str, str]] = {
    "": {"told": "pseudo_captions", "views": "augmentations", "pictures": "images"},
    "feature_rows": {"cut": "max_rows"},
    "pseudo_captions": {"share": "probability"},  # the first line has renamed `told`
    "encoder": {"jitter": "colour_jitter"},
    "model": {"closed": "mask_special_tokens", "places": "position_embedding", "path": "side"},
    "stages.*": {
        "rates": "lr_scale",
        "average": "ema_decay",
        "captions": "captions_per_medium",
        "size": "image_size",
    },
    "stages.*.objective.sampling": _SAMPLING,
    "stages.*.objective.xe.sampling": _SAMPLING,
    "stages.*.objective.sample.rules": _RULES,
    "decoding": {"contest": "finished_compete", "refill": "keep_beam_full", "keep": "n_best"},
    "decoding.rules": _RULES,
}
# prefixes of tensor names in model.safetensors and last.safetensors
TENSORS = {
    "place.": "position_embedding.",
    "model.place.": "model.position_embedding.",
    "model.captioner.place.": "model.captioner.position_embedding.",
    "lessons.": "teacher_cache.",
}
# fields of the training state in the metadata of last.safetensors
TRAINING_STATE = {
    "best": "best_score",
    "waited": "bad_validations",
    "rate": "plateau_factor",
    "before": "previous_steps",
}


def migrate(tree: Any) -> Any:
    """Return a copy of a recipe, a `model.json` or a store's index with the field names of format 2.

    Fields that have their new names already stay as they are; the argument is not changed.

    >>> migrate({"told": {"file": "a.jsonl"}, "decoding": {"contest": True}})
    {'pseudo_captions': {'file': 'a.jsonl'}, 'decoding': {'finished_compete': True}}
    """
    tree = copy.deepcopy(tree)
    for place, names in FIELDS.items():
        for fields in _mappings_at(tree, place.split(".") if place else []):
            migrated = {names.get(name, name): value for name, value in fields.items()}  # in the old order
            fields.clear()
            fields.update(migrated)
    for objective in _mappings_at(tree, ["stages", "*", "objective"]):
        if objective.get("name") == "sft" and objective.keys() & {"teacher", "T_loss"}:
            _teacher_weight(objective)
    return tree


def migrate_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same tensors under the names of format 2; new names stay as they are.

    >>> migrate_tensors({"place.weight": 1, "head.bias": 2})
    {'position_embedding.weight': 1, 'head.bias': 2}
    """

    def new_name(name: str) -> str:
        old = next((prefix for prefix in TENSORS if name.startswith(prefix)), None)
        return name if old is None else TENSORS[old] + name.removeprefix(old)

    return {new_name(name): tensor for name, tensor in tensors.items()}


def migrate_training_state(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a checkpoint's training state under their new names.

    >>> migrate_training_state({"stage": 1, "waited": 2})
    {'stage': 1, 'bad_validations': 2}
    """
    return {TRAINING_STATE.get(name, name): value for name, value in fields.items()}


def new_field_name(place: str, field: str) -> str:
    """Return the new name of a field of format 1 at a dotted place, or "" when it was not renamed.

    >>> new_field_name("stages.0", "rates")
    'lr_scale'
    """
    pattern = ".".join("*" if part.isdigit() else part for part in place.split("."))
    return FIELDS.get(pattern, {}).get(field, "")


def _teacher_weight(objective: dict[str, Any]) -> None:
    """Replace SFT's `teacher` (a fraction) or `T_loss` (in tenths, as in the published command) by `teacher_weight`,
    a fraction in [0, 1]."""
    weight, tenths = objective.pop("teacher", 0.5), objective.pop("T_loss", None)
    objective["teacher_weight"] = weight if tenths is None else tenths * 0.1


def _mappings_at(tree: Any, path: list[str]) -> list[dict[str, Any]]:
    """Return all mappings at a dotted place (`*`: every item of a list); none where the place does not exist."""
    if not path:
        return [tree] if isinstance(tree, dict) else []
    head, rest = path[0], path[1:]
    if head == "*":
        return [fields for item in (tree if isinstance(tree, list) else []) for fields in _mappings_at(item, rest)]
    return _mappings_at(tree.get(head), rest) if isinstance(tree, dict) else []
