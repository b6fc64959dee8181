"""The command line from end to end, on a run of the micro-world that was trained for a few steps."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import COMMANDS, main
from limner.apps.shared import journal as rows_of
from limner.apps.shared.arguments import overrides
from limner.apps.shared.captioning import provenance
from limner.core.files import sha256
from limner.data import shapes
from limner.encoders import SmallCNN
from limner.inference.pipeline import Pipeline
from limner.metrics.microworld import accuracy
from limner.metrics.references import References
from limner.metrics.report import evaluate
from limner.runs import evaluation
from limner.runs.evaluation import coco_results
from limner.runs.recipe_file import load_recipe
from limner.runs.run import load_run

BY = {"model": "00ff", "decoding": {"size": 1}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures whose names have commas, quotes, blanks and other letters in them."""
    folder = tmp_path_factory.mktemp("my photos, mostly")
    for k, name in enumerate(('a, "b".png', "sub/c d.PNG", "e.jpg", "ö.png", "7.png")):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("limner: ") and error.count("\n") == 1, error
    return error


def rows(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def test_training_left_a_whole_run(tiny: Path):
    names = {"recipe.json", "vocabulary.json", "run.json", "log.jsonl", "model.safetensors", "last.safetensors"}
    assert names <= {path.name for path in (tiny / "run").iterdir()}
    recipe = load_recipe(tiny / "run" / "recipe.json")
    assert recipe.seed == 1 and recipe.frames == 4  # both ways of writing an override
    assert load_run(tiny / "run").recipe == recipe


def test_overrides_on_the_command_line():
    assert overrides(["--a.b", "1", "--c=x=y", "--d", "-1"]) == [("a.b", "1"), ("c", "x=y"), ("d", "-1")]
    for words, message in ((["x"], "expected --field value, got 'x'"), (["--a"], "--a needs a value")):
        with pytest.raises(ValueError, match=message):
            overrides(words)


def test_evaluate(tiny: Path, tmp_path: Path, capsys):
    assert main(["evaluate", str(tiny / "run"), "--split", "val", "--out", str(tmp_path), "--beam", "1"]) == 0
    captions = json.loads((tmp_path / "captions.json").read_text())
    truth = {medium.id: medium.references for medium in shapes.load_world(tiny / "world") if medium.split == "val"}
    assert [set(row) for row in captions] == [{"image_id", "caption"}] * len(truth)
    assert {row["image_id"] for row in captions} == set(truth)
    scores = json.loads((tmp_path / "scores.json").read_text())
    again = evaluate({row["image_id"]: row["caption"] for row in captions}, References(truth))
    assert scores["scores"] == pytest.approx(again.scores) and scores["split"] == "val"
    scenes = shapes.read_truth(tiny / "world")
    judged = {row["image_id"]: row["caption"] for row in captions}
    assert scores["exact"] == accuracy(judged, {id: scenes[id] for id in judged}) and 0 <= scores["novelty"] <= 1
    assert scores["decoding"]["size"] == 1 and [row["id"] for row in scores["segments"]] == list(truth)
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in (tiny / "run" / "log.jsonl").read_text().splitlines()]
    assert {"object", "colour", "hallucination"} <= rows[-1].keys()  # validations are held against the truth as well
    assert "CIDEr" in shown and f"{len(truth)} media" in shown
    assert main(["evaluate", str(tiny / "run"), "--split", "fold"]) == 1
    assert "no media in split 'fold'" in one_line(capsys)


def test_data_that_lie_elsewhere_by_now(tiny: Path, tmp_path: Path, capsys):
    """The same scores from a copy of the pictures, whose place the run does not know."""
    shutil.copytree(tiny / "world", tmp_path / "moved")
    shutil.copytree(tiny / "run", tmp_path / "run")
    text = (tiny / "run" / "recipe.json").read_text().replace(str(tiny / "world"), str(tmp_path / "gone"))
    (tmp_path / "run" / "recipe.json").write_text(text)
    given = [str(tmp_path / "run"), "--limit", "2"]
    assert main(["evaluate", *given, "--split", "val"]) == 1
    options = ["--limit", "2", "--split", "val", "--metrics", "CIDEr", "--out"]
    moved = ["--data.media", str(tmp_path / "moved")]
    assert main(["evaluate", str(tmp_path / "run"), *options, str(tmp_path / "there"), *moved]) == 0
    assert main(["evaluate", str(tiny / "run"), *options, str(tmp_path / "here")]) == 0
    here, there = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("here", "there"))
    assert here["scores"] == there["scores"] and here["segments"] == there["segments"] and len(here["segments"]) == 2
    assert main(["explain", *given, "--score", "--method", "attention", "--data.media", str(tmp_path / "moved")]) == 0
    capsys.readouterr()
    assert main(["evaluate", *given, "--model.hidden", "3"]) == 2
    assert "unknown arguments: --model.hidden (see --help; of a run's recipe, data, features," in one_line(capsys)


