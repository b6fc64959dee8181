"""An explanation as a file: a figure, a film, or a folder of frames, by the ending of its name."""

from pathlib import Path

from limner.explanations import video
from limner.explanations.explanation_input import DisplayFrames
from limner.explanations.figure import strip_figure, word_figure
from limner.explanations.maps import Explanation

FILMS = (".mp4", ".gif")


def write_explanation(explanation: Explanation, shown: DisplayFrames, out: Path) -> None:
    """Write the film or folder of frames that `out` names, or a figure: a panel per word, of a clip a row of frames."""
    if not out.suffix or out.suffix.lower() in FILMS or out.is_dir():
        video.write_film(explanation, shown, out)
    elif len(shown.frames) == 1:
        word_figure(shown.frames[0], explanation, out, kept_region=shown.kept_region)
    else:
        strip_figure(shown, explanation, out)
