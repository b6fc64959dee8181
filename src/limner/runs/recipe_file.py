"""Recipe files: reads recipes from YAML or a run's JSON, applies overrides, checks every field, and saves them."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ValidationError

from limner.core.addresses import refuse_address
from limner.core.fields import ConfigOf
from limner.core.files import read_json, write_json
from limner.core.messages import short_repr
from limner.core.migration import migrate, new_field_name
from limner.core.plugins import load_entry_points
from limner.core.untrusted import load_yaml
from limner.decode.options import Beam
from limner.encoders import DEFAULT_ENCODER
from limner.models import DEFAULT_CAPTIONER
from limner.objectives import DEFAULT_OBJECTIVE
from limner.runs.overrides import override, parse_value
from limner.runs.recipe import DATA_SETS, ONE_DATA_SET, Recipe, recipe_adapter
from limner.runs.start import fill_from_start
from limner.runs.variables import substitute

DEFAULTS = {  # values that an override can change a part of when the recipe leaves them out
    "encoder": {"name": DEFAULT_ENCODER.name},
    "augmentations": ["full"],
    "model": {"name": DEFAULT_CAPTIONER.name},
    "stages": [{"objective": {"name": DEFAULT_OBJECTIVE.name}}],
    "decoding": {"name": Beam().name},
}

Overrides = Mapping[str, object] | Sequence[tuple[str, object]]  # dotted field names and their new values


def load_recipe(path: str | PathLike[str], overrides: Overrides = ()) -> Recipe:
    """Read a recipe from YAML, or from a run's JSON, and apply overrides: dotted field names and their new values.

    A value that is a string is read as YAML, as on the command line.  In a YAML recipe, `${NAME}` and
    `${NAME:-default}` stand for environment variables.

    >>> recipe = load_recipe("recipe.yaml", {"stages.0.lr": 1e-4, "seed": "3"})
    >>> recipe.stages[0].lr, recipe.seed
    (0.0001, 3)

    Raises FileNotFoundError when there is no such file, ValueError, which names the file and the field, for an unknown
    field (it lists the known ones) and for a value that is not valid.
    """
    load_entry_points()
    refuse_address(path)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}")
    try:
        saved = path.suffix == ".json"
        tree = migrate(read_json(path)) if saved else load_yaml(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"{path} is not YAML{line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        tree = tree if saved else substitute(tree, skip=dict(overrides))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return build_recipe({} if tree is None else tree, overrides, str(path), fill=not saved)


def build_recipe(tree: Any, overrides: Overrides = (), where: str = "recipe", fill: bool = True) -> Recipe:
    """Build a recipe from nested dictionaries and lists.

    With `fill`, what a recipe with `start` leaves out comes from the model that it starts from.
    Raises ValueError, which begins with `where` and names the field, as `load_recipe` does.
    """
    try:
        pairs = overrides.items() if isinstance(overrides, Mapping) else overrides
        changes = {name: parse_value(name, value) if isinstance(value, str) else value for name, value in pairs}
        tree = fill_from_start(tree, changes) if fill else tree
        for name, parsed in changes.items():
            tree = override(tree, name.split("."), parsed, name, DEFAULTS)
        tree = _with_search_name(tree)
        _check_fields(Recipe, tree, "")
        _require_media(tree)
        return recipe_adapter().validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = _dotted(first["loc"], tree)
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"{where}: {name}: {first['msg']}, got {short_repr(first.get('input'), 200)}{more}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _require_media(tree: Mapping[str, Any]) -> None:
    """Raise ValueError when a data set has no field `media`, and there are no features instead."""
    data = tree.get("data", {})
    several = isinstance(data, list | tuple)
    for place, part in {f"data.{k}": part for k, part in enumerate(data)}.items() if several else [("data", data)]:
        if "media" not in part and not tree.get("features"):
            raise ValueError(f"{place}.media is required: the folder of the images or clips")


def _with_search_name(tree: Any) -> Any:
    """Return the tree with the name of beam search in a `decoding` without a name."""
    decoding = tree.get("decoding") if isinstance(tree, Mapping) else None
    if not isinstance(decoding, Mapping) or "name" in decoding:
        return tree
    return {**tree, "decoding": {"name": Beam().name, **decoding}}


def _dotted(place: Sequence[str | int], tree: Any) -> str:
    """Return the dotted name of the field at a place of a pydantic error, without the names of union members."""
    names = []
    for part in place:
        if part in (ONE_DATA_SET, DATA_SETS):
            continue
        if not (isinstance(tree, Mapping) and part not in tree and part == tree.get("name")):
            names.append(str(part))
            items = (
                tree if isinstance(tree, Mapping) else dict(enumerate(tree if isinstance(tree, (list, tuple)) else ()))
            )
            tree = items.get(part)
    return ".".join(names)


def check_recipe(recipe: Recipe) -> None:
    """Check the values of a recipe that was built in Python.  Raises ValueError, which names the field."""
    build_recipe(recipe_adapter().dump_python(recipe), fill=False)


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe as JSON."""
    write_json(path, recipe_adapter().dump_python(recipe, mode="json"))