def test_coco_ids_are_numbers():
    found = coco_results({"42": "a", "007": "b", "x": "c"})
    assert [row["image_id"] for row in found] == [42, "007", "x"]


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_captions_of_a_folder(tiny: Path, photos: Path, tmp_path: Path, ending: str):
    out = tmp_path / f"c.{ending}"
    assert main(["caption", str(photos), "--model", str(tiny / "run"), "--out", str(out)]) == 0
    found = rows(out)
    expected = [photos / name for name in ("7.png", 'a, "b".png', "e.jpg", "sub/c d.PNG", "ö.png")]
    assert [row["file"] for row in found] == [str(path) for path in expected]
    pipeline = Pipeline.load(tiny / "run")
    for row, path in zip(found, expected, strict=True):
        caption = pipeline.caption(path)
        assert row["caption"] == caption.text and float(row["logprob"]) == pytest.approx(caption.logprob, abs=1e-3)
        assert str(row["finished"]) == str(caption.finished)
    if ending == "json":
        assert [row["image_id"] for row in found] == [7, 'a, "b"', "e", "c d", "ö"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]  # no side file stays


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl"])
def test_every_text_survives_every_format(tmp_path: Path, ending: str):
    text = 'a "dog", a\u2028cat;\n\tand «ö»'
    row = {"file": 'a,"b".png', "caption": text, "logprob": -1.25, "finished": False}
    (tmp_path / f"x{ending}").write_text(rows_of.WRITERS[ending]([row]), encoding="utf-8", newline="")
    (tmp_path / f"x{ending}.partial").write_text(rows_of.to_jsonl([BY, row | {"file": "b"}]), encoding="utf-8")
    journal = rows_of.Journal(tmp_path / f"x{ending}", resume=True, provenance=BY)
    assert list(journal.rows.values()) == [row, row | {"file": "b"}]


def test_the_screen(tiny: Path, photos: Path, capsys):
    run = ["--model", str(tiny / "run")]
    assert main(["caption", str(photos / "7.png"), *run]) == 0
    alone = capsys.readouterr().out
    assert alone == Pipeline.load(tiny / "run").caption(photos / "7.png").text + "\n"
    assert main(["caption", str(photos / "e.jpg"), str(photos / "7.png"), str(photos / "e.jpg"), *run]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1] == f"{photos / '7.png'}: {alone.strip()}"


def test_interrupted_and_resumed(tiny: Path, photos: Path, tmp_path: Path, monkeypatch, capsys):
    command = ["caption", str(photos), "--model", str(tiny / "run"), "--batch-size", "1", "--out"]
    assert main([*command, str(tmp_path / "whole.csv")]) == 0
    whole, asked = Pipeline.captions, []

    def stopping(pipeline, sources, *rest):
        asked.append(list(sources))
        for number, item in enumerate(whole(pipeline, asked[-1], *rest)):
            if number == 3 and len(asked) == 1:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(Pipeline, "captions", stopping)
    out, partial = tmp_path / "c.csv", tmp_path / "c.csv.partial"
    assert main([*command, str(out)]) == 130
    advice = f"the captions so far are in {partial}; continue with: limner caption {shlex.quote(str(photos))} "
    note, _, error = capsys.readouterr().err.rpartition("limner: ")
    assert "notes.txt" in note and error.startswith("interrupted; ") and error.count("\n") == 1
    assert advice in error and error.endswith(f"--out {out} --resume\n") and not out.exists()
    data = partial.read_bytes()
    assert data.count(b"\n") == 1 + 3  # what made the captions, and three of them
    partial.write_bytes(data[:-20])  # the kill came within a line
    assert main([*command, str(out), "--resume"]) == 0
    assert len(asked[0]) == 5 and len(asked[1]) == 3  # two whole rows were kept
    assert out.read_text() == (tmp_path / "whole.csv").read_text() and not partial.exists()
    assert main([*command, str(out), "--resume"]) == 0 and asked[2] == []
    assert out.read_text() == (tmp_path / "whole.csv").read_text()


