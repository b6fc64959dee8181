"""The prompt of `limner caption` without files: a path in, its caption out; the model stays loaded."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlparse

from limner.apps.shared.interrupts import Terminated
from limner.core.addresses import refuse_address
from limner.data.media import is_clip
from limner.decode.options import Beam
from limner.inference.load import CaptionPipeline

HELP = """PATH, also quoted or dragged in      its caption
:beam N                              hypotheses from now on; 1 is greedy search
:explain [FILE]                      where the model looked for each word of the last caption (.png, .mp4 or .gif)
:help, :quit"""
HISTORY = Path("~/.limner_history")


@dataclass
class Prompt:
    """One conversation.  `say` shows a line, `style` changes the text of a caption."""

    captioner: CaptionPipeline
    decoding: Beam
    say: Callable[[str], None] = print
    style: Callable[[str], str] = str
    last: str = ""  # path of the last caption

    def answer(self, line: str) -> bool:
        """Answer one line; False when it asks to end.  Errors are shown, not raised."""
        line = line.strip()
        if not line:
            return True
        if line in (":quit", ":q", ":exit"):
            return False
        try:
            if line.startswith(":"):
                self._command(line)
            else:
                self._caption(path_of(line))
        except (ValueError, OSError) as error:
            self.say(f"! {error}")
        return True

    def _command(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        if name == "help":
            self.say(HELP)
        elif name == "beam":
            if not rest.strip().isdigit() or int(rest) < 1:
                raise ValueError(f":beam needs a whole number from 1 on, got {rest.strip() or 'nothing'!r}")
            self.decoding = replace(self.decoding, size=int(rest))
            self.say(f"beam {int(rest)}")
        elif name == "explain":
            self._explain(rest.strip())
        else:
            raise ValueError(f"unknown command :{name}; known are :beam, :explain, :help and :quit")

    def _caption(self, path: str) -> None:
        refuse_address(path)
        if not Path(path).exists():
            raise ValueError(f"there is no file {path}")
        if Path(path).is_dir():
            raise ValueError(
                f"{path} is a folder; for all of its files: limner caption {shlex.quote(path)} --out captions.csv"
            )
        caption = self.captioner.caption(path, self.decoding)
        self.last = path
        self.say(self.style(caption.text) or "(the caption is empty)")
        for note in caption.notes:
            self.say(f"! {note}")

    def _explain(self, out: str) -> None:
        from limner.apps.explain import write_explanation
        from limner.explanations.clip_sentence import captioned
        from limner.explanations.explanation_input import load_explanation_input
        from limner.explanations.maps import default_method, explain
        from limner.inference.pipeline import Pipeline

        if not isinstance(self.captioner, Pipeline):
            raise ValueError("only models of limner can be explained; this one gives no attention and no gradients")
        if not self.last:
            raise ValueError("there is no caption to explain yet: give a path first")
        run = self.captioner.run
        file = Path(path_of(out)) if out else free_name(Path(self.last))
        if file.is_file():
            raise ValueError(f"{file} exists: choose another name")
        subject = load_explanation_input(run, self.last, self.captioner.device, self.captioner.frames)
        decoding = self.decoding.bind(run.vocabulary)
        sentence, weights = captioned(run, subject.features, decoding, self.captioner.clip)
        explanation = explain(run.model, subject.features, sentence, default_method(run.model), weights)
        write_explanation(explanation, subject.display, file)
        self.say(f"wrote {file}")


def free_name(source: Path) -> Path:
    """A name in the working directory for the explanation of a file: dog-explained.png, dog-explained-2.png, ...

    Explanations of videos are videos.
    """
    suffix = ".mp4" if is_clip(source) else ".png"
    names = (f"{source.stem}-explained{f'-{number}' if number > 1 else ''}{suffix}" for number in range(1, 1_000_000))
    return next(path for path in map(Path, names) if not path.exists())


def path_of(text: str) -> str:
    r"""What a user typed, quoted or dragged into the terminal -> a path.

    Removes quotes and the backslashes of `\ `, and understands file:// and ~.
    """
    text = text.strip()
    if text.startswith("file://"):
        return unquote(urlparse(text).path)
    for quote in "'\"":
        if len(text) > 1 and text[0] == text[-1] == quote:
            text = text[1:-1]
            return os.path.expanduser(text)
    path = os.path.expanduser(text)
    if "\\" in path and os.sep == "/" and not Path(path).exists():
        path = path.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\")
    return path


def complete(text: str, files: Callable[[str], Iterable[str]] = lambda folder: os.listdir(folder or ".")) -> list[str]:
    """The commands and paths that begin with `text`; folders end in a slash."""
    if text.startswith(":"):
        return [name for name in (":beam ", ":explain ", ":help", ":quit") if name.startswith(text)]
    folder, beginning = os.path.split(os.path.expanduser(text))
    try:
        names = sorted(name for name in files(folder) if name.startswith(beginning))
    except OSError:
        return []
    paths = [os.path.join(folder, name) for name in names if beginning.startswith(".") or not name.startswith(".")]
    return [path + "/" if os.path.isdir(path) else path for path in paths]


def run_prompt(captioner: CaptionPipeline, decoding: Beam, style: Callable[[str], str] = str) -> int:
    """Answer lines until the user leaves.  Lines from a pipe are answered too, without showing a prompt."""
    prompt, interactive = Prompt(captioner, decoding, style=style), sys.stdin.isatty()
    if interactive:
        _set_up_readline()
        print(f"{captioner.name}: type the path of an image or video (:help lists commands)")
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return 0
        except Terminated:
            raise
        except KeyboardInterrupt:  # Ctrl-C clears the line
            print()
            continue
        if not prompt.answer(line):
            return 0


def _set_up_readline() -> None:
    """A history that lasts, and completion with Tab, where Python has readline."""
    try:
        import atexit
        import readline
    except ImportError:
        return
    path = HISTORY.expanduser()
    with suppress(OSError):  # there is none yet, or it may not be read
        readline.read_history_file(path)
    readline.set_history_length(1000)
    readline.set_completer_delims("\n")
    readline.set_completer(lambda text, state: dict(enumerate(complete(text))).get(state))
    readline.parse_and_bind("tab: complete")

    def save() -> None:
        with suppress(OSError):
            readline.write_history_file(path)

    atexit.register(save)
