"""The fonts of figures and films: DejaVu Sans, as matplotlib brings it, and a font file that a user names.

DejaVu Sans has the letters of Latin, Greek, Cyrillic and Arabic, but none of Chinese, Japanese, Korean, Thai or Hindi.
"""

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from PIL import ImageFont

_CHOSEN: ContextVar[str] = ContextVar("font", default="")  # path of the user's font; "" is DejaVu Sans


def _dejavu(weight: str = "-Bold") -> str:
    from matplotlib import get_data_path

    return f"{get_data_path()}/fonts/ttf/DejaVuSans{weight}.ttf"


@cache
def _characters_of(path: str) -> frozenset[int]:
    """The code points for which a font file has a glyph."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


def check_font(path: str) -> None:
    """Raise FileNotFoundError or ValueError, with the path, for a file that is no font; "" is none."""
    if not path:
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f"--font {path}: there is no such file; give a .ttf, .otf or .ttc file")
    try:
        ImageFont.truetype(path, 12)
        _characters_of(path)
    except (OSError, RuntimeError) as error:
        why = f"is no font that can be read ({error}); give a .ttf, .otf or .ttc file"
        raise ValueError(f"--font {path} {why}") from error


def missing_glyphs(text: str, font: str = "") -> str:
    """The characters of a text that neither a font file nor DejaVu Sans has, each once.

    >>> missing_glyphs("a dog, 狗, собака")
    '狗'
    """
    known = _characters_of(_dejavu()) | (_characters_of(font) if font else frozenset())
    drawn = (char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Zs"))
    return "".join(dict.fromkeys(char for char in drawn if ord(char) not in known))


def glyph_note(text: str, font: str = "") -> str:
    """What to do about characters that are drawn as boxes; "" when there are none."""
    if not (missing := missing_glyphs(text, font)):
        return ""
    where = f"{font} and DejaVu Sans have" if font else "DejaVu Sans has"
    shown = missing[:10] + ("..." if len(missing) > 10 else "")
    return (
        f"the font {where} no glyph for {len(missing)} characters, which are drawn as boxes ({shown}): give a font "
        "that has them with --font FILE.ttf, for example one of Noto Sans"
    )


@contextmanager
def use_font(path: str) -> Iterator[None]:
    """Draw figures and films with a font file meanwhile, and with DejaVu Sans what it lacks; "" is DejaVu Sans."""
    from matplotlib import font_manager, rc_context

    families = ["DejaVu Sans"]
    if path:
        font_manager.fontManager.addfont(path)
        families.insert(0, font_manager.FontProperties(fname=path).get_name())
    token = _CHOSEN.set(path)
    try:
        with rc_context({"font.family": families}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # `glyph_note` says so
            yield
    finally:
        _CHOSEN.reset(token)


def font_of(text: str, size: int, weight: str = "-Bold") -> ImageFont.FreeTypeFont:
    """The font for a text in a film: the user's where it has the characters, or else DejaVu Sans."""
    chosen = _CHOSEN.get()
    if chosen and not (set(map(ord, text)) - {ord(" ")}) <= _characters_of(_dejavu(weight)):
        return _load(chosen, size)
    return _load(_dejavu(weight), size)


@cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
