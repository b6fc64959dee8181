"""Examples of docstrings (`>>> ...`) as code blocks; Markdown would take their `>` for a quotation."""

import re
from typing import Any

import griffe

PROMPT = re.compile(r"^(\s*)>>> ")


class Doctests(griffe.Extension):
    """A griffe extension, named in mkdocs.yml."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """A docstring with fences around its examples.  An example ends before a blank line.

    >>> fenced("Adds.\\n\\n>>> 1 + 1\\n2").split("\\n")
    ['Adds.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    lines: list[str] = []
    indent: str | None = None
    for line in text.split("\n"):
        prompt = PROMPT.match(line)
        if indent is None and prompt:
            indent = prompt[1]
            if lines and lines[-1].strip():
                lines.append("")
            lines.append(f"{indent}```pycon")
        elif indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        lines.append(line)
    return "\n".join([*lines, f"{indent}```"] if indent is not None else lines)
