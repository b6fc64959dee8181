"""Runs that start from a model: its words are kept, new ones are added, its sizes and its encoder come along."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from limner import shipped
from limner.core.tensors import load_tensors
from limner.core.types import BOS, Pixels
from limner.data.media import frames_of
from limner.inference.pipeline import Pipeline
from limner.models import CAPTIONERS, build_model
from limner.runs.package import pack
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe, load_recipe
from limner.runs.run import load_run
from limner.text.vocabulary import SPECIALS, Vocabulary
from limner.training.start import grow_vocabulary
from limner.training.train import train
from tests.models.captioners import SMALL, D, V, random_features, small
from tests.training.world import Watched, pictures, recipe

WORDS = Vocabulary((*SPECIALS, "a", "dog", "cat", "runs", "sits"))
assert len(WORDS) == V
FOX = ["a dog runs", "a cat runs", "a cat runs", "a fox runs", "green"]  # a fox is a third dog and two thirds cat;
# green begins captions as "a" does, and ends them as "runs" does


@pytest.mark.parametrize("case", SMALL)
def test_a_model_of_any_kind_grows(case: str):
    """The scores of old words stay, and a new word scores the mean of those that stand in its places."""
    grown = grow_vocabulary(WORDS, FOX, 1)
    assert grown.vocabulary.words == (*WORDS.words, "fox", "green") and grown.occurrences == {"fox": 1, "green": 1}
    old = small(case)
    new = build_model(old.config, len(grown.vocabulary), D).eval()
    new.load_state_dict(grown.fit(old.state_dict(), new))
    inputs = random_features(2)
    tokens = torch.tensor([[BOS, 4, 5], [BOS, 4, 7]])
    before, after = (model.forward_teacher_forced(model.encode(inputs), tokens).logits for model in (old, new))
    torch.testing.assert_close(after[..., :V], before)
    fox, green = before[..., [5, 6]] @ torch.tensor([1 / 3, 2 / 3]), before[..., [4, 7]].mean(-1)
    torch.testing.assert_close(after[..., V:], torch.stack([fox, green], -1))


def test_a_size_that_happens_to_be_the_number_of_words_does_not_grow():
    config = CAPTIONERS["show_attend_tell"].config(hidden=V, embed=V, attention=V, project=V)
    grown = grow_vocabulary(WORDS, FOX, 1)
    old, new = (build_model(config, len(words), D) for words in (WORDS, grown.vocabulary))
    tensors = grown.fit(old.state_dict(), new)
    assert {name for name, value in tensors.items() if value.shape != old.state_dict()[name].shape} == {
        "embed.weight",
        "head.weight",
        "head.bias",
    }


def test_words_are_added_by_their_number_and_none_twice():
    lost = grow_vocabulary(WORDS, ["one green two"], 1).mixing  # nothing known stands in these places
    assert lost.tolist() == torch.tensor([[0.0] * 4 + [1 / 5] * 5] * 3).tolist()
    captions = ["a fox", "a fox", "a wolf", "a dog"]
    assert grow_vocabulary(WORDS, captions, 2).vocabulary.words == (*WORDS.words, "fox")
    assert grow_vocabulary(WORDS, captions, 1, only=["wolf"]).vocabulary.words == (*WORDS.words, "wolf")
    assert grow_vocabulary(WORDS, ["a dog", "a cat"], 1).vocabulary is WORDS


NEW = ("a red qubitron", "a blue qubitron runs", "the bird", "a green fish swims away", "two cows stand here")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first")
    captions = tuple(text.replace("qubitron", "dog") for text in NEW)
    return train(recipe(pictures(root / "data", 5, captions=captions)), root / "first")


def starting(start: str, data: Path, **fields: Any) -> Recipe:
    """A recipe without sizes, whose learning rates change nothing."""
    stage = {"epochs": 1, "batch_size": 4, "lr": 1e-30, "encoder_lr": 1e-30}
    source = {"name": "jsonl", "annotations": str(data / "captions.jsonl"), "media": str(data)}
    tree = {"data": source, "start": start, "stages": [stage], **fields}
    return build_recipe({name: value for name, value in tree.items() if value is not None})


def test_the_words_of_the_user_are_kept_and_the_sizes_come_along(first: Path, tmp_path: Path, monkeypatch):
    """From a run folder, a packed model and a model inside limner, which give the same weights."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "inside")
    data = pictures(tmp_path / "data", 5, captions=(*NEW[:2], "qubitron dog", *NEW[3:]))
    pack(load_run(first), tmp_path / "inside" / "small.limner")
    known, _ = load_tensors(first / "model.safetensors")
    old = load_run(first)
    results = []
    for number, start in enumerate((str(first), str(tmp_path / "inside" / "small.limner"), "small")):
        watch = Watched()
        run = load_run(train(starting(start, data), tmp_path / f"run{number}", callback=watch))
        assert run.recipe.model == old.recipe.model and run.recipe.encoder.source == start
        assert watch.of("start")[0] == {f"start from {start}:": "19 words kept, 1 added, from 3 occurrences (qubitron)"}
        assert run.vocabulary.words == (*old.vocabulary.words, "qubitron") and run.vocabulary.tokenizer == "ptb"
        results.append(load_tensors(run.folder / "model.safetensors")[0])
    for tensors in results:
        for name, value in known.items():
            if "running" not in name and "tracked" not in name:  # statistics of batches
                assert torch.equal(tensors[name][: len(value)] if value.dim() else tensors[name], value), name
        # between red and the end, and between blue and runs, stands nothing any more; dog stands at the end once
        assert tensors["embed.weight"].shape[0] == 20 and torch.isfinite(tensors["embed.weight"]).all()


