"""Searches, samples and ensembles from the command line, on the tiny run."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.pipeline import Pipeline


@pytest.fixture
def pictures(tiny: Path) -> list[str]:
    return [str(path) for path in sorted((tiny / "world/images").glob("*.png"))[:3]]


def caption(tiny: Path, tmp_path: Path, pictures: list[str], *more: str) -> list[dict]:
    out = tmp_path / "out.jsonl"
    out.unlink(missing_ok=True)
    assert main(["caption", *pictures, "--model", str(tiny / "run"), "--out", str(out), *more]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_n_best(tiny: Path, tmp_path: Path, pictures: list[str]):
    best, several = (
        caption(tiny, tmp_path, pictures, "--beam", "4"),
        caption(tiny, tmp_path, pictures, "--beam", "4", "--n-best", "3"),
    )
    for one, row in zip(best, several, strict=True):
        logprobs = [logprob for _, logprob in row["others"]]
        assert (
            row["caption"] == one["caption"] and len(row["others"]) == 2 and logprobs == sorted(logprobs, reverse=True)
        )
        assert len({row["caption"], *(text for text, _ in row["others"])}) == 3
    parted = caption(tiny, tmp_path, pictures, "--beam", "4", "--groups", "2", "--diversity", "2", "--n-best", "2")
    assert all("others" in row for row in parted)


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_several_survive_a_resume(tiny: Path, tmp_path: Path, pictures: list[str], suffix: str):
    out = tmp_path / f"out.{suffix}"
    command = ["caption", "--model", str(tiny / "run"), "--out", str(out), "--beam", "3", "--n-best", "2"]
    assert main([*command, *pictures]) == 0
    before = out.read_text()
    assert main([*command, *pictures, "--resume"]) == 0
    assert out.read_text() == before
    if suffix == "csv":
        rows = list(csv.DictReader(before.splitlines()))
        assert all(len(json.loads(row["others"])) == 1 for row in rows)


def test_samples(tiny: Path, tmp_path: Path, pictures: list[str]):
    drawing = ("--sample", "4", "--temperature", "1.5", "--top-k", "30", "--top-p", "0.99")
    runs = [caption(tiny, tmp_path, pictures, *drawing, "--seed", seed) for seed in ("1", "1", "2")]
    assert runs[0] == runs[1] != runs[2] and all(len(row["others"]) == 3 for row in runs[0])


def test_words_that_must_and_must_not(tiny: Path, tmp_path: Path, pictures: list[str]):
    words = Pipeline.load(tiny / "run").vocabulary.words
    said = {word for row in caption(tiny, tmp_path, pictures) for word in row["caption"].split()}
    other = next(word for word in words[4:] if word not in said)
    held = caption(tiny, tmp_path, pictures, "--must", other)
    assert all(other in row["caption"].split() for row in held)
    never = sorted(said)[0]
    free = caption(tiny, tmp_path, pictures, "--never", f"{never}, zebra", "--no-trigrams", "--no-bad-endings")
    assert not any(never in row["caption"].split() for row in free)


def test_an_ensemble_of_twins_and_one_that_cannot_be(tiny: Path, tmp_path: Path, pictures: list[str], capsys):
    alone = caption(tiny, tmp_path, pictures)
    both = caption(tiny, tmp_path, pictures, "--with", str(tiny / "run"), "--weights", "2,1")
    assert [row["caption"] for row in both] == [row["caption"] for row in alone]
    other = tmp_path / "other"
    shutil.copytree(tiny / "run", other)
    words = json.loads((other / "vocabulary.json").read_text())
    words["words"][5], words["words"][6] = words["words"][6], words["words"][5]
    (other / "vocabulary.json").write_text(json.dumps(words))
    assert main(["caption", *pictures, "--model", str(tiny / "run"), "--with", str(other)]) == 1
    assert "members need one vocabulary" in capsys.readouterr().err
    assert main(["evaluate", str(tiny / "run"), "--with", str(other)]) == 1


def test_evaluate(tiny: Path, tmp_path: Path):
    command = ["evaluate", str(tiny / "run"), "--split", "val", "--limit", "3", "--metrics", "CIDEr,BLEU-4"]
    if main([*command, "--out", str(tmp_path / "probe")]) == 2:
        command = command[:-2]
    plain = json.loads((tmp_path / "probe/scores.json").read_text())
    assert (
        main(
            [*command, "--out", str(tmp_path / "twins"), "--with", str(tiny / "run"), "--average", "log_probabilities"]
        )
        == 0
    )
    twins = json.loads((tmp_path / "twins/scores.json").read_text())
    assert twins["scores"] == plain["scores"] and len(twins["ensemble"]["runs"]) == 2
    assert main([*command, "--out", str(tmp_path / "several"), "--beam", "3", "--n-best", "2"]) == 0
    several = json.loads((tmp_path / "several/several.json").read_text())
    first = {
        str(row["image_id"]): row["caption"] for row in json.loads((tmp_path / "several/captions.json").read_text())
    }
    assert [captions[0] for captions in several.values()] == list(first.values())
    assert all(len(captions) == 2 for captions in several.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "0.5"], "temperature are about drawing captions: give --sample N too"),
        (["--sample", "2", "--beam", "3"], "--sample draws captions: --beam"),
        (["--must", "zebra"], "the vocabulary has no 'zebra', which must appear"),
        (["--beam", "5", "--groups", "2"], "5 hypotheses cannot be parted into 2 equal groups"),
        (["--with", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_slips_are_errors_that_help(tiny: Path, pictures: list[str], capsys, arguments: list[str], message: str):
    assert main(["caption", *pictures, "--model", str(tiny / "run"), *arguments]) == 1
    assert message in capsys.readouterr().err
