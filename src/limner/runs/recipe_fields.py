"""The fields of a recipe: name, type, default, and the comment beside the field in the source.

`limner train --fields` prints them, and the page of the recipe reference has them as tables.
"""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import types
import typing
from typing import Any, NamedTuple


class Section(NamedTuple):
    """One dataclass of a recipe.  `place` is where it stands, as in `stages.N.objective`; `name` picks it there."""

    place: str
    cls: type
    name: str


def sections(root: type) -> list[Section]:
    """`root` and every dataclass that its fields may hold, each once: first those of `root` itself, then theirs."""
    found = {root: Section("", root, "")}
    waiting = [root]
    for cls in waiting:
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            place = f"{found[cls].place}.{field.name}{'.N' if is_tuple(hints[field.name]) else ''}".lstrip(".")
            for choice in dataclasses_in(hints[field.name]):
                if choice not in found:
                    found[choice] = Section(place, choice, chosen_name(choice))
                    waiting.append(choice)
    return sorted(found.values(), key=lambda section: section.place.count(".") - section.place.count(".N"))


def anchors(found: list[Section]) -> dict[type, str]:
    """The anchor of every section: the last part of its place and its name; all parts where that is taken."""
    taken: dict[str, str] = {}
    made = {}
    for section in found:
        parts = [part for part in section.place.split(".") if part != "N"]
        last = parts[-1] or "recipe"
        place = last if taken.setdefault(last, section.place) == section.place else "-".join(parts)
        made[section.cls] = f"{place}-{section.name}" if section.name else place
    return made


def chosen_name(cls: type) -> str:
    """The value of `name` that picks this class; "" for a class that is the only one at its place."""
    hint = typing.get_type_hints(cls).get("name")
    values = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    return values[0] if len(values) == 1 else ""


def is_tuple(hint: Any) -> bool:
    """Whether a type is a tuple, annotated or not."""
    return typing.get_origin(bare(hint)) is tuple


def bare(hint: Any) -> Any:
    """A type without `Annotated`."""
    return bare(typing.get_args(hint)[0]) if typing.get_origin(hint) is typing.Annotated else hint


def dataclasses_in(hint: Any) -> list[type]:
    """The dataclasses that a value of this type may be or hold."""
    for item in getattr(hint, "__metadata__", ()):
        if hasattr(item, "configs"):  # `limner.core.fields.ConfigOf`: those of a registry
            return list(item.configs)
    hint = bare(hint)
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type, hint)]
    return [cls for inner in typing.get_args(hint) if inner is not Ellipsis for cls in dataclasses_in(inner)]


def type_text(hint: Any) -> str:
    """A type in words: `int > 0`, `"power" or "wu"`, `list of str`.

    >>> type_text(tuple[str, ...] | None)
    'list of str or null'
    >>> from limner.core.fields import FractionBelowOne
    >>> type_text(FractionBelowOne)
    'float in [0, 1)'
    """
    if typing.get_origin(hint) is typing.Annotated:
        inner, *metadata = typing.get_args(hint)
        for item in metadata:
            if hasattr(item, "registry"):  # `limner.core.fields.NameOf`: a name in a registry
                return " or ".join(f'"{name}"' for name in item.registry)
        return f"{type_text(inner)}{range_text(metadata)}"
    return container_text(hint) or plain_text(hint)


def plain_text(hint: Any) -> str:
    """A type that holds no others."""
    if hint is type(None):
        return "null"
    return "fields" if dataclasses.is_dataclass(hint) else getattr(hint, "__name__", str(hint))


def container_text(hint: Any) -> str:
    """A type that is made of others; "" for one that is not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(repr(value).replace("'", '"') for value in arguments)
    if origin in (typing.Union, types.UnionType):
        words = [type_text(argument) for argument in arguments]
        return " or ".join(dict.fromkeys(words))
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)} {type_text(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
    return ""


def range_text(metadata: list[Any]) -> str:
    """The limits that pydantic's `Field` sets: ` > 0`, ` in [0, 1)`, or nothing."""
    limits = {
        name: getattr(bound, name)
        for item in metadata
        for bound in getattr(item, "metadata", [])
        for name in ("gt", "ge", "lt", "le")
        if hasattr(bound, name)
    }
    if len(limits) == 2:
        (low, least), (high, most) = sorted(limits.items(), key=lambda item: item[0][0])
        return f" in {'(' if low == 'gt' else '['}{least}, {most}{')' if high == 'lt' else ']'}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return "".join(f" {signs[name]} {value}" for name, value in limits.items())


