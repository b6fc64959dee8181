"""`limner distill`: a teacher behind a server or a run, its captions filtered, a student, and a page."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limner.apps.cli import main
from limner.apps.shared import journal, teaching
from limner.data.datasets import DataConfig, read_dataset
from limner.data.shapes import generate_world
from limner.metrics.clipscore import load_clip, several_clip_scores
from limner.runs.recipe_file import load_recipe
from limner.runs.run import load_run
from tests.inference.loopback import Answer, says, serving
from tests.inference.tiny_vlms import save
from tests.metrics.test_clipscore import make_clip

RECIPE = """
data: {name: shapes, media: world}
encoder: {name: small_cnn}
vocabulary: {min_count: 1}
model: {name: show_attend_tell, hidden: 8, embed: 8, attention: 8}
stages: [{objective: {name: xe}, epochs: 1, batch_size: 8, captions_per_medium: 1}]
validation: {limit: 4}
decoding: {size: 1, rules: {max_length: 8}}
"""
BAD = ["I'm sorry, I cannot help with that.", "", "ein rotes Quadrat auf einem grauen Tisch", "a dog and and and a cat",
       "a long story of a square " * 2000]  # fmt: skip
REASONS = ["refusal", "empty", "language", "repeats", "long"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a micro-world of 40 images and the recipe of a tiny student."""
    folder = tmp_path_factory.mktemp("place")
    generate_world(folder / "world", 40, seed=1, size=32)
    (folder / "student.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def number_of(body: dict[str, Any]) -> int:
    """A number that depends on the picture of a request alone."""
    return zlib.crc32(body["messages"][-1]["content"][0]["image_url"]["url"].encode())


def mixed(body: dict[str, Any]) -> Answer:
    """A good caption with a log-probability for two pictures of three, one of `BAD` for the others."""
    number = number_of(body)
    if number % 3:
        return says(f"a {('red', 'blue')[number % 2]} square on a table", [-0.5, -1.0])
    return says(BAD[number // 3 % len(BAD)])


def distill(reply: Callable[[dict[str, Any]], Answer], *more: str, data: str = "student.yaml", out: str = "run") -> int:
    with serving(reply) as server:
        return main(["distill", data, "--teacher", f"{server.url}#tiny-vlm", "--out", out, *more])


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().split("\n") if line]


def test_from_a_servers_answers_to_a_page(here: Path, capsys: pytest.CaptureFixture[str]):
    """Every caption is kept, or rejected with a reason; the student is a run, and the page has all three."""
    assert distill(mixed) == 0
    shown = capsys.readouterr()
    media = read_dataset(DataConfig("shapes", "world")).media
    train = {medium.id for medium in media if medium.split == "train"}
    kept, rejected = rows("run/teacher/pseudo_captions.jsonl"), rows("run/teacher/rejected.jsonl")
    assert len(kept) + len(rejected) == len(train) and {row["id"] for row in (*kept, *rejected)} == train
    assert {row["reason"] for row in rejected} == set(REASONS)
    assert {row["logprob"] for row in kept} == {-1.5}
    long = next(row for row in rejected if row["reason"] == "long")
    assert len(long["caption"]) > 49_000 and long["detail"] == "12,000 words"
    assert f"kept {len(kept)} of {len(train)} captions; rejected: " in shown.out
    assert load_run("run").recipe.pseudo_captions.file == "run/teacher/pseudo_captions.jsonl"
    told = json.loads(Path("run/distill.json").read_text())
    assert sum(told["rejected"].values()) == told["counts"]["rejected captions"] == len(rejected)
    assert [run["letter"] for run in told["comparison"]["runs"]] == ["A", "B"]
    page = Path("run/distill.html").read_text()
    for words in ("The teacher's captions", "One human against the others", "12,000 words"):
        assert words in page


def test_killed_and_resumed_it_writes_the_same(here: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(teaching, "CHUNK", 6)
    with serving(mixed) as server:
        call = ["distill", "student.yaml", "--teacher", f"{server.url}#tiny-vlm", "--sample", "2"]
        assert main([*call, "--out", "whole"]) == 0
        add, left = journal.Journal.add, [9]

        def dies(self: journal.Journal, row: journal.Row) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            add(self, row)

        monkeypatch.setattr(journal.Journal, "add", dies)
        capsys.readouterr()
        assert main([*call, "--out", "cut"]) == 130
        assert (
            "what the teacher said so far is in cut/teacher; continue with: limner distill" in capsys.readouterr().err
        )
        monkeypatch.setattr(journal.Journal, "add", add)
        assert main([*call, "--out", "cut"]) == 1
        assert "holds captions of an interrupted call" in capsys.readouterr().err
        assert main([*call, "--out", "cut", "--resume", "--prompt", "Describe."]) == 1
        assert "was begun with other options of the teacher" in capsys.readouterr().err
        assert main([*call, "--out", "cut", "--resume"]) == 0
        asked = len(server.seen)
        assert main([*call, "--out", "cut", "--resume"]) == 0  # all is done: the teacher is not asked again
        assert len(server.seen) == asked
    for name in ("captions", "pseudo_captions", "rejected"):
        assert Path(f"cut/teacher/{name}.jsonl").read_bytes() == Path(f"whole/teacher/{name}.jsonl").read_bytes()
    whole = (here / "whole" / "model.safetensors").read_bytes()
    assert (here / "cut" / "model.safetensors").read_bytes() == whole
    assert "logprob" not in rows("cut/teacher/pseudo_captions.jsonl")[0]  # drawn captions come as often as is likely


def test_pictures_without_human_captions(here: Path, capsys: pytest.CaptureFixture[str]):
    """The teacher's captions are the only ones, also in validation; the page says that nothing measures quality."""
    assert distill(lambda body: says(f"a {number_of(body) % 7} square"), "--student", "student.yaml",
                   data="world/images") == 0  # fmt: skip
    kept = {row["id"]: row["caption"] for row in rows("run/teacher/pseudo_captions.jsonl")}
    media = read_dataset(load_recipe("run/recipe.json").data).media
    assert set(kept) == {medium.id for medium in media if medium.split in ("train", "val")}
    assert {"a", "square"} < set(load_run("run").vocabulary.words)
    told = json.loads(Path("run/distill.json").read_text())
    assert told["comparison"] is None and told["student against teacher"]["items"] >= 2
    assert "People's captions of these images are not known" in Path("run/distill.html").read_text()
    assert "no caption" not in capsys.readouterr().err


def test_a_run_of_limner_teaches(here: Path):
    """With log-probabilities, three captions for each image, and the word distribution on top."""
    longer = ["--stages.0.epochs", "12", "--stages.0.captions_per_medium", "5", "--stages.0.lr", "0.01"]
    assert main(["train", "student.yaml", "--out", "big", *longer, "--decoding.rules.max_length", "20"]) == 0
    objective = "{name: distil, teacher: big, xe_weight: 0.1, kl: 0.9}"
    call = ["distill", "student.yaml", "--teacher", "big", "--out", "run", "--n-best", "3", "--beam", "3"]
    assert main([*call, "--min-words", "1", "--stages.0.objective", objective]) == 0
    captions = rows("run/teacher/captions.jsonl")
    assert all(isinstance(row["logprob"], float) and len(row["others"]) == 2 for row in captions)
    recipe = load_recipe("run/recipe.json")
    assert recipe.stages[0].objective.name == "distil" and recipe.pseudo_captions.fill


def test_a_clip_looks_at_the_captions(here: Path):
    """With random weights scores mean nothing: what counts is that each caption has its own, and what the bar does."""
    clip = ["--clip", str(make_clip(here / "clip")), "--min-clip-score"]
    assert distill(mixed, *clip, "0", out="all") == 0
    kept = {row["id"]: row["caption"] for row in rows("all/teacher/pseudo_captions.jsonl")}
    pictures = {medium.id: medium for medium in read_dataset(load_recipe("all/recipe.json").data).media}
    scores = several_clip_scores({id: pictures[id] for id in kept}, {id: [text] for id, text in kept.items()},
                                 clip=load_clip(clip[1]))  # fmt: skip
    bar = sorted(score for (score,) in scores.values())[len(kept) // 2]
    assert distill(mixed, *clip, str(bar - 1e-6), out="half") == 0
    better = {id for id, (score,) in scores.items() if score >= bar - 1e-6}
    assert {row["id"] for row in rows("half/teacher/pseudo_captions.jsonl")} == better < set(kept)
    reasons = {row["id"]: row["reason"] for row in rows("half/teacher/rejected.jsonl")}
    assert {id for id, reason in reasons.items() if reason == "CLIPScore"} == set(kept) - better


def test_a_model_of_transformers_teaches(here: Path, capsys: pytest.CaptureFixture[str]):
    """What it says is what `limner caption` says; the student learns from those that pass the filters."""
    teacher = f"hf:{save('blip-2', here / 'teacher')}"
    more = ["--min-words", "1", "--language", "any", "--max-length", "5"]
    assert main(["distill", "student.yaml", "--teacher", teacher, "--out", "run", *more]) in (0, 3)
    said = {row["id"]: row for row in rows("run/teacher/captions.jsonl")}
    call = ["caption", "world/images", "--model", teacher, "--max-new-tokens", "5", "--out", "said.jsonl"]
    assert main(call) in (0, 3)
    alone = {Path(row["file"]).stem: row["caption"] for row in rows("said.jsonl")}
    again = {f"image-{stem}": caption for stem, caption in alone.items() if f"image-{stem}" in said}
    assert {id: row["caption"] for id, row in said.items() if row["caption"]} == {id: t for id, t in again.items() if t}
    kept, rejected = rows("run/teacher/pseudo_captions.jsonl"), rows("run/teacher/rejected.jsonl")
    assert kept and {row["reason"] for row in rejected} <= {"empty", "cut off", "repeats"}
    assert Path("run/model.safetensors").exists()


def test_when_every_caption_is_rejected_nothing_is_trained(here: Path, capsys: pytest.CaptureFixture[str]):
    refuses = lambda body: says("I cannot describe this image.")  # noqa: E731
    with serving(refuses) as server:
        call = ["distill", "student.yaml", "--teacher", f"{server.url}#tiny-vlm", "--out", "run"]
        assert main(call) == 1
        error = capsys.readouterr().err
        assert "no caption of the teacher is left to learn from: all 33 were rejected (33 refusal)" in error
        assert len(rows("run/teacher/rejected.jsonl")) == 33 and not Path("run/model.safetensors").exists()
        asked = len(server.seen)
        assert main([*call, "--resume"]) == 1
        assert len(server.seen) == asked  # answers are kept


@pytest.mark.parametrize(("words", "status", "message"), [
    (["student.yaml", "--teacher", "openai:http://127.0.0.1:9/v1#none"], 1, "127.0.0.1:9"),
    (["nothing.csv", "--teacher", "limner-small"], 1, "there is no file or folder nothing.csv"),
    (["gone.csv", "--teacher", "limner-small"], 1, "gone.csv: none of its 2 images and clips is there"),
    (["empty", "--teacher", "limner-small"], 1, "no image or clip below empty"),
    (["student.yaml", "--teacher", "limner-small", "--student", "tiny"], 2, "give small, or a recipe"),
    (["student.yaml", "--teacher", "limner-small", "--min-agreement", "0.2"], 2, "give --sample N or --n-best N"),
    (["student.yaml", "--teacher", "limner-small", "--min-clip-score", "1"], 2, "give --clip MODEL"),
    (["student.yaml", "--teacher", "limner-small", "--stages.0.epoch", "1"], 1, "has no field 'epoch'"),
    (["student.yaml", "--teacher", "limner-small", "--media", "world"], 1, "leave out --media"),
])  # fmt: skip
def test_mistakes_leave_nothing_behind(words: list[str], status: int, message: str, here: Path, capsys):
    Path("gone.csv").write_text("file,caption\na.png,a dog\nb.png,a cat\n")
    Path("empty").mkdir()
    assert main(["distill", *words, "--out", "run"]) == status
    assert message in capsys.readouterr().err
    assert not Path("run").exists()
