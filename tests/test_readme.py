"""The README's tree is the first line of every file; `python tests/test_readme.py` writes it anew."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"


def tree() -> str:
    """One line per source file: its path below src/limner and the first line of its docstring."""
    lines = []
    source = ROOT / "src" / "limner"
    for path in sorted(source.rglob("*.py"), key=lambda path: (len(path.parts) > len(source.parts) + 1, path)):
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            continue
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].rstrip(".")
        assert first, f"{path} does not say what it is for"
        lines.append(f"{path.relative_to(source).as_posix():32} {first}\n")
    return "".join(lines)


def test_the_tree_in_the_readme_is_true() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme[readme.index(BEGIN) + len(BEGIN) : readme.index(END)] == tree()


def test_commands_and_pictures_in_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("make demo", "make test"):
        assert target in readme and f"\n{target.split()[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "attention.png").is_file()


if __name__ == "__main__":
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    path.write_text(readme[: readme.index(BEGIN) + len(BEGIN)] + tree() + readme[readme.index(END) :], encoding="utf-8")
