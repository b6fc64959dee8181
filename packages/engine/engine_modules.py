"""Which modules of limner belong to the distribution `limner-engine`: those that can be imported without PyTorch.

A module belongs to it if what it imports when it is itself imported is the standard library, a package that
`packages/engine/pyproject.toml` requires, or another such module.  Imports inside functions do not count.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# import names of the packages that limner-engine requires
REQUIRED = frozenset({"PIL", "jaxtyping", "numpy", "onnxruntime", "pydantic", "pydantic_core", "rich", "yaml"})
LEFT_OUT = (
    "limner.testing",  # checks for authors of captioners, which are PyTorch modules
    *(f"limner.apps.{name}" for name in ("convert", "demo", "export")),  # commands that import PyTorch when they run
)


def engine_modules(source: Path) -> dict[str, Path]:
    """The modules of limner-engine and their files, given the folder that holds the package `limner`."""
    files = module_files(source)
    names = {name for name in files if not name.startswith(LEFT_OUT)}
    imports = {name: set(imported_names(name, files)) for name in names}
    known = REQUIRED | sys.stdlib_module_names
    while heavy := {
        name
        for name in names
        if any(_root(each) not in known if _root(each) != "limner" else each not in names for each in imports[name])
    }:
        names -= heavy
    return {name: files[name] for name in sorted(names)}


def module_files(source: Path) -> dict[str, Path]:
    """Every module of the package `limner` and its file."""
    found = {}
    for path in sorted((source / "limner").rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(name: str, files: dict[str, Path]) -> Iterator[str]:
    """The modules that importing a module imports: its parents, and those of the statements outside functions."""
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts)))
    for node in _statements(ast.parse(files[name].read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{name}: limner has no relative imports"
            yield node.module
            members = (f"{node.module}.{each.name}" for each in node.names)
            yield from (member for member in members if member in files)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import: not those of functions, nor those for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _statements(node.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _root(name: str) -> str:
    return name.partition(".")[0]
