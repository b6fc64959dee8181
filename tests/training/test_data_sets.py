"""Training, extraction and evaluation with several data sets in one recipe."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from limner.apps.cli import main
from limner.core.tensors import load_tensors
from limner.data.datasets import DataConfig, read_dataset
from limner.data.store import FeatureStore
from limner.metrics.references import References
from limner.metrics.report import evaluate, select_metrics
from limner.runs.evaluation import evaluate_run, write_evaluation
from limner.runs.package import open_package, pack
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe, save_recipe
from limner.runs.run import Run, load_run
from limner.training.session import Session, ignore_events
from limner.training.stage import StageTrainer
from limner.training.train import train
from tests.training.world import Watched, log_of, pictures, recipe

SHORT = ("a boat", "two boats")
METRICS = select_metrics(["CIDEr", "BLEU-2"])


def data_sets(root: Path, share: float = 0.5, val: Sequence[int] = (3, 2)) -> tuple[DataConfig, DataConfig]:
    """10 and 8 training images, and for validation copies of the first 3 and 2; the ids are the same in both."""
    folders = pictures(root / "one", 10, val[0]), pictures(root / "two", 8, val[1], captions=SHORT)
    one, two = (DataConfig("jsonl", str(folder), str(folder / "captions.jsonl")) for folder in folders)
    return replace(one, label="one"), replace(two, label="two", share=share)


def of(root: Path, data: Any, **stage: Any) -> Recipe:
    return replace(recipe(root / "one", ("model.dropout", 0.3), **{"epochs": 3, "batch_size": 4, **stage}), data=data)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Watched]:
    root = tmp_path_factory.mktemp("data_sets")
    whole, watched = of(root, data_sets(root)), Watched()
    return whole, train(whole, root / "run", callback=watched), watched


@pytest.fixture(scope="module")
def run(world: tuple[Recipe, Path, Watched]) -> Run:
    return load_run(world[1])


def test_training_says_what_each_data_set_has(world):
    facts = world[2].of("start")[0]
    assert facts["training media"] == 18 and facts["validation media"] == 5
    assert facts["data sets"] == "one (10 training, 3 validation), two (8 training, 2 validation, share 0.5)"
    assert world[2].of("step")[0]["batches"] == 4  # 10 + 4 pairs in fours
    words = json.loads((world[1] / "vocabulary.json").read_text())["words"]
    assert {"boat", "boats", "dog"} <= set(words)  # of all training captions, whatever the share


def test_a_single_data_set_may_have_a_share_too(tmp_path: Path):
    one = replace(data_sets(tmp_path)[0], label="", share=0.5)
    watched = Watched()
    folder = train(of(tmp_path, one, epochs=2), tmp_path / "run", callback=watched)
    assert watched.of("start")[0]["data sets"] == "(10 training, 3 validation, share 0.5)"
    assert [facts["batches"] for facts in watched.of("step")] == [2, 2, 2, 2]  # 5 of 10 pairs, in fours
    assert "/CIDEr" not in (folder / "log.jsonl").read_text()


def test_the_log_has_the_scores_of_each_and_the_metric_of_all_decides(world):
    rows = [row for row in log_of(world[1]) if "CIDEr" in row]
    assert len(rows) == 3 and all({"one/CIDEr", "two/CIDEr", "one/BLEU-4", "two/BLEU-4"} <= row.keys() for row in rows)
    best = load_tensors(world[1] / "last.safetensors")[1]
    assert json.loads(best["position"])["best_score"] == pytest.approx(max(row["CIDEr"] for row in rows), rel=1e-5)


def test_an_interrupted_run_draws_the_same_shares(world, tmp_path: Path):
    whole = replace(world[0], checkpoint_steps=1, stages=(replace(world[0].stages[0], epochs=2),))
    reference = train(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):  # in the second epoch
        train(whole, tmp_path / "again", callback=Watched(("step", 6)))
    train(whole, tmp_path / "again", resume=True)
    ours, theirs = (load_tensors(folder / "model.safetensors")[0] for folder in (reference, tmp_path / "again"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert log_of(reference) == log_of(tmp_path / "again")


def test_objectives_get_the_media_of_all_data_sets(world, tmp_path: Path):
    """Self-critical training counts the documents of CIDEr in them; equal ids are two documents."""
    context = StageTrainer(Session(world[0], tmp_path / "run", ignore_events), 0).context()
    assert len(context.media) == len({medium.id for medium in context.media}) == 18


def test_evaluation_scores_each_data_set_and_all_together(run: Run, tmp_path: Path):
    found = evaluate_run(run, "val", metrics=METRICS)
    media = {medium.id: medium for medium in read_dataset(run.recipe.data).split("val")}
    assert list(found.captions) == ["one/v0", "one/v1", "one/v2", "two/v0", "two/v1"]
    assert found.report.scores == scores(found.captions, media)
    assert list(found.by_data_set) == ["one", "two"]
    for label, report in found.by_data_set.items():
        captions = {id: text for id, text in found.captions.items() if id.startswith(label)}
        alone = evaluate_run(run, "val", metrics=METRICS, data_set=label)
        assert report.scores == alone.report.scores == scores(captions, media)
        assert alone.captions == captions and alone.by_data_set == {}
    write_evaluation(found, tmp_path, {"split": "val"})
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert saved["data_sets"]["two"]["scores"] == found.by_data_set["two"].scores
    assert saved["data_sets"]["two"]["protocol"]["images"] == 2 and saved["protocol"]["images"] == 5
    assert [row["image_id"] for row in json.loads((tmp_path / "captions.json").read_text())] == list(found.captions)


def scores(captions, media) -> dict[str, float]:
    references = References({id: media[id].references for id in captions})
    return evaluate(captions, references, METRICS).scores


def test_a_limit_is_that_of_each_data_set_and_an_unknown_one_is_an_error(run: Run):
    assert list(evaluate_run(run, "val", limit=1).captions) == ["one/v0", "two/v0"]
    with pytest.raises(ValueError, match="no data set has the label 'three'; the labels are one, two"):
        evaluate_run(run, "val", data_set="three")


def test_a_data_set_without_validation_media_is_trained_on_and_named(tmp_path: Path):
    watched = Watched()
    whole = of(tmp_path, data_sets(tmp_path, val=(3, 0)), epochs=1)
    folder = train(whole, tmp_path / "run", callback=watched)
    assert watched.of("start")[0]["data sets"].endswith("two (8 training, 0 validation, share 0.5)")
    (text,) = (facts["text"] for facts in watched.of("warning"))
    assert (
        text == "the data set 'two' has no validation media that can be read: validation uses the other data sets only"
    )
    (row,) = (row for row in log_of(folder) if "CIDEr" in row)
    assert "one/CIDEr" not in row  # it would repeat the score of all
    found = evaluate_run(load_run(folder), "val")
    assert list(found.captions) == ["one/v0", "one/v1", "one/v2"] and found.by_data_set == {}
    assert "no media of the data set 'two' were evaluated" in found.report.notes
    with pytest.raises(ValueError, match=r"no media in split 'val'; the dataset has \{'train': 8\}"):
        evaluate_run(load_run(folder), "val", data_set="two")


def test_one_store_has_the_features_of_all_and_serves_one_alone(run: Run, tmp_path: Path):
    folder = tmp_path / "store"
    assert main(["extract", str(run.folder), "--out", str(folder)]) == 0
    assert sorted(FeatureStore(folder).ids) == sorted(medium.id for medium in read_dataset(run.recipe.data).media)
    stored = replace(run.recipe, features=str(folder), encoder=replace(run.recipe.encoder, source=str(run.folder)))
    log = log_of(train(replace(stored, stages=(replace(stored.stages[0], epochs=1),)), tmp_path / "all"))
    assert "two/CIDEr" in log[-1]
    alone = replace(stored, data=run.recipe.data[0], stages=(replace(stored.stages[0], epochs=1),))
    assert log_of(train(alone, tmp_path / "alone"))[-1]["epoch"] == 1


def test_commands_take_data_sets_by_number_and_by_label(run: Run, tmp_path: Path, capsys):
    options = ["evaluate", str(run.folder), "--split", "val", "--metrics", "CIDEr"]
    assert main([*options, "--out", str(tmp_path / "all"), "--report", str(tmp_path / "all.html")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "one: scores x100, 3 media" in said and "two: scores x100, 2 media" in said
    assert "all data sets: scores x100, 5 media" in said
    page = (tmp_path / "all.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in ("all", "one", "two"))
    moved = tmp_path / "moved"
    Path(run.recipe.data[1].media).rename(moved)
    try:
        place = ["--data.1.media", str(moved), "--data.1.annotations", str(moved / "captions.jsonl")]
        assert main([*options, "--data-set", "two", "--out", str(tmp_path / "two"), *place]) == 0
    finally:
        moved.rename(run.recipe.data[1].media)
    assert json.loads((tmp_path / "two" / "scores.json").read_text())["data_set"] == "two"
    both = [str(tmp_path / name / "captions.json") for name in ("all", "two")]
    assert [len(json.loads(Path(path).read_text())) for path in both] == [5, 2]


def test_a_packed_model_names_its_data_sets_without_their_paths(run: Run, tmp_path: Path):
    folder = open_package(pack(run, tmp_path / "packed"))
    assert load_recipe(folder / "recipe.json").data == tuple(DataConfig("jsonl", label=name) for name in ("one", "two"))
    assert "data sets of the formats `jsonl`, `jsonl`" in (folder / "README.md").read_text()


def test_the_truth_of_the_micro_world_is_known_where_it_is_one_of_the_data_sets(tiny: Path, tmp_path: Path):
    shapes = load_recipe(tiny / "tiny.yaml").data
    (one, _) = data_sets(tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / "one" / "v0.png")
    whole = replace(load_recipe(tiny / "tiny.yaml"), data=(shapes, one))
    whole = replace(whole, stages=(replace(whole.stages[0], epochs=1),))
    save_recipe(whole, tmp_path / "r.json")
    folder = train(whole, tmp_path / "run")
    found = evaluate_run(load_run(folder), "val", limit=3)
    assert found.report.exact == {} and found.by_data_set["one"].exact == {}
    assert "object" in found.by_data_set["shapes"].exact
    (row,) = (row for row in log_of(folder) if "CIDEr" in row)
    assert "shapes/object" in row and "object" not in row
