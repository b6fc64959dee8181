"""An explanation as a file: a figure, a film, or a folder of frames, by the ending of its name."""

from pathlib import Path

from limner.explanations import video
from limner.explanations.explanation_input import DisplayFrames
from limner.explanations.figure import strip_figure, word_figure
from limner.explanations.fonts import check_font, use_font
from limner.explanations.maps import Explanation

FILMS = (".mp4", ".gif")


def write_explanation(
    explanation: Explanation, shown: DisplayFrames, out: Path, overwrite: bool = False, font: str = ""
) -> None:
    """Write a figure (a panel per word, for a clip a row of frames per word), a film, or a folder of frames.

    `overwrite` replaces the PNG files of a folder.  `font` is a font file for words that DejaVu Sans cannot show.
    Raises ValueError for an ending that is no format, and for a file that is no font.
    """
    check_font(font)
    with use_font(font):
        _write(explanation, shown, out, overwrite)


def _write(explanation: Explanation, shown: DisplayFrames, out: Path, overwrite: bool) -> None:
    """`write_explanation` with the font in use."""
    if not out.suffix or out.suffix.lower() in FILMS or out.is_dir():
        video.write_film(explanation, shown, out, overwrite)
    elif len(shown.frames) == 1:
        word_figure(shown.frames[0], explanation, out, kept_region=shown.kept_region)
    else:
        strip_figure(shown, explanation, out)
