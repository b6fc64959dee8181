"""The example plug-in: a captioner outside limner trains, captions, is explained, scored, packed and exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from limner.core.plugins import load_plugin

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/mean_pool`, trained by the command from the example's recipe in small."""
    folder = tmp_path_factory.mktemp("plugin")
    small = ["--data.media", str(tiny / "world"), "--model.hidden", "16", "--stages.0.epochs", "2"]
    small += ["--encoder", "{name: small_cnn, size: 32, width: 8, dim: 8}", "--stages.0.batch_size", "16"]
    limner(folder, "train", str(EXAMPLE / "recipe.yaml"), "--out", "runs/mean_pool", *small)
    return folder


def limner(folder: Path, *arguments: str, plugin: bool = True, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: a plug-in that this process has imported would stay registered."""
    named = ["--plugin", "limner_mean_pool"] if plugin else []
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "limner", *named, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == status, done.stderr
    return done


def picture(tiny: Path) -> str:
    return str(sorted((tiny / "world" / "images").glob("*.png"))[0])


def test_it_is_at_most_60_lines_and_touches_nothing_of_limner() -> None:
    lines = (EXAMPLE / "limner_mean_pool" / "__init__.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 60


def test_it_captions_and_is_explained_scored_packed_and_exported(trained: Path, tiny: Path) -> None:
    run = "runs/mean_pool"
    caption = limner(trained, "caption", picture(tiny), "--model", run).stdout.strip()
    assert caption
    assert limner(trained, "explain", run, picture(tiny), "--out", "figure.png").stdout.splitlines()[0] == caption
    limner(trained, "evaluate", run, "--split", "val", "--metrics", "BLEU-1")
    scores = json.loads((trained / run / "scores.json").read_text())["scores"]
    assert 0 < scores["BLEU-1"] <= 1
    limner(trained, "pack", run, "--out", "mean_pool.limner")
    assert limner(trained, "caption", picture(tiny), "--model", "mean_pool.limner").stdout.strip() == caption
    pytest.importorskip("onnxscript")
    limner(trained, "export", run, "--format", "onnx", "--out", "exported")
    asked = ["caption", picture(tiny), "--model", "exported", "--engine", "onnx"]
    assert limner(trained, *asked, plugin=False).stdout.strip() == caption  # graphs need no plug-in


def test_a_run_whose_plugin_is_not_loaded_names_it(trained: Path, tiny: Path) -> None:
    assert json.loads((trained / "runs/mean_pool/run.json").read_text())["plugins"] == ["limner_mean_pool"]
    error = limner(trained, "caption", picture(tiny), "--model", "runs/mean_pool", plugin=False, status=1).stderr
    assert "model.name is 'mean_pool'; known are show_attend_tell" in error
    assert "trained with the plug-in limner_mean_pool: install it, or give --plugin limner_mean_pool" in error


def test_it_passes_the_conformance_kit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "test_mean_pool.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stdout  # pytest has 5 where it finds no test


def test_a_plugin_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no plug-in 'nothing_like_this': it must be a package that Python can import"):
        load_plugin("nothing_like_this")