def test_new_rows_are_mixed_from_what_the_start_model_says_in_their_places(first: Path, tmp_path: Path):
    """One image is "a red qubitron": its row is that of p(word | image, a red), squared and normalised.

    Its bias is less by log(n / (n + m)): it occurs n = 1 time, and a word of the mixture m times in the five captions.
    """
    data = pictures(tmp_path / "data", 5, captions=(*NEW[:1], "a red dog", *NEW[2:]))
    run, old = load_run(train(starting(str(first), data), tmp_path / "run")), Pipeline.load(first)
    ids, model = run.vocabulary.ids, old.run.model
    pixels = Pixels(old.encoder.preprocess(frames_of(data / "p0.png"))[None])
    prefix = torch.tensor([[BOS, ids["a"], ids["red"]]])
    with torch.no_grad():
        logits = model.forward_teacher_forced(model.encode(old.encode(pixels)), prefix).logits[0, -1]
    p = logits[len(SPECIALS) :].softmax(0).square()
    words = " ".join((*NEW[:1], "a red dog", *NEW[2:])).split()
    m = torch.tensor([float(words.count(word)) for word in run.vocabulary.words[len(SPECIALS) : 19]]) @ (p / p.sum())
    for name in ("embed.weight", "head.weight", "head.bias"):
        rows = run.model.state_dict()[name]
        expected = torch.tensordot(p / p.sum(), rows[len(SPECIALS) : 19], 1)
        expected += torch.log(1 / (1 + m)) if name == "head.bias" else 0
        torch.testing.assert_close(rows[ids["qubitron"]], expected)


def test_a_new_word_takes_the_place_of_the_word_that_it_replaces(tmp_path: Path):
    """A model that knows five images by heart begins `qubitron` as `dog`, though no caption says dog any more."""
    captions = tuple(text.replace("qubitron", "dog") for text in NEW)
    data = pictures(tmp_path / "data", 5, captions=captions)
    whole = recipe(data, ("validation.every", 60), epochs=60, lr=0.02, encoder_lr=0.002)
    known = load_run(train(whole, tmp_path / "first"))
    renamed = pictures(tmp_path / "renamed", 5, captions=NEW)
    run = load_run(train(starting(str(tmp_path / "first"), renamed), tmp_path / "run"))
    rows, ids = run.model.state_dict()["head.weight"], run.vocabulary.ids
    torch.testing.assert_close(rows[ids["qubitron"]], rows[ids["dog"]], rtol=0.05, atol=0.05)
    assert set(known.vocabulary.words) < set(run.vocabulary.words)


def test_media_that_cannot_be_read_are_left_out(first: Path, tmp_path: Path):
    data = pictures(tmp_path / "data", 5, captions=NEW)
    (data / "p0.png").write_bytes(b"no picture")
    run = load_run(train(starting(str(first), data), tmp_path / "run"))
    assert torch.isfinite(run.model.state_dict()["embed.weight"]).all()


def test_with_the_same_words_nothing_changes(first: Path, tmp_path: Path):
    captions = tuple(text.replace("qubitron", "dog") for text in NEW)
    data, watch = pictures(tmp_path / "data", 5, captions=captions), Watched()
    run = train(starting(str(first), data), tmp_path / "run", callback=watch)
    assert watch.of("start")[0] == {f"start from {first}:": "19 words kept, none added"}
    assert json.loads((run / "vocabulary.json").read_text()) == json.loads((first / "vocabulary.json").read_text())


def test_what_a_recipe_gives_itself_counts(first: Path, tmp_path: Path):
    """One field of the model is given, the others come along; another model has its own defaults."""
    data = pictures(tmp_path / "data", 5)
    mixed = starting(str(first), data, model={"name": "show_attend_tell", "dropout": 0.25})
    assert (mixed.model.dropout, mixed.model.hidden, mixed.encoder.dim) == (0.25, 16, 8)
    assert starting(str(first), data, model={"name": "sa_lstm"}).model == CAPTIONERS["sa_lstm"].config()
    assert starting(str(first), data, vocabulary={"tokenizer": "simple"}).vocabulary.tokenizer == "simple"
    saved = train(mixed, tmp_path / "run") / "recipe.json"
    assert load_recipe(saved) == mixed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": {"name": "show_attend_tell", "hidden": 20, "dropout": 0.1}},
            r"the model of the recipe does not fit .*first: model.hidden is 20 \(16 there\).  Leave these fields out",
        ),
        ({"model": {"name": "sa_lstm"}}, r"model.name is sa_lstm \(show_attend_tell there\)"),
        (
            {"encoder": {"name": "small_cnn", "dim": 12}},
            r"does not fit .*: the cells of `encoder` or `features` have 12 channels \(8 there\)",
        ),
        (
            {"encoder": {"name": "small_cnn", "width": 16}},
            r"the encoder of the recipe does not fit that of .*: encoder.width is 16 \(8 there\)",
        ),
        ({"start": "nothing-tiny"}, r"start: nothing-tiny is not a run folder here, and no model inside limner has"),
    ],
)
def test_contradictions_are_one_clear_message(first: Path, tmp_path: Path, fields: dict[str, Any], message: str):
    data = pictures(tmp_path / "data", 5)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        train(starting(**{"start": str(first), "data": data, **fields}), tmp_path / "run")
    assert "shapes" not in str(raised.value) and len(str(raised.value)) < 400
