"""How `--help` looks: a short usage line, and paragraphs that are wrapped to the terminal."""

import argparse
import textwrap
from collections.abc import Iterable


class HelpFormatter(argparse.HelpFormatter):
    """Wraps every paragraph of a description; indented lines, which are commands, stay as they are.

    The usage line has positional and required arguments only: the others are listed below it.
    """

    def __init__(self, prog: str, indent_increment: int = 2, max_help_position: int = 22, width: int | None = None):
        super().__init__(prog, indent_increment, max_help_position, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = textwrap.dedent(text).strip().split("\n\n")
        return "\n\n".join(
            paragraph
            if paragraph.startswith("    ")
            else super(HelpFormatter, self)._fill_text(paragraph, width, indent)
            for paragraph in paragraphs
        )

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        needed = [action for action in actions if action.required or not action.option_strings]
        text = super()._format_usage(usage, needed, [], prefix)
        return text if usage else text.replace(self._prog, f"{self._prog} [options]", 1)
