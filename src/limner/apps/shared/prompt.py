"""The prompt of `limner caption` without files: a path in, the caption out, the model loaded once."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlparse

from limner.data.media import is_clip
from limner.decode.options import Beam
from limner.inference.load import CaptionPipeline

HELP = """a path, also quoted or dragged in   its caption
:beam N                              hypotheses from now on; 1 is greedy
:explain [FILE]                      why the last caption says its words (FILE ends in .png, .mp4 or .gif)
:help, :quit"""
HISTORY = Path("~/.limner_history")


@dataclass
class Prompt:
    """One conversation.  `say` shows a line."""

    captioner: CaptionPipeline
    decoding: Beam
    say: Callable[[str], None] = print
    style: Callable[[str], str] = str
    last: str = ""  # path of the last caption

    def answer(self, line: str) -> bool:
        """Answer one line; False when it asks to end.  What goes wrong is said, and nothing is raised for it."""
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
        if not Path(path).exists():
            raise ValueError(f"there is no file {path}")
        if Path(path).is_dir():
            raise ValueError(
                f"{path} is a folder; for all of its files: limner caption {shlex.quote(path)} --out captions.csv"
            )
        caption = self.captioner.caption(path, self.decoding)
        self.last = path
        self.say(self.style(caption.text) or "(the model says nothing about it)")
        for note in caption.notes:
            self.say(f"! {note}")

    def _explain(self, out: str) -> None:
        from limner.apps.explain import write
        from limner.decode.search import beam
        from limner.explanations.explanation_input import load_explanation_input
        from limner.explanations.maps import default_method, explain, sentence_from_tokens
        from limner.inference.pipeline import Pipeline

        if not isinstance(self.captioner, Pipeline):
            raise ValueError("this model does not tell where it looks: only models of limner can be explained")
        if not self.last:
            raise ValueError("there is no caption to explain yet: give a path first")
        run = self.captioner.run
        file = Path(path_of(out)) if out else Path(Path(self.last).stem + (".mp4" if is_clip(self.last) else ".png"))
        if file.resolve() == Path(self.last).resolve():
            file = file.with_stem(file.stem + "-explained")
        subject = load_explanation_input(run, self.last, self.captioner.device, self.captioner.frames)
        found = beam(run.model, subject.features, self.decoding.bind(run.vocabulary))
        sentence = sentence_from_tokens(run.vocabulary, found.tokens[0].tolist())
        write(explain(run.model, subject.features, sentence, default_method(run.model)), subject.display, file)
        self.say(f"wrote {file}")


def path_of(text: str) -> str:
    """What a user typed, quoted, or dragged into the terminal -> a path: quotes, `\\ ` for blanks, file:// and ~."""
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
    """Commands and paths that begin with `text`; folders end in a slash."""
    if text.startswith(":"):
        return [name for name in (":beam ", ":explain ", ":help", ":quit") if name.startswith(text)]
    folder, beginning = os.path.split(os.path.expanduser(text))
    try:
        names = sorted(name for name in files(folder) if name.startswith(beginning))
    except OSError:
        return []
    paths = [os.path.join(folder, name) for name in names if beginning.startswith(".") or not name.startswith(".")]
    return [path + "/" if os.path.isdir(path) else path for path in paths]


def talk(captioner: CaptionPipeline, decoding: Beam, style: Callable[[str], str] = str) -> int:
    """Read lines until the user has had enough; lines of a pipe are answered alike, without a prompt."""
    prompt, asked = Prompt(captioner, decoding, style=style), sys.stdin.isatty()
    if asked:
        _edit_lines()
        print(f"{captioner.name}: give the path of a picture or clip (:help says more)")
    while True:
        try:
            line = input("> " if asked else "")
        except EOFError:
            return 0
        except KeyboardInterrupt:
            print()
            continue
        if not prompt.answer(line):
            return 0


def _edit_lines() -> None:
    """History that lasts and completion by Tab, where Python has readline."""
    try:
        import atexit
        import readline
    except ImportError:
        return
    path = HISTORY.expanduser()
    with suppress(OSError):  # the first time, or not ours to read
        readline.read_history_file(path)
    readline.set_history_length(1000)
    readline.set_completer_delims("\n")
    readline.set_completer(lambda text, state: dict(enumerate(complete(text))).get(state))
    readline.parse_and_bind("tab: complete")

    def save() -> None:
        with suppress(OSError):
            readline.write_history_file(path)

    atexit.register(save)
