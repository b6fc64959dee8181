"""Means over seeds: by hand, by the oracle of all draws, and by the command."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from limner.apps.cli import main
from limner.comparison.compare import compare
from limner.comparison.seeds import compare_seeds, mean_of_drawn_runs
from tests.comparison.world import BAD, GOOD, compared_run, data_set, media, run

MIXED = {**GOOD, "y": "a car"}


def test_the_variance_of_drawn_seeds_is_that_of_their_mean():
    """Scores 0, 0 and 3 on every draw of media: s^2 / 3 = 1, as two of three runs drawn with replacement give."""
    every = [(a + b) / 2 for a, b in product((0, 0, 3), repeat=2)]
    assert np.var(every) == pytest.approx(1) and np.mean(every) == pytest.approx(1)
    samples = np.repeat(np.array([0.0, 0.0, 3.0])[:, None, None], 20_000, 2)
    drawn = mean_of_drawn_runs(samples, np.random.default_rng(0))
    assert set(np.unique(drawn)) == set(every) and drawn.shape == (1, 20_000)
    assert np.var(drawn) == pytest.approx(1, abs=0.05) and np.mean(drawn) == pytest.approx(1, abs=0.02)


def test_a_single_run_keeps_its_draws():
    samples = np.arange(6.0).reshape(1, 2, 3)
    assert np.array_equal(mean_of_drawn_runs(samples, np.random.default_rng(0)), samples[0])


def test_means_and_spreads_by_hand():
    """Each run is scored as in a comparison of single runs; single runs on both sides give the same differences."""
    runs = [compared_run(name, captions) for name, captions in (("a", BAD), ("b", MIXED), ("c", GOOD), ("d", GOOD))]
    single = compare(runs, media(), "split", 50)
    found = compare_seeds([runs[:2], runs[2:]], media(), "split", 50)
    first, second = found.groups
    for name in found.metrics:
        scores = [it.scores[name].value for it in single.runs]
        assert first.scores[name] == pytest.approx(scores[:2]) and first.means[name].value == pytest.approx(
            sum(scores[:2]) / 2
        )
        assert first.spread[name] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5) and second.spread[name] == 0
        difference = found.differences[0][name]
        assert difference.value == pytest.approx(sum(scores[2:]) / 2 - sum(scores[:2]) / 2)
        assert difference.low <= difference.value <= difference.high or name.startswith("BLEU")
    alone = compare_seeds([runs[:1], runs[1:2]], media(), "split", 50)
    assert alone.differences[0] == compare(runs[:2], media(), "split", 50).differences[0]
    assert "A is a single run: its interval says nothing about seeds" in alone.warnings


def test_the_command_with_groups(tmp_path: Path, capsys):
    data = data_set(tmp_path / "data")
    runs = [str(run(tmp_path / name, data, captions)) for name, captions in
            (("a_1", BAD), ("a_2", MIXED), ("b_1", GOOD), ("b_2", GOOD), ("b_3", MIXED))]  # fmt: skip
    out = [str(tmp_path / f"c.{ending}") for ending in ("html", "json", "tex")]
    options = ["--out", out[0], "--json", out[1], "--latex", out[2], "--bootstrap", "50", "--tokenizer", "simple"]
    assert main(["compare", *runs[:2], "--", *runs[2:], *options]) == 0
    shown = capsys.readouterr().out
    assert "A (2 runs)" in shown and "B (3 runs)" in shown and "B − A" in shown and "±" in shown
    assert max(len(line) for line in shown.splitlines() if not line.startswith("wrote ")) <= 80
    saved = json.loads(Path(out[1]).read_text())
    assert [len(group["runs"]) for group in saved["groups"]] == [2, 3]
    mean = saved["groups"][0]["scores"]["BLEU-1"]
    assert mean["value"] == pytest.approx(sum(mean["runs"]) / 2) and mean["spread"] > 0
    assert "a_1, a_2" in Path(out[0]).read_text() and "\\pm" in Path(out[2]).read_text()
    assert main(["compare", *runs[:2], "--", "--out", out[0]]) == 2
    assert "`--` stands between groups of runs" in capsys.readouterr().err


def test_the_column_of_the_references(tmp_path: Path, capsys):
    for name, captions in (("a", BAD), ("b", GOOD)):
        rows = [{"image_id": id, "caption": text} for id, text in captions.items()]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    lines = [f"{id},{GOOD[id]},{BAD[id]}" for id in GOOD]
    (tmp_path / "refs.csv").write_text("\n".join(["file,english,other", *lines]))
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    given = ["--out", str(tmp_path / "c.html"), "--json", str(tmp_path / "c.json"), "--bootstrap", "20"]
    references = ["--references", str(tmp_path / "refs.csv"), "--caption-column", "english"]
    assert main(["compare", *files, *given, *references]) == 0
    assert json.loads((tmp_path / "c.json").read_text())["runs"][1]["scores"]["BLEU-1"]["value"] == pytest.approx(1)
    capsys.readouterr()
    assert main(["compare", *files, *given, "--caption-column", "english", "--overwrite"]) == 2
    assert "--caption-column is of the references" in capsys.readouterr().err
