"""Distillation through the training everybody uses: a run teaches, captions of others are mixed in, and it resumes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.apps.cli import main
from limner.core.tensors import load_tensors
from limner.core.types import Batch, Layout, Medium
from limner.data.datasets import read_dataset
from limner.data.regions import REGIONS_PROVENANCE
from limner.data.store import StoreWriter
from limner.objectives import Distil
from limner.runs.inputs import open_inputs
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe, save_recipe
from limner.runs.run import load_run
from limner.text.load import load_vocabulary
from limner.text.vocabulary import SPECIALS, Vocabulary
from limner.training.teachers import load_teacher, same_inputs, teacher_token_ids
from limner.training.train import train
from tests.training.test_resume import same
from tests.training.world import Watched, log_of, pictures, recipe

TEACHER = {"name": "sa_lstm", "hidden": 16, "embed": 8, "attention": 8, "dropout": 0.0}
STUDENT = {"name": "sa_lstm", "hidden": 5, "embed": 4, "attention": 3, "dropout": 0.2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ten pictures with a caption each, and a teacher that has learnt something of them."""
    root = tmp_path_factory.mktemp("distil")
    data = pictures(root / "data", 10)
    plan = recipe(data, ("model", TEACHER), ("validation.every", 100), epochs=30, lr=0.02)
    return data, train(plan, root / "teacher")


def student(data: Path, teacher: Path | str, *overrides: tuple[str, Any], **objective: Any) -> Recipe:
    plan = {"name": "distil", "teacher": str(teacher), **objective}
    settings = ("model", STUDENT), ("checkpoint_steps", 2), ("augmentations", ["full", "flip"]), *overrides
    return recipe(data, *settings, objective=plan, epochs=3)


def test_a_small_student_comes_nearer_to_its_teacher(world: tuple[Path, Path], tmp_path: Path):
    """Fewer parameters, and the divergence falls."""
    plan = student(*world, ("model.dropout", 0.0), kl=1.0, xe_weight=0.0, hidden=0.1, attention=0.1)
    plan = replace(plan, stages=(replace(plan.stages[0], epochs=30, lr=0.03),))
    watch = Watched()
    run = train(plan, tmp_path / "run", callback=watch)
    terms = [facts["kl"] for facts in watch.of("step")]
    assert len(terms) == 90 and sum(terms[-6:]) < 0.6 * sum(terms[:6])
    sizes = [sum(p.numel() for p in load_run(folder).model.parameters()) for folder in (run, world[1])]
    assert sizes[0] < 0.5 * sizes[1]
    kept, metadata = load_tensors(run / "objective.safetensors")
    assert kept.keys() == {"match_hidden.weight", "match_hidden.bias"} and kept["match_hidden.weight"].shape == (16, 5)
    assert metadata["name"].startswith("distil hidden ")


def test_projections_are_continued_in_the_next_run(world: tuple[Path, Path], tmp_path: Path):
    """A rate of almost 0 shows what it began with; other parts begin anew."""
    first = student(*world, hidden=0.5)
    folder = train(first, tmp_path / "one")
    learnt = load_tensors(folder / "objective.safetensors")[0]
    still = replace(first.stages[0], lr=1e-30, encoder_lr=0.0, epochs=1)
    again = train(replace(first, stages=(still,), start=str(folder)), tmp_path / "two")
    assert all(torch.equal(x, learnt[n]) for n, x in load_tensors(again / "objective.safetensors")[0].items())
    levels = student(*world, hidden=0.5, objects=0.1)
    other = replace(levels.stages[0], lr=1e-30, encoder_lr=0.0, epochs=1)
    third = train(replace(levels, stages=(other,), start=str(folder)), tmp_path / "three")
    anew = load_tensors(third / "objective.safetensors")[0]
    assert not torch.equal(anew["match_hidden.weight"], learnt["match_hidden.weight"])


