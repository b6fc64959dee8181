"""The JSON schema of recipes, with which an editor completes fields and marks mistakes.

    python -m limner.runs.schema recipes/schema.json

The first line of a recipe names it: # yaml-language-server: $schema=schema.json
"""

import ast
import dataclasses
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from limner.core.files import write_json
from limner.runs.recipe import Recipe


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe: fields, types, ranges, defaults, and the comments beside the fields."""
    schema = TypeAdapter(Recipe).json_schema()
    comments = {kind.__name__: field_comments(kind) for kind in _dataclasses(Recipe)}
    for name, part in (*schema.get("$defs", {}).items(), ("Recipe", schema)):
        if "properties" in part:
            part["additionalProperties"] = False  # a misspelt field is a mistake
            for field, text in comments.get(name, {}).items():
                part["properties"].setdefault(field, {}).setdefault("description", text)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(schema)}


def field_comments(kind: type) -> dict[str, str]:
    """Field -> the comment above it and beside it in the source of a dataclass.

    >>> from limner.decode.rules import Rules
    >>> field_comments(Rules)["min_length"]
    'words before EOS is allowed'
    """
    source = textwrap.dedent(inspect.getsource(kind))
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.start[1] == len(token.line) - len(token.line.lstrip()))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    texts: dict[str, str] = {}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above = node.lineno - 1
        while comments.get(above, ("", False))[1]:
            above -= 1
        lines = [
            comments[line][0] for line in range(above + 1, (node.end_lineno or node.lineno) + 1) if line in comments
        ]
        if lines:
            texts[node.target.id] = " ".join(lines)
    return texts


def _dataclasses(kind: Any, seen: set[type] | None = None) -> Iterator[type]:
    """A dataclass and all dataclasses that its fields may hold."""
    seen = set() if seen is None else seen
    for part in _types(kind):
        if dataclasses.is_dataclass(part) and isinstance(part, type) and part not in seen:
            seen.add(part)
            yield part
            for hint in inspect.get_annotations(part, eval_str=True).values():
                yield from _dataclasses(hint, seen)


def _types(hint: Any) -> Iterator[Any]:
    """A type and the types inside it: members of unions, items of tuples, what is annotated."""
    yield hint
    for inner in getattr(hint, "__args__", ()):
        yield from _types(inner)
    for note in getattr(hint, "__metadata__", ()):  # of Annotated: a choice among registered configs
        yield from getattr(note, "configs", ())


def _plain(schema: Any) -> Any:
    """Without titles, which repeat the names, and with unions that more than one member may match."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    renamed = {"anyOf" if name == "oneOf" else name: value for name, value in schema.items()}
    return {
        name: {key: _plain(value) for key, value in part.items()} if name in ("properties", "$defs") else _plain(part)
        for name, part in renamed.items()
        if not (name == "title" and isinstance(part, str)) and name != "discriminator"
    }


if __name__ == "__main__":
    write_json(sys.argv[1], recipe_schema())