def test_a_cut_within_a_letter(tiny: Path, photos: Path, tmp_path: Path):
    by = provenance(sha256(tiny / "run" / "model.safetensors"), load_run(tiny / "run").recipe.decoding)
    row = {"file": str(photos / "7.png"), "caption": "kept", "logprob": -1.0, "finished": True}
    cut = rows_of.to_jsonl([{"file": str(photos / "ö.png"), "caption": "", "logprob": -1.0, "finished": True}])
    data = rows_of.to_jsonl([by, row]).encode() + cut.encode().split("ö".encode())[0] + "ö".encode()[:1]
    (tmp_path / "c.jsonl.partial").write_bytes(data)
    out = ["--out", str(tmp_path / "c.jsonl"), "--resume"]
    assert main(["caption", str(photos), "--model", str(tiny / "run"), *out]) == 0
    found = rows(tmp_path / "c.jsonl")
    assert len(found) == 5 and found[0]["caption"] == "kept" != found[4]["caption"]


def test_a_thousand_files_with_three_bad_ones(tiny: Path, tmp_path: Path, capsys):
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(1000):
        pixels = np.full((8, 8, 3), k % 250, np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:04}.png", compress_level=1)
    (folder / "0123.png").write_bytes(b"")
    (folder / "0500.png").write_bytes(b"<html>not found</html>")
    (folder / "0999.png").write_bytes((folder / "0999.png").read_bytes()[:40])
    options = ["--beam", "1", "--max-length", "4", "--batch-size", "128", "--out", str(tmp_path / "c.csv")]
    assert main(["caption", str(folder), "--model", str(tiny / "run"), *options]) == 3
    found = rows(tmp_path / "c.csv")
    bad = {"0123.png", "0500.png", "0999.png"}
    assert len(found) == 997 and not bad & {Path(row["file"]).name for row in found}
    error = capsys.readouterr().err.splitlines()
    assert error[0] == "3 files could not be read:" and len(error) == 4
    assert all(name in line for name, line in zip(sorted(bad), error[1:], strict=True))


