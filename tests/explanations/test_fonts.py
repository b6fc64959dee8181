"""Fonts of figures and films: a user's font draws what DejaVu Sans lacks, and boxes are noted."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image

from limner.apps.cli import main
from limner.explanations.fonts import font_of, glyph_note, missing_glyphs, use_font

STIX = f"{get_data_path()}/fonts/ttf/STIXGeneral.ttf"  # it has U+29A0, which DejaVu Sans lacks
ANGLE = "\u29a0"


def test_what_the_fonts_lack():
    assert missing_glyphs(f"a dog {ANGLE} 狗 собака\u200b") == f"{ANGLE}狗"
    assert missing_glyphs(f"{ANGLE}狗狗", STIX) == "狗"
    assert glyph_note("a dog") == glyph_note(ANGLE, STIX) == ""
    assert glyph_note("狗在") == (
        "the font DejaVu Sans has no glyph for 2 characters, which are drawn as boxes (狗在): give a font that has "
        "them with --font FILE.ttf, for example one of Noto Sans"
    )
    assert glyph_note("狗", STIX).startswith(f"the font {STIX} and DejaVu Sans have no glyph for 1 characters")


def test_each_text_of_a_film_has_the_font_that_can_show_it():
    with use_font(STIX):
        assert font_of(ANGLE, 12).path == STIX
        assert font_of("a dog", 12).path.endswith("DejaVuSans-Bold.ttf")
    assert font_of(ANGLE, 12).path.endswith("DejaVuSans-Bold.ttf")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("ending", [".png", ".gif"])
def test_command(photo: Path, ending: str, tmp_path: Path, capsys):
    given = ["explain", str(photo), "--sentence", f"a {'狗'}"]
    pages = []
    for number, more in enumerate(([], ["--font", STIX])):
        out = tmp_path / f"{number}{ending}"
        assert main([*given, "--out", str(out), *more]) == 0
        err = capsys.readouterr().err
        assert "no glyph for 1 characters, which are drawn as boxes (狗)" in err and "UserWarning" not in err
        pages.append(np.asarray(Image.open(out).convert("RGB")))
    if ending == ".png":  # all words of a figure are in the user's font
        assert pages[0].shape != pages[1].shape or (pages[0] != pages[1]).any()


def test_a_file_that_is_no_font(photo: Path, capsys):
    assert main(["explain", str(photo), "--font", str(photo)]) == 1
    assert f"--font {photo} is no font that can be read" in capsys.readouterr().err
    assert main(["explain", str(photo), "--font", "none.ttf"]) == 1
    assert "--font none.ttf: there is no such file; give a .ttf, .otf or .ttc file" in capsys.readouterr().err
