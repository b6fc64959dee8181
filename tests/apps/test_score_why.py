"""`limner score --why ID`: the same numbers as `limner score`, for one caption."""

import json
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.metrics.breakdown import caption as breakdown
from limner.metrics.meteor import MissingTablesError
from limner.metrics.references import References
from limner.metrics.report import METRICS, evaluate
from tests.apps.test_cli import one_line

CAPTIONS = {"7": "a cat on a mat", "8": "two dogs [bold]run[/]", "9": "the \u001b[31mbird"}
REFERENCES = {"7": ["a cat sits on a mat", "the cat"], "8": ["two dogs are running", "dogs"], "9": ["a bird", "birds"]}


@pytest.fixture(autouse=True)
def without_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(line: str, references: object) -> None:
        raise MissingTablesError("METEOR needs tables")

    monkeypatch.setitem(METRICS, "METEOR", METRICS["ROUGE-L"])
    monkeypatch.setattr(breakdown, "break_down_meteor", missing)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    for name, value in (("preds", CAPTIONS), ("refs", REFERENCES)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    files = ["--candidates", str(tmp_path / "preds.json"), "--references", str(tmp_path / "refs.json")]
    return ["score", *files, "--tokenizer", "simple"]


def test_json_has_the_scores_of_the_report(command: list[str], capsys) -> None:
    report = evaluate(CAPTIONS, References(REFERENCES, "simple"))
    for row in report.segments:
        assert main([*command, "--why", str(row["id"]), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["id"] == row["id"] and found["caption"] == row["caption"]
        for name in ("BLEU-4", "ROUGE-L", "CIDEr"):
            assert found["scores"][name] == pytest.approx(row[name], abs=1e-12)
    assert main([*command, "--why", "val/0007.jpg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bleu"]["orders"][0]["matches"][0] == {"ngram": ["a"], "count": 2, "reference": 2, "clipped": 2}
    assert found["references"] == REFERENCES["7"] and found["cider"]["media"] == 3


def test_the_terminal_shows_every_step(command: list[str], capsys) -> None:
    assert main([*command, "--why", "7"]) == 0
    shown = capsys.readouterr()
    for text in ("1-grams of the caption: 5 of 5 match", "precision = 3 / 4 = 0.7500", "cat on a mat",
                 "exp(1 - 6 / 5) = 0.8187", "idf = log(3 / media whose references have the n-gram)",
                 "scores of this caption x100"):  # fmt: skip
        assert text in shown.out, text
    assert "note: METEOR is not shown: METEOR needs tables" in shown.err


def test_captions_are_neither_markup_nor_control_characters(command: list[str], capsys) -> None:
    assert main([*command, "--why", "8"]) == 0
    assert "two dogs [bold]run[/]" in capsys.readouterr().out
    assert main([*command, "--why", "9"]) == 0
    assert "\x1b[31m" not in capsys.readouterr().out


def test_mistakes(command: list[str], tmp_path: Path, capsys) -> None:
    for arguments, message, status in [
        (["--why", "77"], "there is no caption with the id '77'; near ones are '7'", 1),
        (["--why", "dog"], "there is no caption with the id 'dog'; the 3 ids are '7', '8', '9'", 1),
        (["--json"], "--json prints one caption: give --why ID too", 2),
        (["--why", "7", "--out", str(tmp_path / "s.json")], "--why prints one caption's scores: leave out --out", 2),
        (["--why", "7", "--diversity"], "leave out --diversity", 2),
        (["--why", "7", "--metrics", "CIDEr"], "leave out --metrics", 2),
    ]:
        assert main([*command, *arguments]) == status, arguments
        assert message in one_line(capsys), arguments
