"""The prompt: a path in, a caption out; what is wrong is said and the conversation goes on."""

import io
import shutil
from pathlib import Path

import pytest

from limner.apps.shared.prompt import Prompt, complete, path_of, run_prompt
from limner.decode.options import with_beam
from limner.inference.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Pipeline:
    return Pipeline.load(tiny / "run")


def conversation(pipeline: Pipeline, *lines: str) -> list[str]:
    said: list[str] = []
    prompt = Prompt(pipeline, pipeline.decoding, said.append)
    for line in lines:
        assert prompt.answer(line)
    return said


def test_captions_one_after_the_other(tiny: Path, pipeline: Pipeline):
    first, second = (str(tiny / "world" / "images" / f"00000{n}.png") for n in (1, 2))
    expected = [pipeline.caption(path).text for path in (first, second)]
    assert conversation(pipeline, first, "", f"  '{second}'  ") == expected


def test_the_beam_is_set_for_what_follows(tiny: Path, pipeline: Pipeline, monkeypatch):
    sizes = []
    real = Pipeline.caption
    monkeypatch.setattr(Pipeline, "caption", lambda self, path, d: sizes.append(d.size) or real(self, path, d))
    picture = str(tiny / "world" / "images" / "000001.png")
    said = conversation(pipeline, ":beam 4", picture, ":beam 0", ":beam", ":beam x", picture, ":beam 1", picture)
    assert sizes == [4, 4, 1]
    assert said[0] == "beam 4" and said[2] == "! :beam needs a whole number from 1 on, got '0'"
    assert said[3].endswith("got 'nothing'") and said[4].endswith("got 'x'")


def test_what_is_wrong_is_said(tiny: Path, pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    said = conversation(pipeline, "nowhere.jpg", str(tmp_path), str(tmp_path / "x.jpg"), ":explain", ":dance", ":help")
    assert said[0] == "! there is no file nowhere.jpg"
    assert said[1].startswith(f"! {tmp_path} is a folder; for all of its files: limner caption ")
    assert said[2].startswith("! ") and "x.jpg" in said[2]
    assert said[3] == "! there is no caption to explain yet: give a path first"
    assert said[4] == "! unknown command :dance; known are :beam, :explain, :help and :quit"
    assert ":quit" in said[5]


def test_explain(tiny: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny / "world" / "images" / "000001.png", "dog.png")
    said = conversation(pipeline, "dog.png", ":explain", ":explain why.png", ":explain why.bmp")
    assert said[1:3] == ["wrote dog-explained.png", "wrote why.png"]  # the picture itself is left alone
    assert (tmp_path / "dog-explained.png").is_file() and (tmp_path / "why.png").is_file()
    assert said[3].startswith("! why.bmp: the ending chooses the format")
    assert (tmp_path / "dog.png").read_bytes() == (tiny / "world" / "images" / "000001.png").read_bytes()


def test_explained_words_keep_the_rules(tiny: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch):
    """As the command line gives them: words, not ids."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny / "world" / "images" / "000001.png", "dog.png")
    never = pipeline.caption("dog.png").text.split()[0]
    said: list[str] = []
    prompt = Prompt(pipeline, with_beam(pipeline.decoding, never=(never,)), said.append)
    assert prompt.answer("dog.png") and prompt.answer(":explain")
    assert never not in said[0].split() and said[1] == "wrote dog-explained.png"


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("a b.jpg", "a b.jpg"),
        ("'a b.jpg' ", "a b.jpg"),
        ('"it\'s.jpg"', "it's.jpg"),
        (r"a\ b\(1\).jpg", "a b(1).jpg"),
        ("file:///x/a%20b.jpg", "/x/a b.jpg"),
        (r"back\\slash.jpg", r"back\slash.jpg"),
        ("'", "'"),
    ],
)
def test_paths_as_they_are_dragged_in(typed: str, path: str):
    assert path_of(typed) == path


def test_a_file_whose_name_has_a_backslash(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(r"a\b.jpg").touch()
    assert path_of(r"a\b.jpg") == r"a\b.jpg"


def test_completion(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dog.jpg", "dogs/1.jpg", "cat.jpg", ".hidden"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert complete("do") == ["dog.jpg", "dogs/"] and complete("dogs/") == ["dogs/1.jpg"]
    assert complete("") == ["cat.jpg", "dog.jpg", "dogs/"] and complete(".h") == [".hidden"]
    assert complete(":b") == [":beam "] and complete("nowhere/x") == []


def test_lines_of_a_pipe(tiny: Path, pipeline: Pipeline, monkeypatch, capsys):
    picture = tiny / "world" / "images" / "000001.png"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{picture}\nnowhere\n:quit\n{picture}\n"))
    assert run_prompt(pipeline, pipeline.run.recipe.decoding) == 0
    assert capsys.readouterr().out == f"{pipeline.caption(picture).text}\n! there is no file nowhere\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{picture}\n"))
    assert run_prompt(pipeline, pipeline.run.recipe.decoding) == 0  # the pipe's end is an end