def default_text(field: Any) -> str:
    """The default as YAML writes it; a dash for fields that are explained in a table of their own."""
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    if dataclasses.is_dataclass(value):
        name = chosen_name(type(value))
        return f"`{{name: {name}}}`" if name else "-"
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return "one stage"
    return f"`{yaml_text(value)}`"


def yaml_text(value: Any) -> str:
    """A plain value on one line, as YAML writes it.

    >>> yaml_text({"cider_d": 1.0}), yaml_text(None), yaml_text(("full",)), yaml_text("")
    ('{cider_d: 1.0}', 'null', '[full]', '""')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(yaml_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {yaml_text(inner)}' for key, inner in value.items())}}}"
    return str(value) if str(value) else '""'


def comments(cls: type) -> dict[str, str]:
    """What the source says beside or above every field of a dataclass, those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= own_comments(textwrap.dedent(inspect.getsource(base)))
    return found


def own_comments(source: str) -> dict[str, str]:
    """Comments above a field or on its lines -> their text, by the field's name.

    >>> own_comments("class A:\\n    # one\\n    # two\\n    x: int = 1  # three\\n    y: int = 2\\n")
    {'x': 'one two three', 'y': ''}
    """
    lines = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(("# type:", "# noqa", "# fmt:"))
    }
    cls = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found, last = {}, cls.lineno
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = " ".join(lines[number] for number in range(last, (node.end_lineno or last) + 1) if number in lines)
            found[node.target.id] = text.split("  # type:")[0].strip()
        last = (node.end_lineno or last) + 1
    return found


def fields_text(root: type, group: str = "", width: int = 100) -> str:
    """The fields of a recipe with their defaults and meanings, as text of `width` columns, grouped by their place.

    `group` takes the fields at one place (`model`, `stages.objective`) or of one choice there (`xe`); "" takes all.
    Raises ValueError, which lists the groups, for another name.
    """
    found = sections(root)
    wanted = [section for section in found if group in ("", *_groups(section))]
    if not wanted:
        known = dict.fromkeys(name for section in found for name in _groups(section)[:1])
        raise ValueError(f"no fields are called '{group}'; groups are {', '.join(known)}, and the names in them")
    return "\n\n".join(_section_text(section, width) for section in wanted)


def _groups(section: Section) -> list[str]:
    """The names by which a section is asked for, the first one its place."""
    place = re.sub(r"\.N\b", "", section.place) or "recipe"
    return [place, section.place, *([section.name, f"{place}.{section.name}"] if section.name else [])]


def _section_text(section: Section, width: int) -> str:
    title = f"{section.place or 'recipe'}{f', name: {section.name}' if section.name else ''}"
    hints, notes = typing.get_type_hints(section.cls, include_extras=True), comments(section.cls)
    lines = [title]
    own_names = [field.name for field in dataclasses.fields(section.cls) if not notes.get(field.name)]
    text = (section.cls.__doc__ or "").partition(">>>")[0]
    if any(f"`{name}`" in text for name in own_names):  # fields without a comment, which the docstring explains
        lines.append(textwrap.fill(" ".join(text.split()), width, initial_indent="  ", subsequent_indent="  "))
    for field in dataclasses.fields(section.cls):
        if field.name == "name" and section.name:
            continue  # the title has it
        inner = dataclasses_in(hints[field.name])
        default = default_text(field).strip("`")
        kind = f"choices: {', '.join(map(chosen_name, inner))}" if len(inner) > 1 else type_text(hints[field.name])
        about = f"{notes.get(field.name, '')} ({kind})" if notes.get(field.name) else kind
        start = f"  {field.name + ':':22} {default:14} "
        lines.append(textwrap.fill(about, width, initial_indent=start, subsequent_indent=" " * 40))
    return "\n".join(lines)
