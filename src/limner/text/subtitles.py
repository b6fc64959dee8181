"""Captions as subtitles: SubRip (.srt) and WebVTT (.vtt, https://www.w3.org/TR/webvtt1/)."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

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


def _wrapped(text: str) -> str:
    """Lines of at most `LINE` characters.  There are no blank lines, which would end a cue."""
    return "\n".join(textwrap.wrap(" ".join(text.split()), LINE))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
