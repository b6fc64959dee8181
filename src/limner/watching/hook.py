"""The command that a user wants to run for every caption (`--exec`).

No shell is involved: the command is split into words once, before there is a caption, and a caption or a file name is
always a whole word or a part of one.
"""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

PLACES = ("{file}", "{caption}")
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh", "busybox", "cmd", "cmd.exe", "powershell", "pwsh")


@dataclass(frozen=True)
class Hook:
    """Runs a command for the captions of a file.

    words    the command; {file} and {caption} in them stand for the path and the caption
    seconds  after which it is killed, with what it has started

    It finds the path in LIMNER_FILE, the caption in LIMNER_CAPTION, and the rows of the output in LIMNER_ROWS (JSON).
    """

    words: tuple[str, ...]
    seconds: float = 60.0

    @classmethod
    def parse(cls, command: str, seconds: float = 60.0) -> "Hook":
        """The hook of a command line.

        Raises ValueError when it is empty or has an open quote, and when a shell would run a caption as code.

        >>> Hook.parse("exiftool -Caption={caption} {file}").words
        ('exiftool', '-Caption={caption}', '{file}')
        """
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise ValueError(f"--exec {command}: {error}") from error
        if not words:
            raise ValueError("--exec: expected a command, got nothing")
        filled = [word for word in words if any(place in word for place in PLACES)]
        names = {PurePath(word).name.lower() for word in words}
        if words[0] in filled:
            raise ValueError(f"--exec {command}: a caption or a file cannot be the command")
        if filled and names & set(SHELLS):
            raise ValueError(
                f"--exec {command}: a shell would run {filled[0]} as code; write "
                '"$LIMNER_FILE" or "$LIMNER_CAPTION" instead, without braces'
            )
        return cls(words, seconds)

    def run(self, file: str, rows: Sequence[dict[str, Any]]) -> str:
        """Run the command for a file and its rows -> what went wrong; "" when nothing did.

        Several captions, of parts of a video, are joined by blanks.
        """
        caption = " ".join(row["caption"] for row in rows if row["caption"]).replace("\0", " ")
        # a name or a caption that begins with "-" must not become an option
        values = {
            "{file}": f"./{file}" if file.startswith("-") else file,
            "{caption}": f" {caption}" if caption.startswith("-") else caption,
        }
        environment = os.environ | {
            "LIMNER_FILE": file,
            "LIMNER_CAPTION": caption,
            "LIMNER_ROWS": json.dumps(list(rows), ensure_ascii=False).replace("\0", " "),
        }
        try:
            # a session of its own: Ctrl-C lets it finish, and all that it has started can be killed
            process = subprocess.Popen(
                [_filled(word, values) for word in self.words],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"--exec {self.words[0]} cannot be run ({error.strerror if isinstance(error, OSError) else error})"
        try:
            status = process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"--exec {self.words[0]} was killed after {self.seconds:g} s"
        return f"--exec {self.words[0]} ended with status {status}" if status else ""


def _filled(word: str, values: dict[str, str]) -> str:
    """A word with what its places stand for; a value is never searched for places again."""
    parts = word.split("{file}")
    return values["{file}"].join(part.replace("{caption}", values["{caption}"]) for part in parts)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
