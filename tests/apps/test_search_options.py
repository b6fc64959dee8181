"""Searches, samples and ensembles from the command line, on the tiny run."""

import argparse
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limner.apps.cli import main
from limner.apps.shared.arguments import add_beam, add_decoding, add_ensemble, split_decoding
from limner.apps.shared.decoding import beam_of, decoding_of
from limner.core.tensors import save_tensors
from limner.decode.options import Beam, Decoding, Sample
from limner.decode.rules import ENDINGS, Rules
from limner.encoders import ResNet3D, ResNet3DConfig
from limner.inference.pipeline import Pipeline
from limner.models import build_model
from limner.runs.run import RunInfo, create_run, load_run


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
    split = caption(
        tiny, tmp_path, pictures, "--beam", "4", "--decoding.groups", "2", "--decoding.diversity=2", "--n-best", "2"
    )
    assert all("others" in row for row in split)


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


def test_words_that_must_and_must_not(tiny: Path, tmp_path: Path, pictures: list[str], capsys):
    words = Pipeline.load(tiny / "run").vocabulary.words
    said = {word for row in caption(tiny, tmp_path, pictures) for word in row["caption"].split()}
    other = next(word for word in words[4:] if word not in said)
    held = caption(tiny, tmp_path, pictures, "--must", other)
    assert all(other in row["caption"].split() for row in held)
    either = caption(tiny, tmp_path, pictures, "--must", f"zebra|{other}")
    assert [row["caption"] for row in either] == [row["caption"] for row in held]
    assert "the vocabulary has no 'zebra', so that one of the other words of --must appears" in capsys.readouterr().err
    never = sorted(said)[0]
    rules = ("--decoding.rules.no_repeat_trigram", "true", "--decoding.rules.bad_endings", "common")
    free = caption(tiny, tmp_path, pictures, "--never", f"{never}, zebra", *rules)
    assert not any(never in row["caption"].split() for row in free)


def asked(default: Beam, *arguments: str) -> Decoding:
    """What a command line makes of a recipe's decoding."""
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    add_ensemble(parser)
    options, rest = parser.parse_known_args(arguments)
    return decoding_of(options, split_decoding(rest)[0], default)


@pytest.mark.parametrize(
    ("quirk", "arguments", "dropped", "wanted"),
    [
        ("keep_beam_full", ["--decoding.groups", "2", "--beam", "4"], "--decoding.groups", {"size": 4, "groups": 2}),
        ("keep_beam_full", ["--must", "dog"], "--must", {"must": ("dog",)}),
        ("drop_hopeless", ["--must", "dog"], "--must", {"must": ("dog",)}),
        ("drop_hopeless", ["--n-best", "2"], "", {"n_best": 2}),
        (
            "finished_compete",
            ["--n-best", "2", "--decoding.length_penalty", "0.5"],
            "--n-best, --decoding.length_penalty",
            {"n_best": 2},
        ),
        ("finished_compete", ["--decoding.normalise", "avg"], "--decoding.normalise", {"normalise": "avg"}),
        ("finished_compete", ["--decoding.groups", "2", "--must", ""], "--decoding.groups", {"groups": 2}),
        (
            "keep_beam_full",
            ["--n-best", "2", "--decoding.length_penalty", "0.5", "--decoding.groups", "1", "--must", ","],
            "",
            {"n_best": 2},
        ),
        (
            "finished_compete",
            ["--n-best", "1", "--decoding.length_penalty", "0", "--decoding.normalise", "power", "--beam", "3"],
            "",
            {"size": 3},
        ),
        ("keep_beam_full", ["--sample", "2"], "", {"count": 2}),
    ],
)
def test_a_published_search_gives_way_to_what_it_cannot_do(
    quirk: str, arguments: list[str], dropped: str, wanted: dict[str, object], capsys: pytest.CaptureFixture[str]
):
    """And to nothing else; the library goes on refusing it."""
    theirs = quirk != "drop_hopeless"  # the value that makes the published search
    published = replace(Beam(2), **{quirk: theirs})
    found = asked(published, *arguments)
    assert {name: getattr(found, name) for name in wanted} == wanted
    told = f"note: the published search of this model ({quirk}) has no {dropped}; limner's own beam takes its place\n"
    assert capsys.readouterr().err == (told if dropped else "")
    if isinstance(found, Beam):
        assert (getattr(found, quirk) == theirs) == (not dropped)
    if dropped:
        with pytest.raises(ValueError, match=r"leave out|finished_compete does not normalise"):
            replace(found, **{quirk: theirs})


