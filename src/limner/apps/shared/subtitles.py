"""Captions as subtitles: SubRip (.srt) and WebVTT (.vtt, https://www.w3.org/TR/webvtt1/)."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from limner.apps.shared.arguments import WrongArguments
from limner.core.files import write_text
from limner.data.archives import find_archive
from limner.data.media import MEDIA_SUFFIXES

LINE = 42  # characters of a subtitle line, the usual limit


class Cue(NamedTuple):
    """A text and the time in which it is shown, in seconds."""

    start: float
    end: float
    text: str


def to_srt(cues: Sequence[Cue]) -> str:
    """SubRip text: numbered cues with times HH:MM:SS,mmm.  Cues without words are left out."""
    spoken = [(cue, _wrapped(cue.text)) for cue in cues if cue.text.split()]
    return "".join(
        f"{number}\n{timestamp(cue.start, ',')} --> {timestamp(cue.end, ',')}\n{text}\n\n"
        for number, (cue, text) in enumerate(spoken, 1)
    )


def to_vtt(cues: Sequence[Cue]) -> str:
    """WebVTT text: a header, then cues with times HH:MM:SS.mmm.  Markup characters are escaped."""
    spoken = [(cue, _wrapped(cue.text)) for cue in cues if cue.text.split()]
    return "WEBVTT\n\n" + "".join(
        f"{timestamp(cue.start)} --> {timestamp(cue.end)}\n{_escaped(text)}\n\n" for cue, text in spoken
    )


WRITERS = {".srt": to_srt, ".vtt": to_vtt}


def timestamp(seconds: float, point: str = ".") -> str:
    """Seconds as HH:MM:SS.mmm; hours may have more than two digits.

    >>> timestamp(90.5)
    '00:01:30.500'
    """
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def subtitle_paths(option: str, suffix: str, clips: Sequence[str]) -> dict[str, Path]:
    """The subtitle file of every video.

    `option` is empty (beside the videos), a file that ends in `suffix` (for a single video), or a folder.  Raises
    WrongArguments when there is no video, when two videos would share a file, or when `option` is an image or a video.
    """
    name = suffix[1:]
    if not clips:
        raise WrongArguments(f"--{name}: there is no video among the files")
    if Path(option).suffix.lower() in MEDIA_SUFFIXES and not Path(option).is_dir():
        raise WrongArguments(f"--{name} {option} is an image or a video; put --{name} after the files")
    if option.lower().endswith(suffix):
        if len(clips) > 1:
            raise WrongArguments(f"--{name} {option} is one file, for {len(clips)} videos: name a folder instead")
        return {clips[0]: Path(option)}
    if not option and (inside := [clip for clip in clips if find_archive(clip)]):
        raise WrongArguments(f"--{name}: {inside[0]} lies inside another file; name a folder for the subtitles")
    paths = {clip: (Path(option) / Path(clip).name if option else Path(clip)).with_suffix(suffix) for clip in clips}
    owners: dict[Path, str] = {}
    for clip, path in paths.items():
        if owners.setdefault(path, clip) != clip:
            raise WrongArguments(
                f"--{name}: {owners[path]} and {clip} would both write {path}; caption them in separate calls"
            )
    return paths


def write_subtitles(cues: Mapping[str, Sequence[Cue]], paths: Mapping[str, Path], suffix: str) -> list[Path]:
    """Write a subtitle file for every video that has cues, and return the files."""
    written = [clip for clip in paths if cues.get(clip)]
    for clip in written:
        write_text(paths[clip], WRITERS[suffix](cues[clip]))
    return [paths[clip] for clip in written]


def _wrapped(text: str) -> str:
    """Lines of at most `LINE` characters.  There are no blank lines, which would end a cue."""
    return "\n".join(textwrap.wrap(" ".join(text.split()), LINE))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
