"""The examples in docstrings, private functions included: what they print is what they say."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGES = ("core", "metrics", "text")


def examples(path: Path) -> list[tuple[str, str, int]]:
    """The name, docstring and line of every class, function and module of a file whose docstring has an example.

    The file is parsed: at run time a function can be hidden by a decorator, as numba's functions are.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ">>>" in (ast.get_docstring(node) or ""):
            found.append((getattr(node, "name", path.stem), ast.get_docstring(node) or "", node.body[0].lineno))
    return found


FILES = [path for package in PACKAGES for path in sorted((SOURCE / "limner" / package).rglob("*.py")) if examples(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE / "limner")))
def test_examples_in_docstrings(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    for name, text, line in examples(path):
        runner.run(doctest.DocTestParser().get_doctest(text, dict(vars(module)), name, str(path), line - 1))
    assert runner.summarize(verbose=False).failed == 0
