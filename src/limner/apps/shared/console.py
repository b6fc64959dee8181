"""The console on which commands print tables and progress bars, with rich; only commands that draw them import this."""

import sys
from typing import Any

from rich.console import Console

from limner.apps.shared.streams import escape_controls


class EscapingConsole(Console):
    """A console of rich that escapes control characters in the strings that it prints."""

    def render_str(self, text: str, **options: Any) -> Any:
        """The text as rich renders it, with control characters escaped."""
        return super().render_str(escape_controls(text), **options)


def open_console(soft_wrap: bool = False) -> EscapingConsole:
    """A console on the standard output; it draws tables and bars with ASCII where its encoding is not UTF."""
    file = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    return EscapingConsole(file=file, soft_wrap=soft_wrap)
