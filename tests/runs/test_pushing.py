"""A packed model on the hub: what is uploaded, what its card says, and what is said when the hub refuses."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from limner.apps.cli import main
from limner.core.files import write_json
from limner.runs.package import pack
from limner.runs.resolve import open_package
from limner.runs.run import load_run
from tests.runs.hub_stand_in import Hub, hub

SCORES = {"BLEU-4": 0.25, "CIDEr": 0.59612, "METEOR": float("nan")}


@pytest.fixture
def scored(tiny: Path, tmp_path: Path) -> Path:
    """A run with scores."""
    folder = tmp_path / "my run"
    shutil.copytree(tiny / "run", folder)
    write_json(folder / "scores.json", {"split": "test", "scores": SCORES, "protocol": {"tokenizer": "ptb"}})
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield running


def test_the_card_has_a_model_index_that_the_hub_reads(scored: Path, tmp_path: Path) -> None:
    data = ModelCard.load(pack(load_run(scored), tmp_path / "m") / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("limner", "image-to-text", "my run")
    assert data.tags == ["image-captioning", "limner"]
    found = {result.metric_name: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {"BLEU-4": 0.25, "CIDEr": 0.5961}
    cider = found["CIDEr"]
    assert (cider.metric_type, cider.dataset_name, cider.dataset_split) == ("cider", "shapes", "test")
    assert cider.task_type == "image-to-text"


def test_a_run_without_scores_has_a_card_without_a_model_index(tiny: Path, tmp_path: Path) -> None:
    card = ModelCard.load(pack(load_run(tiny / "run"), tmp_path / "m") / "README.md")
    assert card.data.library_name == "limner" and card.data.eval_results is None and "model-index" not in str(card)


def test_every_file_arrives_as_it_was_packed(
    scored: Path, tmp_path: Path, server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "m"
    assert main(["pack", str(scored), "--out", str(folder), "--push", "owner/name", "--private"]) == 0
    assert f"{server.address}/owner/name" in capsys.readouterr().out
    (created,) = server.created
    assert (created["name"], created["organization"]) == ("name", "owner")
    assert created.get("private") is True or created.get("visibility") == "private"
    assert server.tokens == {"Bearer hf_of_a_test"}
    sent = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert server.files == sent
    for name, content in server.files.items():  # what comes down is a packed model again
        (tmp_path / "down" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "down" / name).write_bytes(content)
    assert open_package(tmp_path / "down") == tmp_path / "down"


def test_a_changed_model_is_not_uploaded(
    scored: Path, tmp_path: Path, server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pack(load_run(scored), tmp_path / "m")
    with open(folder / "README.md", "a") as file:
        file.write("more")
    assert main(["pack", str(folder), "--push", "owner/name"]) == 1
    assert "README.md is not the file that was packed" in capsys.readouterr().err and not server.created


def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(
    scored: Path, tmp_path: Path, server: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pack(load_run(scored), tmp_path / "m")

    def said(repo: str = "owner/name") -> str:
        assert main(["pack", str(folder), "--push", repo]) == 1
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    server.refuse = 403
    assert "the hub refused owner/name: " in (line := said()) and "hf auth whoami" in line
    assert "'a b/c' cannot be a repository: expected OWNER/NAME" in said("a b/c")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert "the hub http://127.0.0.1:9 cannot be reached" in said()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing is uploaded" in said()
