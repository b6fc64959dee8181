"""Evaluation of a split: what is wrong with the rest of the data set is told apart, and nothing is decoded twice."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from limner.data import batches
from limner.models.sa_lstm import SaLstmConfig
from limner.models.sft import SftConfig
from limner.models.spatial_transformer import SpatialTransformerConfig
from limner.runs import evaluation as evaluation_module
from limner.runs.evaluation import evaluate_run, write_evaluation
from limner.runs.run import Run, load_run
from limner.training.train import train
from tests.training.world import pictures, recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("evaluation")
    folder = pictures(root / "data", 9, 7)
    return load_run(train(recipe(folder, ("encoder.size", 136)), root / "run"))  # too large to be kept decoded


def test_every_medium_is_decoded_once(run: Run, monkeypatch):
    asked: Counter[str] = Counter()
    read = batches.read_medium

    def counted(medium, *options):
        asked[medium.id] += 1
        return read(medium, *options)

    whole = evaluate_run(run, "val")
    monkeypatch.setattr(batches, "read_medium", counted)
    monkeypatch.setattr(evaluation_module, "CHUNK", 3)
    found = evaluate_run(run, "val")
    assert asked == {f"v{k}": 1 for k in range(7)}
    assert found.captions == whole.captions and list(found.captions) == list(asked)
    assert found.report.scores == whole.report.scores and found.problems == found.other_problems == ()


def test_problems_of_the_split_and_of_other_splits_are_separate(run: Run, tmp_path: Path):
    folder = Path(run.recipe.data.media)
    lines = (folder / "captions.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    bad = [{**rows[0], "id": name, "split": split, "caption": text} for name, split, text in EXTRA]
    (folder / "bad.png").write_bytes(b"no picture")
    bad.append({"file": "bad.png", "id": "broken", "split": "val", "caption": "a thing"})
    (folder / "captions.jsonl").write_text(lines + "".join(json.dumps(row) + "\n" for row in bad))
    try:
        found = evaluate_run(run, "val")
    finally:
        (folder / "captions.jsonl").write_text(lines)
    assert {line.split(":")[0] for line in found.problems} == {"mute", "broken"}
    assert {line.split(":")[0] for line in found.other_problems} == {"empty"}
    assert len(found.captions) == 7
    write_evaluation(found, tmp_path, {})
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (len(scores["problems"]), len(scores["other_problems"])) == (len(found.problems), 1)


@pytest.mark.parametrize(
    ("model", "again"), [(SpatialTransformerConfig(), False), (SaLstmConfig(), False), (SftConfig(), True)]
)
def test_advice_for_a_run_without_inputs_can_be_followed(run: Run, model, again: bool):
    """Converters of systems that were published on features alone refuse --encoder."""
    bare = replace(run, encoder=None, recipe=replace(run.recipe, model=model))
    with pytest.raises(ValueError, match=r"has no encoder, .*: give stored features .* with --features PATH") as error:
        evaluate_run(bare, "val")
    assert "limner convert --from bottom-up FILE.tsv --out STORE" in str(error.value)
    assert ("convert it again with --encoder" in str(error.value)) == again


EXTRA = [("empty", "train", "..."), ("mute", "val", "...")]