def mixed(path: Path) -> dict[str, Any]:
    rows = [{"id": f"p{k}", "caption": text, "score": -k} for k in range(8) for text in ("a blue dog", "two cows")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"file": str(path), "probability": 0.5}


@pytest.fixture(scope="module", params=[0, 5], ids=["asked", "remembered"])
def whole(request: pytest.FixtureRequest, world: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe with captions of others, parts of the objective's own, and what is remembered of the teacher; and the
    run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    options = {"cache": request.param, **({} if request.param else {"hidden": 0.2})}
    plan = student(*world, ("pseudo_captions", mixed(root / "t.jsonl")), objects=0.1, **options)
    if request.param:
        plan = replace(plan, stages=(replace(plan.stages[0], precision="bf16"),))
    return plan, train(plan, root / "whole")


@pytest.mark.parametrize("stop", [("step", 3), ("step", 5), ("validation", 2)])
def test_resumed_equals_uninterrupted(whole: tuple[Recipe, Path], tmp_path: Path, stop: tuple[str, int]):
    plan, folder = whole[0], tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(plan, folder, callback=Watched(stop))
    train(plan, folder, resume=True)
    same(whole[1], folder)
    tensors = load_tensors(folder / "last.safetensors")[0]
    cache = whole[0].stages[0].objective.cache  # type: ignore[union-attr]
    assert ("teacher_cache.keys" in tensors) == bool(cache)


def test_pseudo_captions_are_learnt_with_every_objective(world: tuple[Path, Path], tmp_path: Path):
    """With probability 1 a plain cross entropy learns the pseudo-caption by heart; its vocabulary stays the humans'."""
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{k}", "caption": "two cows stand"}) + "\n" for k in range(10)))
    path.write_text(path.read_text() + json.dumps({"id": "nobody", "caption": "a dog"}) + "\n")
    plan = recipe(world[0], ("pseudo_captions", {"file": str(path), "probability": 1.0}), epochs=12, lr=0.03)
    watch = Watched()
    train(plan, tmp_path / "run", callback=watch)
    assert watch.of("validation")[-1]["example"] == "two cows stand"
    start = watch.of("start")[0]
    assert start["pseudo-captions"] == 10 and any("1 ids of no medium skipped" in line for line in start["problems"])
    assert watch.of("end")[0]["skipped"] == 1


def test_distillation_through_the_commands(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A teacher's beams are written, and a student of it trains on them and on what the teacher expects."""
    teacher, told, out = tiny / "run", tmp_path / "told", tmp_path / "student"
    asked = ["--split", "train", "--beam", "3", "--n-best", "3", "--out", str(told)]
    assert main(["evaluate", str(teacher), *asked]) == 0
    objective = json.dumps({"name": "distil", "teacher": str(teacher), "cache": 6})
    settings = [
        "--pseudo_captions.file",
        str(told / "several.json"),
        "--pseudo_captions.probability",
        "0.4",
        "--stages.0.objective",
        objective,
    ]
    small = ["--model.hidden", "6", "--frames=4", "--stages.0.epochs=1"]
    assert main(["train", str(tiny / "tiny.yaml"), "--out", str(out), *settings, *small]) == 0
    assert "pseudo-captions " in capsys.readouterr().out
    run = load_run(out)
    assert (run.recipe.pseudo_captions.probability, run.recipe.stages[0].objective) == (
        0.4,
        Distil(teacher=str(teacher), cache=6),
    )
    assert '"kl"' in (out / "log.jsonl").read_text()
    assert not (out / "objective.safetensors").exists()  # it has no parameters of its own


# --- how a teacher reads ----------------------------------------------------------------------------------------------


def test_a_teacher_reads_its_own_inputs(world: tuple[Path, Path], tmp_path: Path):
    """The student sees pictures of 16 pixels; its teacher those of 24, or features that lie in a store."""
    data, same_kind = world
    bigger = recipe(data, ("model", TEACHER), ("encoder", {"name": "small_cnn", "size": 24, "width": 8, "dim": 6}))
    large = train(bigger, tmp_path / "large")
    plan = student(data, large)
    media = read_dataset(plan.data).split("train")
    words = load_vocabulary(large / "vocabulary.json")
    teacher = load_teacher(large, plan, words, media, torch.device("cpu"))
    batch = Batch(
        ("p3", "p1"), _pixels(plan, media, [3, 1]), torch.tensor([[1, 4, 2]] * 2), augmentations=("full", "full")
    )
    found = teacher.encode_media(batch).grid
    run = load_run(large)
    assert run.encoder is not None
    with torch.no_grad():
        torch.testing.assert_close(found.detach(), run.encoder(_pixels(bigger, media, [3, 1])).grid)
    assert teacher.augmentations is None
    equal = load_teacher(same_kind, student(data, same_kind), words, media, torch.device("cpu"))
    assert equal.read_media(batch) is batch.inputs
    assert train(plan, tmp_path / "run")


def _pixels(plan: Recipe, media: list[Medium], which: list[int]) -> Any:
    return open_inputs(plan).reader([(media[k], "full") for k in which])


def stored(folder: Path, ids: list[str], augmentations: tuple[str, ...]) -> str:
    """Features without a known encoder: the id's number in four cells, and the view's in the second channel."""
    writer = StoreWriter(folder, REGIONS_PROVENANCE)
    for id in ids:
        for number, view in enumerate(augmentations):
            writer.add(id, view, torch.tensor([[float(id[1:]), number]]).expand(4, 2), Layout(1, 2, 2))
    writer.finish()
    return str(folder)


def test_a_teacher_reads_the_same_augmentation_where_its_store_has_it(world: tuple[Path, Path], tmp_path: Path):
    data = world[0]
    ids = [f"p{k}" for k in range(10)] + ["v0", "v1", "v2"]
    store = stored(tmp_path / "store", ids, ("full", "flip"))
    run = train(recipe(data, ("model", TEACHER), ("features", store)), tmp_path / "stored")
    plan = student(data, run, ("augmentations", ["full", "flip", "crop-tl"]))
    media = read_dataset(plan.data).split("train")
    teacher = load_teacher(run, plan, load_vocabulary(run / "vocabulary.json"), media, torch.device("cpu"))
    inputs = _pixels(plan, media, [3, 1, 2])
    batch = Batch(("p3", "p1", "p2"), inputs, torch.tensor([[1, 4, 2]] * 3), augmentations=("full", "flip", "crop-tl"))
    assert teacher.encode_media(batch).grid[:, 0].tolist() == [[3, 0], [1, 1], [2, 0]] and teacher.augmentations == (
        "full",
        "flip",
    )
    train(plan, tmp_path / "run")
    with pytest.raises(ValueError, match="has no features in the augmentations crop-tl, and attention compares cells"):
        train(student(data, run, ("augmentations", ["full", "flip", "crop-tl"]), attention=0.1), tmp_path / "other")


def test_a_store_without_some_media_is_refused(world: tuple[Path, Path], tmp_path: Path):
    store = stored(tmp_path / "store", [f"p{k}" for k in range(6)] + ["v0"], ("full",))
    run = train(recipe(world[0], ("model", TEACHER), ("features", store)), tmp_path / "stored")
    with pytest.raises(ValueError, match="has features for 6 of 10 training media; p6: not in the feature store"):
        train(student(world[0], run, cache=3), tmp_path / "run")


def test_two_recipes_are_compared_by_their_inputs():
    pixels = build_recipe({"data": {"media": "x"}})
    store = build_recipe({"features": "a/b"})
    assert same_inputs(pixels, pixels) and same_inputs(store, build_recipe({"features": "a/../a/b", "frames": 4}))
    assert not same_inputs(pixels, store) and not same_inputs(pixels, replace(pixels, frames=4))
    assert not same_inputs(store, build_recipe({"features": "a/c"}))


def test_token_ids_of_the_teacher_are_matched_by_the_words_text():
    def words(*more: str, **options: Any) -> Vocabulary:
        return Vocabulary((*SPECIALS, *more), **options)

    found = teacher_token_ids(words("cat", "dog", "red"), words("red", "dog"))
    assert found is not None and found.tolist() == [0, 1, 2, 3, 6, 5]
    assert teacher_token_ids(words("cat"), words("cat", "dog")) is None  # the teacher lacks one
    assert teacher_token_ids(words("cat", tokenizer="ptb"), words("cat")) is None


# --- what is refused --------------------------------------------------------------------------------------------------


def test_unsuitable_teachers_are_refused(world: tuple[Path, Path], tmp_path: Path):
    data = world[0]
    with pytest.raises(FileNotFoundError, match="nowhere is not a run folder"):
        train(student(data, "nowhere"), tmp_path / "a")
    blip = tmp_path / "blip"
    blip.mkdir()
    (blip / "config.json").write_text("{}")
    message = (
        r"blip is a transformers model \(and it has no processor\), which has other tokens.*pseudo_captions: \{file"
    )
    with pytest.raises(ValueError, match=message):
        train(student(data, blip), tmp_path / "b")
    (blip / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"blip is a transformers model, which has other tokens"):
        train(student(data, blip), tmp_path / "c")
    for other in ("hf:blip", str(blip / "config.json")):
        with pytest.raises(ValueError, match=r"expected a run folder, got .*to train on captions in a file, use"):
            train(student(data, other), tmp_path / "e")
    later = replace(student(data, "nowhere"), stages=(*recipe(data).stages, *student(data, "nowhere").stages))
    with pytest.raises(FileNotFoundError, match="nowhere is not a run folder"):  # before the first stage is trained
        train(later, tmp_path / "e")
    sided = student(*world, side="teacher")
    with pytest.raises(ValueError, match=r"teacher is a .*, which has no side 'teacher': leave it out"):
        train(sided, tmp_path / "f")
    fewer = pictures(tmp_path / "few", 4, captions=("a zebra", "an owl"))
    strange = train(recipe(fewer, ("model", TEACHER)), tmp_path / "strange")
    with pytest.raises(ValueError, match="has other words than the student"):
        train(student(data, strange), tmp_path / "d")
    assert not any((tmp_path / name / "last.safetensors").exists() for name in "abcdef")


def test_a_broken_teacher_names_the_media(world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from limner.training import stage

    def broken(*arguments: Any) -> Any:
        teacher = load_teacher(*arguments)
        with torch.no_grad():
            teacher.model.get_parameter("captioner.head.weight").fill_(torch.nan)
        return teacher

    monkeypatch.setattr(stage, "load_teacher", broken)
    with pytest.raises(
        FloatingPointError, match=r"the scores of .*teacher are nan or infinite for 1 of 1 media.*'p\d'"
    ):
        train(student(*world), tmp_path / "run")


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("objective", [{"kl": 0.5, "actions": 0.1, "objects": 0.1}, {"kl": 0.5, "joint": 0.5}])
def test_two_processes_distil_together(world: tuple[Path, Path], tmp_path: Path, objective: dict[str, float]):
    """Also where one has no verb in its share, and where parts of the teacher go unused."""
    save_recipe(student(*world, **objective), tmp_path / "recipe.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "limner", "train"]
    command += [str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [row for row in log_of(tmp_path / "run") if "loss" in row]
    for row in rows:
        expected = 0.5 * row["xe"] + sum(weight * row[name] for name, weight in objective.items())
        assert row["loss"] == pytest.approx(expected, abs=1e-4) and row["kl"] > 0
    assert [row["step"] for row in rows] == [3, 6, 9]