def test_a_length_penalty_that_is_asked_for_counts():
    """Also where the recipe divides by the length, which no penalty changes."""
    recipes = Beam(3, normalise="avg")
    assert asked(recipes, "--decoding.length_penalty", "0.5") == Beam(3, 0.5)
    assert asked(recipes, "--beam", "2") == Beam(2, normalise="avg")
    wu = asked(recipes, "--decoding.length_penalty", "2", "--decoding.normalise", "wu")
    assert wu == Beam(3, 2.0, normalise="wu")


def test_every_field_of_the_decoding_can_be_given():
    """The flags that are gone, as fields; values are YAML, and lists of words may be written with commas."""
    fields = {
        "length_penalty": "0.5", "normalise": "wu", "size": "6", "groups": "3", "diversity": "1.5", "n_best": "2",
        "finished_compete": "false", "keep_beam_full": "false", "must": "[]",
        "rules.min_length": "2", "rules.max_length": "9", "rules.no_repeat_word": "false",
        "rules.allow_unknown": "true", "rules.no_repeat_trigram": "true", "rules.bad_endings": "a, the",
        "rules.never": "[dog]",
    }  # fmt: skip
    rules = Rules(2, 9, False, True, True, ("a", "the"), ("dog",))
    expected = Beam(6, 0.5, rules, normalise="wu", n_best=2, groups=3, diversity=1.5)
    assert asked(Beam(), *(f"--decoding.{name}={value}" for name, value in fields.items())) == expected
    drawn = {"temperature": "0.7", "top_k": "5", "top_p": "0.9", "rules.bad_endings": "common"}
    expected = Sample(2, 0.7, Rules(bad_endings=ENDINGS), 5, 0.9)
    given = (word for name, value in drawn.items() for word in (f"--decoding.{name}", value))
    assert asked(Beam(), "--sample", "2", *given) == expected
    assert asked(Beam(), "--decoding.must", "a dog").must == ("a dog",)


def test_so_it_does_where_only_a_beam_can_be_asked_for(capsys: pytest.CaptureFixture[str]):
    """`limner explain` and `limner profile`."""
    parser = argparse.ArgumentParser()
    add_beam(parser)
    published = Beam(2, finished_compete=True)
    assert beam_of(parser.parse_args(["--beam", "3"]), {}, published) == Beam(3, finished_compete=True)
    assert beam_of(parser.parse_args([]), {"length_penalty": ".5"}, published) == Beam(2, 0.5)
    assert "(finished_compete) has no --decoding.length_penalty; limner's own beam" in capsys.readouterr().err


def test_a_converted_run_is_asked_for_more(tiny: Path, tmp_path: Path, pictures: list[str], capsys):
    shutil.copytree(tiny / "run", tmp_path / "run")
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    recipe["decoding"]["keep_beam_full"] = True
    (tmp_path / "run/recipe.json").write_text(json.dumps(recipe))
    word = Pipeline.load(tiny / "run").vocabulary.words[-1]
    for more in (["--must", word], ["--beam", "4", "--decoding.groups", "2"]):
        plain = caption(tiny, tmp_path, pictures, *more)
        capsys.readouterr()
        assert main(["caption", *pictures, "--model", str(tmp_path / "run"), *more]) == 0
        shown = capsys.readouterr()
        assert [line.split(": ", 1)[1] for line in shown.out.splitlines()] == [row["caption"] for row in plain]
        assert shown.err.count("note: the published search of this model (keep_beam_full)") == 1
    command = ["evaluate", str(tmp_path / "run"), "--split", "val", "--limit", "2", "--metrics", "BLEU-4"]
    assert main([*command, "--out", str(tmp_path / "scores"), "--must", word]) == 0
    told = json.loads((tmp_path / "scores/scores.json").read_text())["decoding"]
    assert told["keep_beam_full"] is False and told["must"] == [word]


def test_forbidden_words_as_people_write_them(tiny: Path, tmp_path: Path, pictures: list[str], capsys):
    said = {word for row in caption(tiny, tmp_path, pictures) for word in row["caption"].split()}
    never = sorted(said)[0]
    capsys.readouterr()
    exact = caption(tiny, tmp_path, pictures, "--never", never)
    assert "note" not in capsys.readouterr().err
    loud = caption(tiny, tmp_path, pictures, "--never", f"{never.upper()}!,Zebra")
    assert loud == exact and not any(never in row["caption"].split() for row in loud)
    assert capsys.readouterr().err.count("note: the vocabulary has no 'Zebra', so that it never appears anyway") == 1


