"""`limner calibrate`, and confidences in the output of `limner caption`."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import limner
from limner.apps.cli import main
from limner.apps.shared.journal import finished_rows
from limner.data.media import read_image
from limner.decode.confidence import FILE, load_calibration
from tests.export.worlds import limner as export_command


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run, calibrated on its 80 % of training images (a test needs more than its few others)."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(tiny / "run", folder)
    world = folder.parent / "world"
    assert main(["shapes", "--out", str(world), "--images", "80", "--size", "32"]) == 0
    bar = str(_median_score(folder, world))
    arguments = ["--split", "train", "--bar", bar, "--data.media", str(world), "--figure", str(folder / "fit.svg")]
    assert main(["calibrate", str(folder), *arguments]) == 0
    return folder


def _median_score(folder: Path, world: Path) -> float:
    """A bar that half of the captions exceed, or nearly."""
    evaluation = limner.evaluate(folder, "train", metrics=["CIDEr"], overrides={"data.media": str(world)})
    return float(np.median([float(row["CIDEr"]) for row in evaluation.report.segments]))


@pytest.fixture(scope="module")
def files(tiny: Path) -> list[str]:
    return [str(path) for path in sorted((tiny / "world" / "images").iterdir())[:6]]


def test_the_command_writes_a_calibration_and_a_diagram(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = load_calibration(run)
    assert found is not None and found.media == "images" and len(found.familiarity.mean) == 8
    assert found.measured["captions"] >= 50
    assert sum(found.measured["held out, 5 folds"]["counts"]) == found.measured["captions"]
    assert (run / "fit.svg").read_text().startswith("<?xml")
    assert main(["calibrate", str(run), "--split", "train"]) == 1  # and a damaged one could be made again
    assert "calibration.json exists: give --overwrite" in capsys.readouterr().err


def test_python_gives_confidences_for_this_search_only(run: Path, tiny: Path, files: list[str]) -> None:
    captioner, plain = limner.load(run), limner.load(tiny / "run")
    for file in files:
        found = captioner.caption(file)
        assert found.confidence is not None and 0 < found.confidence < 1
        assert found.text == plain.caption(file).text and plain.caption(file).confidence is None
    assert captioner.caption(files[0], beam=3).confidence is None
    calibration = captioner.calibration
    assert calibration is not None
    for limit, expected in ((0.0, True), (float("inf"), False)):
        captioner.calibration = replace(calibration, familiarity=replace(calibration.familiarity, limit=limit))
        assert captioner.caption(files[0]).unfamiliar is expected
    clip = np.concatenate([read_image(file) for file in files[:3]])
    assert (captioner.caption(clip).confidence, captioner.caption(clip).unfamiliar) == (None, None)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "html"])
def test_captions_below_the_minimum_are_withheld_and_counted(
    run: Path, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    sure = [limner.load(run).caption(file) for file in files]
    minimum = float(np.median([each.confidence for each in sure]))
    out = tmp_path / f"out.{suffix}"
    assert main(["caption", *files, "--model", str(run), "--out", str(out), "--min-confidence", str(minimum)]) == 0
    assert "of 6 captions are withheld: their confidence is below" in capsys.readouterr().err
    rows = finished_rows(out)
    for row, caption in zip(rows, sure, strict=True):
        assert row["confidence"] == pytest.approx(caption.confidence, abs=1e-4)
        assert row["unfamiliar"] is caption.unfamiliar
        low = caption.confidence is not None and caption.confidence < minimum
        assert (row["caption"], row.get("withheld")) == (("", caption.text) if low else (caption.text, None))
    assert any("withheld" in row for row in rows) and not all("withheld" in row for row in rows)


def test_an_output_without_confidences_is_continued(run: Path, tiny: Path, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert main(["caption", *files[:3], "--model", str(tiny / "run"), "--out", str(out)]) == 0
    assert main(["caption", *files, "--model", str(run), "--out", str(out), "--resume"]) == 0
    with open(out, newline="") as file:
        cells = [row["confidence"] for row in csv.DictReader(file)]
    assert cells[:3] == ["", "", ""] and all(map(float, cells[3:]))


def test_a_minimum_needs_the_calibrated_search(
    run: Path, tiny: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", files[0], "--model", str(tiny / "run"), "--min-confidence", ".5"]) == 2
    assert "has no calibration; make one with: limner calibrate RUN" in capsys.readouterr().err
    assert main(["caption", files[0], "--model", str(run), "--beam", "4", "--min-confidence", ".5"]) == 2
    assert "hold for the search that was calibrated" in capsys.readouterr().err
    assert main(["caption", files[0], "--model", str(run), "--min-confidence", "1"]) == 0
    assert capsys.readouterr().out.startswith("(withheld: confidence 0.")


def test_packed_and_exported_models_take_it_along(run: Path, files: list[str], tmp_path: Path) -> None:
    assert main(["pack", str(run), "--out", str(tmp_path / "x.limner")]) == 0
    assert main(["calibrate", str(tmp_path / "x.limner")]) == 2
    export_command("export", run, "--out", tmp_path / "x.onnx", "--check", Path(files[0]).parent)
    expected = [limner.load(run).caption(file) for file in files]
    for name in ("x.limner", "x.onnx"):
        for file, caption in zip(files, expected, strict=True):
            found = limner.load(tmp_path / name).caption(file)
            assert found.confidence == pytest.approx(caption.confidence, abs=1e-3)
            assert found.unfamiliar == caption.unfamiliar
    manifest = json.loads((tmp_path / "x.onnx" / "model.json").read_text())
    assert FILE in manifest["files"]
    (tmp_path / "x.onnx" / FILE).write_text("{}")
    with pytest.raises(ValueError, match="is not the file that was exported"):
        limner.load(tmp_path / "x.onnx")
