"""Pages that are made from the code when the site is built; they cannot fall behind it."""

import argparse
import ast
import importlib
import importlib.util
import os
import pkgutil
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import patch

from mkdocs.structure.files import File

from limner.runs.recipe_fields import (
    Section,
    anchors,
    chosen_name,
    comments,
    dataclasses_in,
    default_text,
    sections,
    type_text,
)

HOOKS = Path(__file__).parent
SOURCE = HOOKS.parents[1] / "src" / "limner"


MADE = "This page is made from the source when the site is built."
RENAMED = "<!-- the table of renamed fields -->"
# packages of the Python reference in reading order, with what each is for
PACKAGES = {
    "core": "Names and types that everything else uses",
    "data": "Data sets, media files, feature stores and batches",
    "text": "Tokens and vocabularies",
    "encoders": "Frames in, cells out",
    "models": "Captioners",
    "objectives": "What a training stage minimises",
    "decode": "Search and sampling",
    "metrics": "Scores of captions",
    "runs": "Recipes, run folders and packed models",
    "training": "The training loop",
    "inference": "Captioning files with a trained model",
    "comparison": "Comparing runs",
    "explanations": "What a word rests on",
    "convert": "Checkpoints and features of other systems",
    "export": "Models that run without PyTorch",
    "profiling": "What a run costs",
    "service": "Captions over HTTP",
    "watching": "Files and pictures as they come",
    "client": "Captioning with the model of a service",
}


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the generated pages."""
    pages = {
        "reference/recipe.md": recipe_page,
        "reference/commands.md": commands_page,
        "reference/tree.md": tree_page,
        "reference/api/index.md": api_page,
    }
    for name, make in pages.items():
        files.append(File.generated(config, name, content=make()))
    for package, summary in PACKAGES.items():
        files.append(File.generated(config, f"reference/api/{package}.md", content=package_page(package, summary)))
    return files


def recipe_page() -> str:
    """Every field of a recipe."""
    from limner.runs.recipe import Recipe

    found = sections(Recipe)
    places = anchors(found)
    parts = [
        "# Recipe reference",
        "A recipe is a YAML file that describes a run completely. This page lists every field with its type, its "
        "default and its meaning. A field that does not exist, or a value out of range, is an error that names the "
        "field. Each field can be set on the command line by its dotted name: "
        "`limner train recipe.yaml --stages.0.lr 1e-4 --model.hidden 256`. Paths are relative to the folder in which "
        "the command is called. The [training guide](../guides/training.md) explains how to write a recipe.",
        MADE,
    ]
    last = None
    for section in found:
        if section.place != last:
            anchor = places[section.cls].removesuffix(f"-{section.name}") if section.name else places[section.cls]
            parts.append(f"## {f'`{section.place}`' if section.place else 'Top level'} {{#{anchor}}}")
        if section.name:
            parts.append(f"### name: {section.name} {{#{places[section.cls]}}}")
        parts += [first_paragraphs(section.cls), model_page(section), table(section, places)]
        last = section.place
    return "\n\n".join(part for part in parts if part) + "\n"


def model_page(section: Section) -> str:
    """A link to the page that describes a captioner or encoder, if there is one."""
    pages = HOOKS.parent / "models"
    if section.place == "encoder" and (pages / "encoders.md").is_file():
        return "The page [Encoders](../models/encoders.md) says more."
    if section.place == "model" and (pages / "index.md").is_file():
        rows = (pages / "index.md").read_text(encoding="utf-8")
        link = re.search(rf"^\| `{section.name}` \| \[([^]]+)\]\(([^)]+)\)", rows, re.MULTILINE)
        return f"The page [{link[1]}](../models/{link[2]}) says more." if link else ""
    return ""


def meaning(section: Section, name: str, notes: dict[str, str]) -> str:
    """The comment beside a field; otherwise "see above", where the docstring speaks of it."""
    above = f"`{name}`" in (section.cls.__doc__ or "")
    return escaped(notes.get(name, "")) or ("see above" if above else "")


def first_paragraphs(cls: type) -> str:
    """The docstring up to its examples, unless `dataclass` wrote it."""
    text = (cls.__doc__ or "").partition(">>>")[0]
    return "" if text.startswith(f"{cls.__name__}(") else "\n".join(line.strip() for line in text.strip().split("\n"))


def table(section: Section, places: dict[type, str]) -> str:
    """The fields of one dataclass."""
    hints, notes = get_type_hints(section.cls, include_extras=True), comments(section.cls)
    rows = []
    for field in fields(section.cls):
        if field.name == "name" and section.name:
            continue  # the heading has it
        kind = type_text(hints[field.name])
        inner = list(dict.fromkeys(dataclasses_in(hints[field.name])))
        if inner:
            links = ", ".join(f"[{chosen_name(cls) or field.name}](#{places[cls]})" for cls in inner)
            kind = f"one of {links}" if len(inner) > 1 else kind.replace("fields", links)
        cells = [f"`{field.name}`", kind, default_text(field), meaning(section, field.name, notes)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def commands_page() -> str:
    """`limner COMMAND --help` of every command."""
    from limner.apps.cli import parser

    root = parser()
    commands = next(action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    parts = [
        "# Command reference",
        "What `limner COMMAND --help` prints. The exit status of every command is 0 when all went well, 1 when the "
        "command could not be done (one line on the standard error says why), 2 for unknown arguments or arguments "
        "that contradict each other, 3 when the command is done but some files were skipped (they are counted and "
        "listed), and 130 after an interrupt.",
        MADE,
        help_text(root),
    ]
    for name, command in commands.choices.items():
        parts += [f"## {name}", help_text(command)]
    return "\n\n".join(parts) + "\n"


def help_text(parser: argparse.ArgumentParser) -> str:
    """What `--help` prints on a terminal of 100 columns, as a code block."""
    with patch.dict(os.environ, COLUMNS="100"):
        return f"```text\n{parser.format_help().rstrip()}\n```"


def on_page_markdown(text: str, **_: Any) -> str:
    """Replace the marks that stand for generated tables."""
    return text.replace(RENAMED, renamed_table()) if RENAMED in text else text


def renamed_table() -> str:
    """The tables of `limner.core.migration`."""
    from limner.core.migration import FIELDS, TENSORS

    recipe = [
        f"| {f'`{place}`' if place else 'top level'} | `{old}` | `{new}` |"
        for place, names in FIELDS.items()
        for old, new in names.items()
    ]
    tensors = [f"| weights, prefix | `{old}` | `{new}` |" for old, new in TENSORS.items()]
    return "\n".join(["| where | 0.1 | 0.2 |", "|---|---|---|", *recipe, *tensors])


def tree_page() -> str:
    """One line per source file."""
    parts = ["# Source tree", "Every file of `src/limner` with the first line of its docstring."]
    lines = tree()
    for package in dict.fromkeys(path.rpartition("/")[0] for path, _ in lines):
        rows = "\n".join(
            f"| `{path.rpartition('/')[2]}` | {escaped(text)} |"
            for path, text in lines
            if path.rpartition("/")[0] == package
        )
        parts += [f"## {package or 'limner'}", f"| file | what it is |\n|---|---|\n{rows}"]
    return "\n\n".join(parts) + "\n"


def tree() -> list[tuple[str, str]]:
    """(path below src/limner, first line of the docstring) of every source file, by package."""
    found = []
    for path in sorted(SOURCE.rglob("*.py"), key=lambda path: (path.parent.as_posix(), path.name)):
        text = path.read_text(encoding="utf-8")
        if text.strip():
            first = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].rstrip(".")
            found.append((path.relative_to(SOURCE).as_posix(), first))
    return found


def escaped(text: str) -> str:
    """Text for a table cell: what Markdown would take for markup is shown, code in backticks stays.

    >>> escaped("a | b of `x_*`, length ** 2")
    'a \\\\| b of `x_*`, length \\\\*\\\\* 2'
    """
    parts = text.replace("|", r"\|").split("`")
    marks = {"<": "&lt;", "*": r"\*", "$": r"\$", "_": r"\_", "[": r"\[", "]": r"\]"}
    shown = [part if index % 2 else part.translate(str.maketrans(marks)) for index, part in enumerate(parts)]
    return "`".join(shown)


def api_page() -> str:
    """The public names of `limner`."""
    limner = importlib.import_module("limner")
    parts = [
        "# limner",
        "The names that `import limner` offers. Each is loaded when it is first used; the import itself loads no "
        "PyTorch. The other pages of this section list the modules behind them.",
    ]
    for name in sorted(set(limner.__all__) - {"__version__"}, key=str.lower):
        value = getattr(limner, name)
        path = f"{value.__module__}.{value.__qualname__}"
        parts.append(f'::: {path}\n    options:\n      heading: "limner.{name}"\n      toc_label: "{name}"')
    if importlib.util.find_spec("limner.testing"):
        parts.append('::: limner.testing\n    options:\n      heading: "limner.testing"')
    return "\n\n".join(parts) + "\n"


def package_page(package: str, summary: str) -> str:
    """All modules of a package; its own names stand first, without a heading of their own."""
    path = SOURCE / package
    parts = [f"# limner.{package}", f"{summary}."]
    if (path / "__init__.py").read_text(encoding="utf-8").strip():
        parts.append(
            f"::: limner.{package}\n    options:\n      show_root_heading: false\n      show_root_toc_entry: false"
        )
    return "\n\n".join([*parts, *(f"::: limner.{package}.{name}" for name in below(path))]) + "\n"


def below(path: Path) -> list[str]:
    """Dotted names of the modules of a package that have something in them."""
    names = []
    for module in sorted(pkgutil.iter_modules([str(path)]), key=lambda module: module.name):
        if not module.name.startswith("_"):
            names.append(module.name)
            if module.ispkg:
                names += [f"{module.name}.{inner}" for inner in below(path / module.name)]
    return names