@pytest.mark.parametrize("beam", ["1", "3"])
def test_explain(tiny: Path, photos: Path, tmp_path: Path, capsys, beam: str):
    """A panel for the picture and one for each word, in rows of five; 120 dots per inch."""
    picture = tiny / "world" / "images" / "000000.png"
    command = ["explain", str(tiny / "run"), str(picture), "--beam", beam, "--decoding.rules.min_length", "6", "--out"]
    assert main([*command, str(tmp_path / "f.png")]) == 0
    words = capsys.readouterr().out.splitlines()[0].split()
    assert 6 <= len(words) <= 10
    lines = -(-(len(words) + 1) // 5)
    size = Image.open(tmp_path / "f.png").size
    assert size == (round(2.3 * 5 * 120), int((0.55 + lines * 2.65 + 0.20) * 120))  # a line below says what is shown
    assert main([*command, str(tmp_path / "f.svg")]) == 0
    assert len(re.findall(r"<image ", (tmp_path / "f.svg").read_text())) == len(words) + 1


def test_explain_asks_the_encoder_what_it_saw(tiny: Path, tmp_path: Path, monkeypatch):
    """A picture 10 high and 30 wide, of which the encoder says it saw the middle third."""
    seen = []
    monkeypatch.setattr(
        SmallCNN, "kept_region", lambda encoder, height, width: (height / width, 0, 2 * height / width, 1)
    )
    monkeypatch.setattr("limner.explanations.write.word_figure", lambda *_, kept_region: seen.append(kept_region))
    Image.new("RGB", (30, 10)).save(tmp_path / "x.png")
    assert main(["explain", str(tiny / "run"), str(tmp_path / "x.png"), "--out", str(tmp_path / "f.png")]) == 0
    assert seen == [(1 / 3, 0, 2 / 3, 1)]


def test_mistakes_are_one_line_and_have_a_status(tiny: Path, photos: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, recipe, photo = str(tiny / "run"), str(tiny / "tiny.yaml"), str(photos / "7.png")
    for arguments, message, status in [
        (["caption", photo, "--model", "nowhere"], "nowhere is not a run folder", 1),
        (["caption", photo, "--model", run, "--out", "c.txt"], "--out c.txt: the ending chooses the format", 2),
        (["caption", photo, "--model", run, "--resume"], "--resume needs --out", 2),
        (["caption", photo, "--model", run, "--bean", "3"], "unknown arguments: --bean 3", 2),
        (["caption", photo, "--model", run, "--out", "."], "--out .: the ending chooses the format", 2),
        (["caption", photo, "--model", run, "--recursive"], "unknown arguments: --recursive", 2),
        (["caption", photo, "--model", run, "--device", "foo"], "--device foo: unknown; give cpu, cuda", 2),
        (["explain", run, "clip.MP4", "--out", "f.png"], "clip.MP4: there is no such file", 1),
        (["evaluate", run, "extra"], "unknown arguments: extra", 2),
        (["explain", run, "nowhere.jpg", "--out", "f.png"], "nowhere.jpg: there is no such file", 1),
        (["explain", run, photo, "--out", "f.bmp"], "f.bmp: the ending chooses the format", 2),
        (["train", recipe, "--start", "nowhere"], "start: nowhere is not a run folder here", 1),
        (["train", "nowhere.yaml"], "no recipe at nowhere.yaml", 1),
        (
            ["train", recipe, "--stages.0.learning_rte", "1"],
            "stages.0 has no field 'learning_rte'; it has objective",
            2,
        ),
        (["train", recipe, "--seed"], "--seed needs a value", 2),
        (["train", recipe, "--data.media", "nowhere", "--out", "r"], "nowhere", 1),
        (["train", recipe, "--out", run], "already holds a run; continue it with --resume", 1),
        (["train", recipe, "--stages.0.epochs", "0"], "stages.0.epochs: Input should be greater than 0", 2),
        (["train", recipe, "--stages.7.epochs", "1"], "stages.7.epochs: the list has items 0 to 0, got '7'", 2),
        (["train", recipe, "--validation.metric", "spider"], "unknown metric 'spider'; known are BLEU-1", 2),
        (["evaluate", run, "--metrics", "spider"], "unknown metric 'spider'; known are BLEU-1", 2),
        (["evaluate", run, "--frames", "0"], "frames: Input should be greater than 0", 2),
        (["evaluate", run, "--beam", "2", "--n-best", "3"], "a beam of 2 cannot give the 3 best captions", 2),
        (["extract", run, "--out", "f", "--augmentations", "full,rot"], "unknown augmentation 'rot'; known are", 2),
        (["shapes", "--out", "w", "--images", "0"], "there must be at least one image or clip", 2),
    ]:
        assert main(arguments) == status, arguments
        assert message in one_line(capsys), arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "x.png", "--model", "r", "--batch-size", "0"],
        ["caption", "x.png", "--model", "r", "--batch-size", "-3"],
        ["caption", "x.png", "--model", "r", "--beam", "0"],
        ["caption", "x.png", "--model", "r", "--max-length", "1.5"],
        ["evaluate", "r", "--limit", "0"],
        ["evaluate", "r", "--limit", "-2"],
        ["extract", "r.yaml", "--frames", "0"],
        ["extract", "r.yaml", "--batch-size", "x"],
    ],
)
def test_counts_begin_at_one(arguments: list[str], capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    shown = rf"argument {arguments[-2]}(/--\S+)?: expected a whole number from 1 on, got '{arguments[-1]}'"
    assert re.search(shown, capsys.readouterr().err)


def test_only_problems_of_the_evaluated_split_count(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    """A caption dropped in another split is mentioned, and the exit status stays 0."""
    read = evaluation.read_dataset

    def with_problems(lines: tuple[str, ...]) -> int:
        monkeypatch.setattr(evaluation, "read_dataset", lambda config: replace(read(config), problems=lines))
        return main(["evaluate", str(tiny / "run"), "--split", "val", "--beam", "1", "--out", str(tmp_path)])

    dataset = read(load_run(tiny / "run").recipe.data)
    train, val = dataset.split("train")[0].id, dataset.split("val")[0].id
    assert with_problems((f"{train}: 1 empty caption(s) dropped", "line 4: no file name")) == 0
    assert capsys.readouterr().err == "2 more in the rest of the data set, see scores.json\n"
    assert with_problems((f"{val}: 1 empty caption(s) dropped",)) == 3
    assert capsys.readouterr().err == f"1 problem in the data:\n  {val}: 1 empty caption(s) dropped\n"


def test_a_missing_file_is_skipped_and_named(tiny: Path, photos: Path, capsys):
    command = ["caption", "nowhere.jpg", str(photos / "7.png"), str(photos / "notes.txt"), "--model", str(tiny / "run")]
    assert main(command) == 3
    shown = capsys.readouterr()
    assert shown.err.startswith("2 files could not be read:") and "nowhere.jpg: there is no such file" in shown.err
    assert "notes.txt: neither an image nor a video that is read" in shown.err and "7.png: " in shown.out


def test_debugging_shows_where(tiny: Path, monkeypatch):
    monkeypatch.setenv("LIMNER_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        main(["train", "nowhere.yaml"])


def test_help_of_every_command(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0 and f"limner {name}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["paint"])
    assert left.value.code == 2


def test_training_goes_on_after_resume(tiny: Path, capsys):
    """A finished run resumed says so and leaves the weights."""
    before = (tiny / "run" / "model.safetensors").read_bytes()
    command = ["train", str(tiny / "tiny.yaml"), "--out", str(tiny / "run"), "--seed", "1", "--frames", "4", "--resume"]
    assert main(command) == 0
    assert "run folder:" in capsys.readouterr().out
    assert (tiny / "run" / "model.safetensors").read_bytes() == before
