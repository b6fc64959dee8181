"""`limner caption --engine onnx`: the same outputs, bad files reported, and no PyTorch in the process."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.core.torch_free import Caption, Failure, Medium
from limner.decode.options import Beam, Sample
from limner.inference.onnx.pipeline import OnnxPipeline


@pytest.fixture(scope="module")
def files(tiny: Path) -> list[Path]:
    return sorted((tiny / "world" / "images").iterdir())[:5]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_the_outputs_are_those_of_pytorch(tiny: Path, exported: Path, files: list[Path], tmp_path: Path, suffix: str):
    written = []
    for engine, model in (("torch", tiny / "run"), ("onnx", exported)):
        out = tmp_path / f"{engine}.{suffix}"
        arguments = ["--model", str(model), "--engine", engine, "--out", str(out), "--beam", "3", "--n-best", "2"]
        assert main(["caption", *map(str, files), *arguments]) == 0
        written.append(out.read_text())
    numbers = [[float(it) for it in _numbers(text)] for text in written]
    assert len(numbers[0]) == len(numbers[1]) > 0
    np.testing.assert_allclose(numbers[0], numbers[1], atol=2e-4)
    assert _words(written[0]) == _words(written[1])


def _numbers(text: str) -> list[str]:
    import re

    return re.findall(r"-\d+\.\d+", text)


def _words(text: str) -> str:
    import re

    return re.sub(r"-\d+\.\d+", "", text)


def test_unreadable_files_are_reported_and_the_others_captioned(
    exported: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """An empty file, noise, a cut picture, one that is not there, a clip that is none."""
    (tmp_path / "a_empty.png").write_bytes(b"")
    (tmp_path / "b_noise.jpg").write_bytes(b"\x00\xff" * 500)
    shutil.copy(files[0], tmp_path / "c_good.png")
    (tmp_path / "d_cut.png").write_bytes(files[1].read_bytes()[:60])
    (tmp_path / "e_clip.mp4").write_bytes(b"no clip")
    Image.new("L", (1, 300)).save(tmp_path / "f_thin.png")
    out = tmp_path / "out.csv"
    arguments = [str(tmp_path), "nowhere.png", "--engine", "onnx", "--model", str(exported), "--out", str(out)]
    assert main(["caption", *arguments]) == 3
    assert [line.split(",")[0].split("/")[-1] for line in out.read_text().splitlines()[1:]] == [
        "c_good.png",
        "f_thin.png",
    ]
    problems = capsys.readouterr().err
    for name in ("a_empty.png", "b_noise.jpg", "d_cut.png", "e_clip.mp4", "nowhere.png"):
        assert name in problems


def test_every_kind_of_source_is_captioned(exported: Path, files: list[Path]):
    engine = OnnxPipeline.load(exported, threads=1)
    expected = engine.caption(files[0])
    for source in (str(files[0]), Image.open(files[0]), files[0].read_bytes(), Medium("x", str(files[0]))):
        assert engine.caption(source).text == expected.text
    found = dict(engine.captions([str(files[0]), "nowhere.png"], Beam(1)))
    assert isinstance(found["nowhere.png"], Failure)
    with pytest.raises(ValueError, match="needs the PyTorch engine"):
        engine.caption(files[0], Sample())


def test_images_of_a_folder_are_decoded_together(exported: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch):
    """They take as many steps as the one that takes most alone; hypotheses of each end at different steps."""
    engine, shapes, counts, alone = OnnxPipeline.load(exported), list[tuple[int, ...]](), list[int](), list[Caption]()
    step = engine.model.step
    monkeypatch.setattr(engine.model, "step", lambda *given: shapes.append(given[1].shape) or step(*given))
    for path in files:
        alone.append(engine.caption(path, Beam(3, n_best=2)))
        counts.append(len(shapes))
        shapes.clear()
    together = list(engine.captions(files, Beam(3, n_best=2), batch_size=len(files)))
    assert engine.model.manifest.batched and shapes[0] == (len(files), 1) and len(shapes) == max(counts)
    for mine, (path, ours) in zip(alone, together, strict=True):
        assert isinstance(ours, Caption), path
        assert (ours.text, [it.text for it in ours.others]) == (mine.text, [it.text for it in mine.others])
        assert ours.logprob == pytest.approx(mine.logprob, abs=1e-4)
        np.testing.assert_allclose(ours.attention, mine.attention, atol=1e-5)


def test_the_export_beside_a_run_is_found(
    tiny: Path, exported: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
):
    said = []
    for model in (tiny / "run", exported):
        assert main(["caption", str(files[0]), "--engine", "onnx", "--model", str(model)]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "onnx"], "give --model FOLDER"),
        (["--model", "{exported}", "--with", "other"], "--with is about runs"),
        (["--model", "{exported}", "--encoder", "x"], "--encoder is about runs"),
        (["--model", "{exported}", "--sample", "2"], "needs the PyTorch engine"),
        (["--model", "{world}"], "no exported model"),
    ],
)
def test_unsupported_options_are_refused(
    tiny: Path,
    exported: Path,
    files: list[Path],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    given = [it.format(exported=exported, world=tiny / "world") for it in arguments]
    assert main(["caption", str(files[0]), "--engine", "onnx", *given]) == (
        2 if message.startswith(("give", "--")) else 1
    )
    assert message in capsys.readouterr().err


def test_the_engine_runs_without_pytorch(exported: Path, files: list[Path]):
    """Neither loaded nor needed: here it cannot even be found."""
    code = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "onnx", "onnxscript", "safetensors"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Gone())
from limner.apps.cli import main
sys.exit(main(sys.argv[1:]))
"""
    arguments = ["caption", *map(str, files), "--engine", "onnx", "--model", str(exported)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    engine = OnnxPipeline.load(exported, threads=1)
    assert done.stdout.splitlines() == [f"{path}: {engine.caption(path).text}" for path in files]
