"""Numbers, LaTeX and histograms: what is written, read back."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.comparison.compare import compare
from limner.comparison.formatting import format_interval, format_p_value, format_signed, format_x100, is_significant
from limner.comparison.histogram import differences_chart, scores_chart, ticks
from limner.comparison.latex import escape_latex, latex_table
from limner.metrics.significance import Difference, Estimate
from tests.comparison.world import BAD, GOOD, REFERENCES, compared_run, media


def test_numbers_as_papers_print_them():
    assert (format_x100(0.5703), format_x100(1.204), format_signed(0.0437), format_signed(-0.0437)) == (
        "57.0",
        "120.4",
        "+4.4",
        "−4.4",
    )
    assert (format_signed(-0.0001), format_signed(0.0001)) == ("0.0", "0.0")
    assert format_interval(Estimate(0.5, 0.4, 0.6)) == "[40.0, 60.0]"
    assert format_interval(Difference(0.5, -0.1, 0.2, 1)) == "[−10.0, +20.0]"
    assert [format_p_value(Difference(0.1, 0, 0.2, p)) for p in (1 / 1001, 0.0014, 0.25, 1)] == [
        "<.001",
        ".001",
        ".250",
        "1",
    ]
    assert is_significant(Difference(1, 0.1, 2, 0.01)) and is_significant(Difference(-1, -2, -0.1, 0.01))
    assert not is_significant(Difference(1, 0, 2, 0.01)) and not is_significant(Difference(0, 0, 0, 1))


@given(st.floats(-1000, 999), st.floats(0.001, 2000))
def test_ticks_are_few_and_round(low: float, width: float):
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    assert steps == pytest.approx(steps[0])
    assert re.fullmatch("[125]0*", f"{float(f'{steps[0]:.6g}'):e}".split("e")[0].replace(".", ""))
    assert low - width * 1e-6 <= found[0] and found[-1] <= low + width * (1 + 1e-6)


def test_a_difference_is_drawn_on_its_own_half():
    values = np.array([-0.2, -0.1, 0.0, 0.0001, 0.005, 0.2, 0.2])  # bars are .4 / 30 = .013 wide
    drawn = differences_chart("CIDEr", ("A", 0), ("B", 1), values)
    bars = re.findall(r'<rect class="s(\d)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"', drawn)
    assert [bar[0] for bar in bars] == ["0", "0", "1", "1"]
    assert all((float(x) + float(width) <= 160) == (side == "0") for side, x, width, _ in bars)
    assert float(bars[3][3]) == pytest.approx(2 * float(bars[0][3]), abs=0.1)  # two items are twice as high as one
    assert ">A higher: 2<" in drawn and ">equal: 2<" in drawn and ">B higher: 3<" in drawn


def test_scores_of_nothing_but_zeros_can_be_drawn():
    drawn = scores_chart("BLEU-4", "AB", [np.zeros(3), np.zeros(3)]) + differences_chart(
        "BLEU-4", ("A", 0), ("B", 1), np.zeros(3)
    )
    assert "at 0: A 3, B 3" in drawn and ">equal: 3<" in drawn and "nan" not in drawn and "inf" not in drawn


def test_an_outline_has_the_area_of_its_items():
    drawn = scores_chart("ROUGE-L", "A", [np.array([0.1, 0.1, 0.9, 1.0])])
    (path,) = re.findall(r'<path class="curve s0" d="([^"]+)"', drawn)
    ys = [float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", path)][:-1:2]
    heights = [(max(ys) - y) / (max(ys) - min(ys)) for y in ys]
    assert sorted(heights)[-3:] == [0.5, 0.5, 1.0] and sum(heights) == 2.0  # .1 twice, .9 and 1.0 once
    assert "tallest: 2 items" in drawn and "Means: A 52.5" in drawn


def test_latex_prints_any_name():
    assert escape_latex("50%_of $&#{}") == r"50\%\_of \$\&\#\{\}"
    assert escape_latex('\\~^<>|"') == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}\textquotedbl{}"
    )
    assert escape_latex("a\x00\ud800\nb é") == "ab é"


def test_a_latex_table_has_a_row_per_run_and_equally_many_cells():
    found = compare([compared_run("a_1", GOOD), compared_run("b&c", BAD)], media(), "split", 50)
    text = latex_table(found)
    rows = [line.strip() for line in text.splitlines() if line.endswith("\\\\")]
    assert {row.replace("\\&", "").count("&") for row in rows} == {len(found.metrics)}
    assert (
        rows[1].startswith(r"a\_1 & ") and rows[2].startswith(r"b\&c & ") and rows[3].startswith(r"$\Delta$ b\&c & $-")
    )
    assert rows[-1].startswith(r"one human$^{\dagger}$ & ")
    for pair in ("{}", "[]"):
        assert text.count(pair[0]) == text.count(pair[1])
    assert text.count("$") % 2 == 0
    single = media({id: texts[:1] for id, texts in REFERENCES.items()})
    assert "dagger" not in latex_table(compare([compared_run("a", GOOD), compared_run("b", BAD)], single, "split", 2))
