"""Captions as subtitles: SubRip (.srt) and WebVTT (.vtt, https://www.w3.org/TR/webvtt1/)."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from limner.apps.shared.arguments import WrongArguments
from limner.core.files import write_text
from limner.data.media import MEDIA_SUFFIXES

LINE = 42  # letters that a line of subtitles usually holds at most


class Cue(NamedTuple):
    """A text and when it is shown, in seconds."""

    start: float
    end: float
    text: str


def to_srt(cues: Sequence[Cue]) -> str:
    """Numbered cues; HH:MM:SS,mmm."""
    shown = [(cue, _lines(cue.text)) for cue in cues if cue.text.split()]
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{text}\n\n"
        for number, (cue, text) in enumerate(shown, 1)
    )


def to_vtt(cues: Sequence[Cue]) -> str:
    """A header, then cues; HH:MM:SS.mmm; what WebVTT reads as markup is escaped."""
    shown = [(cue, _lines(cue.text)) for cue in cues if cue.text.split()]
    return "WEBVTT\n\n" + "".join(
        f"{clock(cue.start)} --> {clock(cue.end)}\n{_escaped(text)}\n\n" for cue, text in shown
    )


WRITERS = {".srt": to_srt, ".vtt": to_vtt}


def clock(seconds: float, point: str = ".") -> str:
    """90.5 -> 00:01:30.500; hours may have more than two digits."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def places(option: str, suffix: str, clips: Sequence[str]) -> dict[str, Path]:
    """Where the subtitles of every clip go.

    `option` is empty (beside the clips), a file ending in `suffix` (of one clip), or a folder.  Raises ValueError when
    two clips would share a file, or when it is something else.
    """
    name = suffix[1:]
    if not clips:
        raise WrongArguments(f"--{name}: there is no clip among the sources")
    if Path(option).suffix.lower() in MEDIA_SUFFIXES and not Path(option).is_dir():
        raise WrongArguments(f"--{name} {option} is a picture or clip; put --{name} behind the sources")
    if option.lower().endswith(suffix):
        if len(clips) > 1:
            raise WrongArguments(f"--{name} {option} is one file, for {len(clips)} clips: name a folder instead")
        return {clips[0]: Path(option)}
    found = {clip: (Path(option) / Path(clip).name if option else Path(clip)).with_suffix(suffix) for clip in clips}
    seen: dict[Path, str] = {}
    for clip, place in found.items():
        if seen.setdefault(place, clip) != clip:
            raise WrongArguments(f"--{name}: {seen[place]} and {clip} would both write {place}; caption them apart")
    return found


def write(cues: Mapping[str, Sequence[Cue]], files: Mapping[str, Path], suffix: str) -> list[Path]:
    """Write the subtitles of every clip that has cues -> the files."""
    written = [clip for clip in files if cues.get(clip)]
    for clip in written:
        write_text(files[clip], WRITERS[suffix](cues[clip]))
    return [files[clip] for clip in written]


def _lines(text: str) -> str:
    """Wrapped; without the blank lines that would end a cue."""
    return "\n".join(textwrap.wrap(" ".join(text.split()), LINE))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
