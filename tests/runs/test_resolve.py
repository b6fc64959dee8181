"""The names of models inside limner, wherever a run or a model may stand."""

import shutil
from pathlib import Path

import pytest
import torch

from limner import shipped
from limner.apps.cli import main
from limner.encoders import SmallCNNConfig, build_encoder
from limner.inference.load import is_exported, load
from limner.runs.package import pack
from limner.runs.resolve import resolve_model
from limner.runs.run import load_run
from limner.training.teachers import check_teacher


@pytest.fixture
def inside(tiny: Path, tmp_path: Path, monkeypatch) -> Path:
    """Two models inside limner, `limner-small` and `another`, and a working directory with a run `limner-small`."""
    folder = tmp_path / "inside"
    pack(load_run(tiny / "run"), folder / "limner-small.limner")
    shutil.copytree(folder / "limner-small.limner", folder / "another.limner")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    (tmp_path / "here" / "limner-small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_a_name_wins_over_a_folder_and_a_path_over_a_name(inside: Path):
    assert shipped.names() == ["limner-small", "another"]
    assert resolve_model("limner-small") == inside / "limner-small.limner"
    for path in ("./limner-small", Path("limner-small"), str(Path.cwd() / "limner-small")):
        assert resolve_model(path).resolve() == Path.cwd() / "limner-small"
    (Path("limner-small") / "model.json").touch()
    assert is_exported("./limner-small") and not is_exported("limner-small")


def test_an_unknown_name_lists_the_known_ones(inside: Path, capsys):
    with pytest.raises(FileNotFoundError, match=r"limner-huge is not a run folder here.* are limner-small, another$"):
        resolve_model("limner-huge")
    for command in (["evaluate", "limner-huge"], ["profile", "limner-huge"], ["pack", "limner-huge", "--out", "x"],
                    ["export", "limner-huge"], ["explain", "limner-huge", "x.png"]):  # fmt: skip
        assert main(command) == 1
        assert "the models inside limner are limner-small, another" in capsys.readouterr().err, command
    assert resolve_model("runs/x/y") == Path("runs/x/y")  # no name: `load_run` says what is missing


def test_names_of_encoders_teachers_and_models(inside: Path, tiny: Path, capsys):
    picture = tiny / "world" / "images" / "000001.png"
    text = load(tiny / "run").caption(picture).text
    assert load("another").caption(picture).text == text
    assert main(["caption", str(picture), "--model", "another", "--with", "limner-small"]) == 0
    assert capsys.readouterr().out == f"{text}\n"
    given, trained = SmallCNNConfig(size=32, width=8, dim=8, source="another"), load_run(tiny / "run").encoder
    for name, value in build_encoder(given).state_dict().items():
        assert trained is not None and torch.equal(value, trained.state_dict()[name])
    assert check_teacher("another") == inside / "another.limner"
    with pytest.raises(FileNotFoundError, match=r"nobody is not a run folder: .*; the models inside limner are"):
        check_teacher("nobody")
    assert main(["pack", "another", "--verify"]) == 0
    assert main(["pack", "another", "--out", "again.limner"]) == 0 and load_run("again.limner").folder.is_dir()
    assert main(["compare", "another", "limner-small"]) == 1
    assert "another is a model inside limner, and no folder here has captions of it" in capsys.readouterr().err