def recipe_differences(old: Recipe, new: Recipe) -> list[str]:
    """Return a line for each field that differs, for example `seed: 0 -> 1`."""

    def walk(before: Any, after: Any, name: str) -> list[str]:
        if isinstance(before, dict) and isinstance(after, dict):
            keys = list(dict.fromkeys([*before, *after]))
            return [line for key in keys for line in walk(before.get(key), after.get(key), f"{name}.{key}")]
        if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            pairs = enumerate(zip(before, after, strict=True))
            return [line for index, (a, b) in pairs for line in walk(a, b, f"{name}.{index}")]
        return [] if before == after else [f"{name[1:]}: {before!r} -> {after!r}"]

    return walk(recipe_adapter().dump_python(old, mode="json"), recipe_adapter().dump_python(new, mode="json"), "")


def _check_fields(kind: Any, tree: Any, where: str) -> None:
    """Raise ValueError for a field that the dataclass `kind`, or one inside it, does not have.

    `tree` has the values, `where` is its dotted name.  The field `name` chooses the member of a union.
    """
    if typing.get_origin(kind) is Annotated:
        kind, *notes = typing.get_args(kind)
        if configs := next((note for note in notes if isinstance(note, ConfigOf)), None):
            _check_fields(_named_config(configs, tree, where), tree, where)
            return
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (tuple, list) and isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            _check_fields(arguments[0], item, f"{where}.{index}")
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for choice in arguments:
            inner = typing.get_args(choice)[0] if typing.get_origin(choice) is Annotated else choice
            if dataclasses.is_dataclass(inner) != isinstance(tree, list | tuple):  # a list of them, or one
                _check_fields(inner, tree, where)
    elif dataclasses.is_dataclass(kind):
        if not isinstance(tree, Mapping):
            raise ValueError(f"{where or 'a recipe'} takes fields, got {short_repr(tree, 200)}")
        every = typing.get_type_hints(kind, include_extras=True)
        hints = {field.name: every[field.name] for field in dataclasses.fields(kind)}
        for key, value in tree.items():
            if key not in hints:
                new_name = new_field_name(where, key)
                hint = f" ('{key}' is called '{new_name}' now)" if new_name else ""
                raise ValueError(f"{where or 'a recipe'} has no field '{key}'{hint}; it has {', '.join(hints)}")
            _check_fields(hints[key], value, f"{where}.{key}".lstrip("."))


def _named_config(configs: ConfigOf, tree: Any, where: str) -> type:
    """Return the config class that a tree's field `name` chooses.  Raises ValueError that lists the known names."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where} takes fields, got {short_repr(tree, 200)}")
    name = tree["name"] if isinstance(tree.get("name"), str) else ""
    if name not in configs.registry:
        raise ValueError(
            f"{where}.name is {short_repr(tree.get('name'))}; known are {', '.join(configs.registry)}; if a plug-in "
            "brings it, load the plug-in (limner --plugin PACKAGE ...)"
        )
    entry = configs.registry[name]
    return getattr(entry, "config", entry)
