"""`limner watch`: caption what arrives in a folder, or what a camera sees."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from limner.apps.shared.arguments import WrongArguments, only_decoding
from limner.apps.shared.caption_writers import sidecar_writer, wording_of
from limner.apps.shared.captioning import provenance_of, style_of
from limner.apps.shared.confidence import require_calibration
from limner.apps.shared.decoding import decoding_of
from limner.apps.shared.models import open_captioner
from limner.apps.shared.watch_folder import Captioning, FolderWatch, drop_cut_line
from limner.core.files import check_writable
from limner.core.locks import lock_output
from limner.inference.context import context_of
from limner.inference.load import PromptedPipeline
from limner.inference.pieces import Cut
from limner.watching.arrivals import Arrivals
from limner.watching.hook import Hook
from limner.watching.state import WatchState

STATE = ".limner-watch"
OF_FOLDERS = ("once", "state", "sidecar", "existing", "prefix", "suffix", "template", "context", "frames", "clip",
              "shots", "every", "whole")  # fmt: skip
OF_CAMERAS = ("fast", "seconds", "preview", "srt", "vtt", "overwrite")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    changes = only_decoding(rest)
    _check_options(options)
    if options.camera is not None:
        from limner.apps.shared.watch_camera import watch_camera

        with stopping() as stop:
            return watch_camera(options, _captioning(options, changes)[0], _hook(options), stop)
    if not os.path.isdir(options.folder):
        raise ValueError(f"{options.folder} is no folder: name the folder in which files arrive, or give --camera")
    state = options.state or Path(options.folder, STATE)
    with lock_output(state):
        return _watch_folder(options, changes, state)


def _watch_folder(options: argparse.Namespace, changes: dict[str, str], state_path: Path) -> int:
    """Watch the folder, while the lock of the state file is held."""
    sidecars, hook = sidecar_writer(options, wording_of(options, inside=False)), _hook(options)
    for path in filter(None, (options.out, state_path)):
        check_writable(path)
    if options.out and options.out.exists() and not state_path.exists():
        raise FileExistsError(
            f"{options.out} exists, and {state_path} does not, which would tell what made its captions: choose "
            "another name for --out"
        )
    captioning, made_with = _captioning(options, changes)
    state = WatchState(state_path, made_with)
    if options.out:
        drop_cut_line(options.out)
    arrivals = Arrivals(os.path.normpath(options.folder), options.recursive, options.settle, options.patience)
    watch = FolderWatch(arrivals, state, captioning, options.out, sidecars, hook)
    with stopping() as stop:
        watch.run(options.interval, options.once, stop)
        ended = "stopped; what was begun is finished" if stop.is_set() else "done"
    if watch.kept:
        print(
            f"note: files that have a sidecar and keep it: {watch.kept} (--existing overwrite, append or prepend "
            "changes it)",
            file=sys.stderr,
        )
    print(f"{ended}: {watch.captions} captions, {watch.problems} problems", flush=True)
    return 3 if watch.problems else 0


def _captioning(options: argparse.Namespace, changes: dict[str, str]) -> tuple[Captioning, dict[str, Any]]:
    """The model with all that decides about its captions, and that as JSON values."""
    whole = argparse.Namespace(**{"others": [], "weights": None, "average": "probabilities", **vars(options)})
    captioner = open_captioner(whole)
    for note in captioner.notes if isinstance(captioner, PromptedPipeline) else ():
        print(f"note: {note}", file=sys.stderr)
    decoding = decoding_of(whole, changes, captioner.decoding, captioner.vocabulary)
    if options.min_confidence is not None:
        require_calibration(captioner, decoding)
    cut = Cut(options.every, options.shots, options.whole)
    notes: list[str] = []
    known = partial(context_of, kind=options.context, notes=notes) if options.context else None
    captioning = Captioning(
        captioner, decoding, cut, options.batch_size, style_of(options), options.min_confidence, known, notes
    )
    return captioning, provenance_of(whole, captioner, decoding, cut)


def _hook(options: argparse.Namespace) -> Hook | None:
    """What --exec runs; None without it."""
    try:
        return None if options.exec is None else Hook.parse(options.exec, options.exec_timeout)
    except ValueError as error:
        raise WrongArguments(str(error)) from error


def _check_options(options: argparse.Namespace) -> None:
    """Raise WrongArguments for options that contradict each other."""
    if (options.folder is None) == (options.camera is None):
        raise WrongArguments("name a folder to watch, or give --camera SOURCE, and not both")
    other, what = (OF_FOLDERS, "a folder") if options.camera is not None else (OF_CAMERAS, "--camera")
    if given := [name for name in other if getattr(options, name)]:
        raise WrongArguments(f"--{given[0]} is about {what}")
    if options.out and options.out.suffix != ".jsonl":
        raise WrongArguments(f"--out {options.out}: captions are appended as they come, so the ending is .jsonl")
    if options.out and options.out.is_dir():
        raise WrongArguments(f"--out {options.out} is a folder; name a file in it")
    if options.max_chars and options.style != "alt-text":
        raise WrongArguments("--max-chars is for alternative text: give --style alt-text")


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, so that what was begun is finished; a second signal interrupts."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
