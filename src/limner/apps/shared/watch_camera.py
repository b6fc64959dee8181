"""The work of `limner watch --camera`: captions of a camera, a stream or a film when the scene changes."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from threading import Event

import numpy as np

from limner.apps.shared.arguments import WrongArguments, check_outputs
from limner.apps.shared.captioning import in_style, row_of
from limner.apps.shared.confidence import shown_text
from limner.apps.shared.journal import Row, printable
from limner.apps.shared.watch_folder import Captioning, append_rows
from limner.core.files import write_text
from limner.core.torch_free import Caption, Failure
from limner.inference.load import PromptedPipeline
from limner.inference.pieces import Piece
from limner.text.subtitles import WRITERS, Cue, timestamp
from limner.watching.camera import Camera, Film, Frame, open_source
from limner.watching.hook import Hook
from limner.watching.preview import FilmPreview, HttpPreview, Preview
from limner.watching.scenes import SIDE, LiveScenes, Seen, caption_scenes


class CameraWatch:
    """Hands on the captions of scenes: to the console, an output file, subtitles, a preview and a command."""

    def __init__(self, name: str, minimum: float | None, out: Path | None, subtitles: list[Path], hook: Hook | None):
        self.name, self.minimum, self.out, self.subtitles, self.hook = name, minimum, out, subtitles, hook
        self.preview: Preview | None = None
        self.text = ""  # the caption of the moment
        self.second = 0.0  # of the last frame
        self.captions = self.problems = 0
        self._cues: list[Cue] = []
        self._pool = ThreadPoolExecutor(1)  # runs the command, so that it never holds up a caption
        self._running: list[Future[str]] = []

    def watched(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames, which the preview shows."""
        for frame in frames:
            self.second = frame.second
            if self.preview is not None:
                self.preview.show(frame, self.text)
            yield frame

    def add(self, seen: Seen) -> None:
        """Hand on the caption of a scene."""
        if isinstance(seen.caption, Failure):
            self.tell(seen.caption.reason)
            return
        row = row_of(Piece(self.name), seen.caption, self.minimum) | {"start": round(seen.scene.start, 3)}
        print(f"{timestamp(seen.scene.start)}: {shown_text(row)}", flush=True)
        self.captions += 1
        self.text = row["caption"]
        if self.out:
            append_rows(self.out, [row])
        self._end_cue(seen.scene.start)
        self._cues.append(Cue(seen.scene.start, seen.scene.start, row["caption"]))
        if self.hook and row["caption"]:
            self._run_hook(self.hook, row)

    def finish(self, end: float) -> None:
        """End the last subtitle, and wait for the command."""
        self._end_cue(end)
        self._pool.shutdown()
        self._tell_failures()
        if self.preview is not None:
            self.preview.close()

    def tell(self, problem: str) -> None:
        """Print a problem."""
        self.problems += 1
        print(f"! {problem}", file=sys.stderr, flush=True)

    def _end_cue(self, end: float) -> None:
        """Let the last subtitle end, and write the subtitles so far."""
        if self._cues:
            self._cues[-1] = self._cues[-1]._replace(end=max(end, self._cues[-1].start))
        for path in self.subtitles if self._cues else ():
            write_text(path, WRITERS[path.suffix](self._cues))

    def _run_hook(self, hook: Hook, row: Row) -> None:
        self._tell_failures()
        self._running.append(self._pool.submit(hook.run, self.name, [row]))

    def _tell_failures(self) -> None:
        for future in [future for future in self._running if future.done()]:
            self._running.remove(future)
            if wrong := future.result():
                self.tell(wrong)


def watch_camera(options: argparse.Namespace, how: Captioning, hook: Hook | None, stop: Event) -> int:
    """Caption what the source shows until it ends or `stop` is set."""
    port = _port(options.preview)
    subtitles = _subtitle_files(options)
    film = Path(options.preview) if options.preview and port is None else None
    check_outputs(options, options.out, *subtitles, film, inputs=[options.camera])
    source = open_source(options.camera, options.fast)
    if options.out:
        write_text(options.out, "")
    watch = CameraWatch(printable(source.name), how.minimum, options.out, subtitles, hook)
    if film is not None:
        watch.preview = FilmPreview(film, wait=source.fast)
    elif port is not None:
        watch.preview = server = HttpPreview(port, watch.name)
        print(f"preview at {server.address}", flush=True)
    frames: Iterable[Frame] = source.frames(stop)
    if options.seconds is not None:
        frames = takewhile(lambda frame: frame.second < options.seconds, frames)
    with ExitStack() as stack:
        stack.callback(lambda: watch.finish(_end(source, watch, options.seconds, stop)))
        if source.fast:
            for seen in caption_scenes(watch.watched(frames), _captioner(how)):
                watch.add(seen)
        else:
            _warm_up(how)
            live = LiveScenes(watch.watched(frames), _captioner(how), stop)
            for seen in live:
                watch.add(seen)
            if live.dropped:
                print(f"note: {live.dropped} short scenes ended before they got a caption", file=sys.stderr)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    ended = "stopped; what was begun is finished" if stop.is_set() else "done"
    print(f"{ended}: {watch.captions} captions, {watch.problems} problems", flush=True)
    return 3 if watch.problems else 0


def _captioner(how: Captioning) -> Callable[[np.ndarray], Caption | Failure]:
    """What captions one picture."""

    def caption(picture: np.ndarray) -> Caption | Failure:
        ((_, result),) = how.captioner.captions([picture], how.decoding, 1)
        return result if isinstance(result, Failure) else in_style(result, how.style)

    return caption


def _warm_up(how: Captioning) -> None:
    """Caption a grey picture: the first caption takes longer than the others.  A server is not bothered with it."""
    if not isinstance(how.captioner, PromptedPipeline):
        _captioner(how)(np.full((SIDE // 2, SIDE, 3), 127, np.uint8))


def _end(source: Film | Camera, watch: CameraWatch, seconds: float | None, stop: Event) -> float:
    """When the last scene ended."""
    if source.end is None or stop.is_set() or seconds is not None:
        return watch.second
    return source.end


def _port(preview: str | None) -> int | None:
    """The port of `--preview http:PORT`, 0 of `http`; None for a film.  Raises WrongArguments."""
    if preview is None:
        return None
    found = re.fullmatch(r"http(?::(\d{1,5}))?", preview)
    if found is None and not preview.lower().endswith(".mp4"):
        raise WrongArguments(f"--preview {preview}: give FILE.mp4, http or http:PORT")
    return None if found is None else int(found[1] or 0)


def _subtitle_files(options: argparse.Namespace) -> list[Path]:
    """The files of --srt and --vtt.  Raises WrongArguments for another ending."""
    for name in ("srt", "vtt"):
        path = getattr(options, name)
        if path is not None and path.suffix != f".{name}":
            raise WrongArguments(f"--{name} {path}: the file ends in .{name}")
    return [path for path in (options.srt, options.vtt) if path is not None]