def test_a_moved_encoder_is_found_by_every_member_that_has_it(tiny: Path, tmp_path: Path, pictures: list[str], capsys):
    """The third member's encoder is its own: --encoder is not for it."""
    tiny_run, moved = load_run(tiny / "run"), tmp_path / "moved.pth"
    encoder = ResNet3D(ResNet3DConfig(depth=10, width=4, size=32))
    torch.save(encoder.state_dict(), moved)
    config = replace(encoder.config, source=str(tmp_path / "gone.pth"))
    recipe = replace(tiny_run.recipe, encoder=config, frames=1)
    for name in ("one", "two"):
        model = build_model(recipe.model, len(tiny_run.vocabulary), encoder.dim)
        create_run(tmp_path / name, recipe, tiny_run.vocabulary, RunInfo(encoder.dim, encoder.provenance()))
        save_tensors(tmp_path / name / "model.safetensors", model.state_dict())
    more = [word for other in (tmp_path / "two", tiny / "run") for word in ("--with", str(other))]
    by_model = ["caption", pictures[0], "--model", str(tmp_path / "one"), *more]
    by_data = ["evaluate", str(tmp_path / "one"), "--split", "val", "--limit", "2", "--metrics", "BLEU-4", *more]
    by_data += ["--out", str(tmp_path / "scores")]
    found = Pipeline.load(tmp_path / "one", str(moved), others=[tmp_path / "two", tiny / "run"])
    assert main([*by_model, "--encoder", str(moved)]) == 0
    assert capsys.readouterr().out == f"{found.caption(pictures[0]).text}\n"
    assert main([*by_data, "--encoder", str(moved)]) == 0
    for command in (by_model, by_data):
        capsys.readouterr()
        assert main(command) == 1 and "give its present path with --encoder" in capsys.readouterr().err


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
        (["--temperature", "0.5"], "--temperature: only for drawn captions; give --sample N too"),
        (["--seed", "1", "--top-k", "2"], "--top-k, --seed: only for drawn captions; give --sample N too"),
        (["--decoding.top_p", "1"], "--decoding.top_p: only for drawn captions; give --sample N too"),
        (["--decoding.diversity", "1"], "--decoding.diversity is between groups of hypotheses: give --decoding.groups"),
        (
            ["--decoding.normalise", "avg", "--decoding.length_penalty", "1"],
            "--decoding.normalise avg divides by the length, whatever",
        ),
        (["--weights", "1"], "--weights are of an ensemble: give --with RUN too"),
        (["--decoding.length_penalty", ".nan"], "length_penalty is a number, got nan"),
        (["--decoding.length_penalty", "high"], "decoding.length_penalty: Input should be a valid number"),
        (["--decoding.lenght_penalty", "1"], "decoding has no field 'lenght_penalty'; it has size, length_penalty"),
        (["--decoding.rules.max", "1"], "decoding.rules has no field 'max'; it has min_length, max_length"),
        (["--decoding.size.x", "1"], "decoding.size has no fields, so there is no 'x' in it"),
        (["--decoding.size"], "--decoding.size needs a value"),
        (["--beam", "3", "--decoding.size", "3"], "--beam is decoding.size: give one of them"),
        (["--data.media", "x"], "unknown arguments: --data.media x"),
        (["--beam", "2", "--n-best", "3"], "a beam of 2 cannot give the 3 best captions"),
        (["--max-length", "1"], "expected 0 <= min_length < max_length"),
        (["--sample", "2", "--beam", "3"], "--sample draws captions, without a beam: leave out --beam"),
        (
            ["--sample", "2", "--decoding.length_penalty", "1"],
            "--sample draws captions, without a beam: leave out --decoding.length_penalty",
        ),
        (["--must", "zebra"], "the vocabulary has no 'zebra', which must appear"),
        (["--never", "a dog"], "'a dog' is 2 words (a, dog), and only single words can be forbidden"),
        (["--beam", "5", "--decoding.groups", "2"], "5 hypotheses cannot be parted into 2 equal groups"),
        (["--with", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_slips_are_errors_that_help(tiny: Path, pictures: list[str], capsys, arguments: list[str], message: str):
    status = 1 if "--with" in arguments else 2
    assert main(["caption", *pictures, "--model", str(tiny / "run"), *arguments]) == status
    assert message in capsys.readouterr().err
