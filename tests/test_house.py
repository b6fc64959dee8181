"""How the source is laid out: one package per idea, short files and functions, and no special case for one model."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "limner"
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}

LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 420, 70
OWN_PACKAGES = ("models", "objectives", "convert")  # they may name a particular model or objective
# modules of models and objectives that hold what all of them share
SHARED = {Path("models/captioner.py"), Path("models/layers.py"), Path("models/packed_linear.py"),
          Path("objectives/context.py"), Path("objectives/objective.py")}  # fmt: skip


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, also those inside others."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def particular_classes() -> set[str]:
    """Every class of one model or one objective: `Sft`, `SftConfig`, `Distil`, ..."""
    return {
        node.name
        for path, tree in TREES.items()
        if path.parts[0] in ("models", "objectives") and path not in SHARED
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def imported_particulars(tree: ast.Module) -> list[str]:
    """The classes of particular models and objectives that a module imports."""
    particular = particular_classes()
    return sorted(
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("limner.models", "limner.objectives"))
        for alias in node.names
        if alias.name in particular
    )


def test_every_module_lies_in_a_package_of_its_idea() -> None:
    assert sorted(path.name for path in TREES if len(path.parts) == 1) == ["__init__.py", "__main__.py"]


def test_tests_lie_in_folders_named_after_the_packages_they_test() -> None:
    packages = {path.parts[0] for path in TREES if len(path.parts) > 1}
    folders = {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").is_file()}
    assert folders - packages <= {"recipes", "faults"}


def test_no_file_is_longer_than_420_lines() -> None:
    lines = {str(path): (PACKAGE / path).read_text(encoding="utf-8").count("\n") for path in TREES}
    assert {path: count for path, count in lines.items() if count > LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_70_lines() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in functions(tree)
        if node.end_lineno is not None
    }
    assert {name: length for name, length in lengths.items() if length > LINES_OF_A_FUNCTION} == {}


def test_every_public_function_and_class_has_a_docstring() -> None:
    """Those of a module's top level; `add_arguments` and `run` are what every command has."""
    without = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not (path.parts[0] == "apps" and node.name in ("add_arguments", "run"))
        and ast.get_docstring(node) is None
    ]
    assert without == []


def test_only_models_objectives_and_converters_import_a_particular_model_or_objective() -> None:
    """Everything else asks a captioner or an objective through what all of them offer."""
    assert {"Sft", "SftConfig", "Distil", "ShowAttendTell"} <= particular_classes()
    outside = {path: tree for path, tree in TREES.items() if path.parts[0] not in OWN_PACKAGES}
    found = {str(path): names for path, tree in outside.items() if (names := imported_particulars(tree))}
    assert found == {}
