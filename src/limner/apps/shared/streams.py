r"""What commands print reaches any console: what it cannot show is escaped, and no file name can steer a terminal.

A console may be cp1252 (Windows) or ASCII (LC_ALL=C).  A file name may hold terminal escape sequences, for example
`\x1b[2J`, which clears the screen.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # \n ends a line, \t is a blank
_PROGRESS = re.compile(r"\r|(?:\n|\x1b\[A)*\Z")  # how tqdm, in packages that download, begins or moves its bar


def escape_controls(text: str) -> str:
    r"""The text with control characters written as \x1b.

    >>> print(escape_controls("\x1b[31mred.png"))
    \x1b[31mred.png
    """
    return _CONTROL.sub(lambda char: char[0].encode("unicode_escape").decode(), text)


class EscapingStream:
    """A text stream that escapes control characters, in front of `stream`."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text -> its length."""
        self.stream.write(text if _PROGRESS.match(text) else escape_controls(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write the lines."""
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> Any:
        """The stream for rich, which writes colours; `limner.apps.shared.console` escapes what a user gave."""
        return self.stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape what is printed meanwhile, and what the consoles's encoding lacks."""
    before = sys.stdout, sys.stderr
    for stream, errors in ((sys.stdin, "surrogateescape"), *((stream, "backslashreplace") for stream in before)):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
    sys.stdout, sys.stderr = (EscapingStream(stream) if stream else stream for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def input_lines() -> Iterator[str]:
    """The lines of the standard input without their ends, as file names; a byte order mark is left out."""
    lines = getattr(sys.stdin, "buffer", sys.stdin)
    mark = "\ufeff".encode()
    for number, line in enumerate(lines):
        if isinstance(line, bytes):
            data = line.removeprefix(mark) if number == 0 else line
            text = os.fsdecode(data) if os.name == "posix" else _decode(data)
        else:
            text = line.removeprefix("\ufeff") if number == 0 else line
        yield text.rstrip("\r\n")


def _decode(line: bytes) -> str:
    """A line as text: UTF-8, or else in the encoding of the console."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode(sys.stdin.encoding, "replace")
