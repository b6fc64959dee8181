"""SFT's teacher and student through the training everybody uses: a recipe in, a run out, resumed to the bit."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from limner.apps.cli import main
from limner.core.tensors import load_tensors
from limner.data.datasets import read_dataset
from limner.data.shapes import load_world
from limner.decode.generate import generate
from limner.models.sft import Sft
from limner.objectives.hierarchical import SftLoss
from limner.runs.inputs import open_inputs
from limner.runs.recipe_file import build_recipe, save_recipe
from limner.runs.run import load_run
from limner.text.clip_bpe import ClipVocabulary, read_clip_vocabulary
from limner.training.teachers import load_teacher
from limner.training.train import train
from tests.text.test_clip_bpe import write
from tests.training.world import log_of


def recipe(tiny: Path, features: Path, **objective: Any) -> Any:
    """Frame vectors in files, as SFTCap's `visual/CLIP/frame_feature`."""
    if not features.is_dir():
        features.mkdir(parents=True)
        draw = np.random.default_rng(0)
        for medium in load_world(tiny / "world"):
            np.save(features / f"{medium.id}.npy", draw.normal(size=(int(draw.integers(3, 7)), 10)).astype(np.float32))
    stage = {
        "epochs": 2,
        "batch_size": 16,
        "accumulate": 2,
        "lr": 0.003,
        "weight_decay": 0.01,
        "captions_per_medium": 1,
    }
    schedule = {"name": "step", "warmup": 0.1, "factor": 0.95, "every": 1, "start": 1}
    tree = {
        "data": {"name": "shapes", "media": str(tiny / "world")},
        "features": str(features),
        "frames": 5,
        "vocabulary": {"min_count": 1},
        "model": {"name": "sft", "hidden": 24, "embed": 12, "width": 16, "heads": 2, "max_objects": 3},
        "stages": [{**stage, "schedule": schedule, "objective": {"name": "sft", **objective}}],
        "decoding": {"size": 2, "rules": {"max_length": 12}},
    }
    return build_recipe(tree)


def test_a_recipe_trains_both_sides(tiny: Path, tmp_path: Path) -> None:
    wanted = {"teacher_weight": 0.5, "objects": 0.3, "actions": 0.2, "sentence": 0.1}
    plan = recipe(tiny, tmp_path / "features", **wanted)
    folder = train(plan, tmp_path / "run")
    run = load_run(folder)
    assert isinstance(run.model, Sft) and run.recipe.stages[0].objective == SftLoss(**wanted)
    log = (folder / "log.jsonl").read_text()
    for name in ("xe_teacher", "xe_student", "objects_teacher", "objects_student", "sentence_teacher"):  # no verbs here
        assert f'"{name}"' in log
    assert main(["evaluate", str(folder), "--split", "val"]) == 0
    media = read_dataset(run.recipe.data).split("val")
    for side in ("student", "teacher"):  # whose captions are asked for
        assert (
            main(["evaluate", str(folder), "--split", "val", "--model.side", side, "--out", str(tmp_path / side)]) == 0
        )
        run.model.config = replace(run.model.config, side=side)
        wanted = generate(run.model, media, open_inputs(run.recipe).reader, run.vocabulary, run.recipe.decoding)
        said = json.loads((tmp_path / side / "captions.json").read_text())
        assert {row["image_id"]: row["caption"] for row in said} == wanted
    assert main(["evaluate", str(folder), "--model.width", "8"]) == 2
    data = read_dataset(run.recipe.data).split("train")
    for side in ("student", "teacher"):  # whom another student learns from
        forced = load_teacher(folder, run.recipe, run.vocabulary, data, torch.device("cpu"), side).model
        assert isinstance(forced, Sft) and forced.config.side == side


def test_two_trainings_are_bit_identical(tiny: Path, tmp_path: Path) -> None:
    """Matching and labels leave nothing to chance."""
    plan = recipe(tiny, tmp_path / "features", objects=0.3, actions=0.2)
    first, second = (load_tensors(train(plan, tmp_path / name) / "last.safetensors")[0] for name in ("a", "b"))
    assert all(torch.equal(value, second[key]) for key, value in first.items() if key.startswith("model."))


def test_the_published_loss_trains_too(tiny: Path, tmp_path: Path) -> None:
    plan = recipe(
        tiny, tmp_path / "features", teacher_weight=0.8, objects=0.1, actions=0.1, label_smoothing=0.3, published=True
    )
    folder = train(plan, tmp_path / "run")
    rows = [row for row in log_of(folder) if "loss" in row]
    for row in rows:
        captions = 0.8 * row["xe_teacher"] + 0.2 * row["xe_student"]
        assert row["loss"] == pytest.approx(captions + 0.1 * row["objects"] + 0.1 * row["actions"], abs=1e-3)
    assert [row["step"] for row in rows] == [2, 4] and rows[1]["loss"] < rows[0]["loss"]
    assert isinstance(load_run(folder).model, Sft)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        ({"objects": 0.3, "actions": 0.3, "kl": 0.5, "match_sentence": 0.1}, False),
        pytest.param({"objects": 0.0, "actions": 0.0}, False, marks=SLOW),
        pytest.param({"teacher_weight": 1.0}, True, marks=SLOW),
        pytest.param({"teacher_weight": 0.0, "objects": 0.3}, True, marks=SLOW),
        pytest.param({"name": "xe"}, True, marks=SLOW),
        pytest.param({"published": True, "objects": 0.0, "actions": 0.0}, False, marks=SLOW),
    ],
)
def test_two_processes_train_it(tiny: Path, tmp_path: Path, options: dict[str, Any], apart: bool) -> None:
    """Every layer has a gradient in every process, whether its level counts or not; or one side has none, and weights
    of its own."""
    plan = recipe(tiny, tmp_path / "features", **options)
    alone = replace(plan, model=replace(plan.model, shared="nothing"))
    save_recipe(alone if apart else plan, tmp_path / "recipe.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "limner", "train"]
    command += [str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [row["step"] for row in log_of(tmp_path / "run") if "loss" in row]
    assert steps == [2, 4]  # two epochs of 33 media, 16 at a time in either process
    assert all(weight.isfinite().all() for weight in load_run(tmp_path / "run").model.state_dict().values())


def test_captions_may_be_encoded_in_clips_byte_pairs(tiny: Path, tmp_path: Path) -> None:
    """`vocabulary.byte_pairs`: nothing is built from the captions, and sentences come out whole."""
    plan = recipe(tiny, tmp_path / "features", objects=0.3)
    clip = write(tmp_path / "clip")
    theirs = torch.randn(len(read_clip_vocabulary(clip)) - 1, 12)
    save_file({"text_model.embeddings.token_embedding.weight": theirs}, clip / "model.safetensors")
    words = replace(plan.vocabulary, byte_pairs=str(clip), vectors=str(clip))
    run = load_run(train(replace(plan, vocabulary=words), tmp_path / "run"))
    assert isinstance(run.model, Sft)
    learnt = run.model.embed.weight[4:] - theirs[1:-2]  # two epochs at .003 later
    assert learnt.abs().max() < 0.5 < theirs.abs().max()
    assert isinstance(run.vocabulary, ClipVocabulary)
    assert run.vocabulary.decode(run.vocabulary.encode("A red ring!")) == "a red ring !"
    captions = generate(
        run.model, read_dataset(plan.data).split("val"), open_inputs(plan).reader, run.vocabulary, plan.decoding
    )
    assert captions and "</w>" not in "".join(captions.values())
