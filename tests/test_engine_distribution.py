"""The distribution limner-engine: its modules need no PyTorch, what is missing is named, and (slow) its wheel works."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

import build_wheels
import limner
from engine_modules import LEFT_OUT, REQUIRED, engine_modules, imported_names, module_files
from limner import shipped
from limner.apps.cli import main
from limner.data.photographs import FPS, find_photographs, slide_show
from limner.explanations.video import write_mp4
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "packages" / "engine"
MODULES = engine_modules(ROOT / "src")
HEAVY = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "h5py", "matplotlib", "tensorboard",
         "pandas", "scipy", "sklearn", "numba", "pyarrow", "onnx", "onnxscript")  # fmt: skip
LARGE = {"numpy", "numpy.libs", "PIL", "pillow.libs", "onnxruntime"}  # in site-packages
PIPS = ("pip", "setuptools", "pkg_resources", "_distutils_hack")  # what a new environment has
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


@pytest.fixture(scope="module")
def staged(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree of limner-engine, with a tiny model in the place of limner-small."""
    folder = tmp_path_factory.mktemp("staged") / "engine"
    build_wheels.stage_engine(folder, exported)
    return folder / "src"


def without_pytorch(staged: Path, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new process that has limner-engine's modules, and not the packages that it does without."""
    start = f"import sys\nsys.modules.update(dict.fromkeys({HEAVY}))\n"
    command = [sys.executable, "-c", start + code, *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(staged)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def command_without_pytorch(staged: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return without_pytorch(staged, "from limner.apps.cli import entry\nentry()", *arguments)


def test_the_rule_that_chooses_modules(tmp_path: Path) -> None:
    """Imports of functions and for type checkers do not count; those of parents and inside try do."""
    package = tmp_path / "limner"
    package.mkdir()
    for name, text in {
        "__init__": "import os",
        "light": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch",
        "numbers": "import numpy as np\nclass A:\n    import json",
        "heavy": "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "above": "from limner import heavy",
        "other": "import limner.above",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert set(engine_modules(tmp_path)) == {"limner", "limner.light", "limner.numbers"}
    assert set(imported_names("limner.above", module_files(tmp_path))) == {"limner", "limner.heavy"}


def test_its_modules_import_without_pytorch(staged: Path) -> None:
    done = without_pytorch(
        staged, f"from importlib import import_module\nfor name in {list(MODULES)}: import_module(name)"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_it_has_what_captions_need() -> None:
    """Whatever a caption of the ONNX engine imports is in test_start; here the commands and the front doors."""
    commands = {"caption", "alt", "watch", "merge", "score", "shapes"}
    assert {name for name in MODULES if re.fullmatch(r"limner\.apps\.(?!shared|options|cli)\w+", name)} == {
        f"limner.apps.{name}" for name in commands
    }
    assert {"limner.inference.onnx.pipeline", "limner.data.clips", "limner.inference.load", "limner.__main__"} <= {
        *MODULES
    }
    assert all(not name.startswith(LEFT_OUT) for name in MODULES)


def test_it_requires_what_the_rule_allows() -> None:
    """The packages of the rule are those of its pyproject.toml, with the versions that limner requires."""
    own = (PACKAGE / "pyproject.toml").read_text(encoding="utf-8")
    required = re.search(r"(?s)dependencies = \[\n(.*?)\]", own)
    assert required
    asked = set(re.findall(r'"(.*?)"', required[1]))
    known = packages_distributions()
    names = {known[name][0].lower() for name in REQUIRED - {"pydantic_core"}}  # pydantic brings that one
    assert {text.partition(">")[0] for text in asked} == names
    assert asked <= set(re.findall(r'"(\S+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def files_of(source: Path) -> set[Path]:
    found = {path.relative_to(source) for path in (source / "limner").rglob("*") if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts}


def test_no_file_is_in_both_wheels_and_none_in_neither(staged: Path, tmp_path: Path) -> None:
    build_wheels.stage_limner(tmp_path / "limner")
    engine, rest, source = map(files_of, (staged, tmp_path / "limner" / "src", ROOT / "src"))
    assert not engine & rest
    assert source <= engine | rest
    assert {path.parts[:3] for path in (engine | rest) - source} == {("limner", "shipped", "limner-small.onnx")}


def test_limner_requires_it() -> None:
    text = build_wheels.limner_metadata((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = limner.__version__
    assert f'version = "{version}"' in text and f'"limner-engine=={version}",\n    "torch>=' in text
    assert "dynamic" not in text and "[project.scripts]" not in text  # the script is limner-engine's


def test_a_picture_without_pytorch(staged: Path, tiny: Path) -> None:
    picture = tiny / "world" / "images" / "000001.png"
    done = command_without_pytorch(staged, "caption", picture)
    assert (done.stdout.strip(), done.stderr) == (Pipeline.load(tiny / "run").caption(picture).text, "")


def test_without_pyav_clips_are_named_and_pictures_captioned(staged: Path, tiny: Path, tmp_path: Path) -> None:
    """A folder of a picture, a clip and a picture of 16 bits: one caption, two files that say why they have none."""
    media = tmp_path / "media"
    media.mkdir()
    shutil.copyfile(tiny / "world" / "images" / "000001.png", media / "a.png")
    write_mp4(media / "b.mp4", slide_show([media / "a.png"]), fps=FPS)
    write_rgb16(media / "d.png")
    code = "sys.modules['av'] = None\nfrom limner.apps.cli import entry\nentry()"
    done = without_pytorch(staged, code, "caption", media)
    expected = Pipeline.load(tiny / "run").caption(media / "a.png").text
    assert expected in done.stdout and "b.mp4" not in done.stdout and "d.png" not in done.stdout
    for name in ("b.mp4", "d.png"):
        assert re.search(rf"{name}: .*pip install 'limner-engine\[clips\]'", done.stderr), done.stderr
    one = without_pytorch(staged, code, "caption", media / "b.mp4")
    assert one.returncode == 3 and "need PyAV" in one.stderr and "Traceback" not in one.stderr


def write_rgb16(path: Path) -> None:
    """A PNG of 8 x 8 colours of 16 bits of which 4 are used."""
    rows = b"".join(b"\0" + struct.pack(">24H", *range(24)) for _ in range(8))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)


@pytest.mark.parametrize(
    "words",
    ["train recipe.yaml", "explain photo.jpg", "export RUN", "caption PICTURE --model RUN",
     "caption PICTURE --device cuda", "caption PICTURE --out report.html", "caption PICTURE --engine torch"],
)  # fmt: skip
def test_what_needs_pytorch_says_what_to_install(staged: Path, tiny: Path, tmp_path: Path, words: str) -> None:
    replaced = {"PICTURE": tiny / "world" / "images" / "000001.png", "RUN": tiny / "run"}
    replaced["report.html"] = tmp_path / "report.html"
    done = command_without_pytorch(staged, *(replaced.get(word, word) for word in words.split()))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("limner: this needs PyTorch, which limner-engine does without: pip install limner")


def test_names_of_the_package_say_it_too(staged: Path) -> None:
    code = "import limner\ntry: limner.train\nexcept ImportError as error: print(error)"
    assert "limner.train: this needs PyTorch" in without_pytorch(staged, code).stdout
    code = "import limner\ntry: limner.load('runs/mine')\nexcept ImportError as error: print(error)"
    assert without_pytorch(staged, code).stdout.startswith("this needs PyTorch")


def test_the_exported_model_inside(
    exported: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the default where there is no packed one; --engine onnx asks for it where there are both."""
    picture = str(tiny / "world" / "images" / "000001.png")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert shipped.exported() is None
    assert main(["caption", picture, "--engine", "onnx"]) == 2
    assert "give --model FOLDER" in capsys.readouterr().err
    shutil.copytree(exported, tmp_path / "limner-small.onnx")
    assert shipped.names() == ["limner-small"] and shipped.model() == shipped.exported()
    expected = OnnxPipeline.load(exported).caption(picture).text
    for arguments in ([], ["--engine", "onnx"], ["--model", "limner-small"]):
        assert main(["caption", picture, *arguments]) == 0
        assert capsys.readouterr().out.strip() == expected
    assert isinstance(limner.load(), OnnxPipeline) and isinstance(limner.load("limner-small"), OnnxPipeline)
    (tmp_path / "limner-small.limner").mkdir()
    (tmp_path / "limner-small.limner" / "manifest.json").touch()
    assert shipped.names() == ["limner-small"] and shipped.model().suffix == ".limner"
    assert main(["caption", picture, "--engine", "onnx"]) == 0
    assert capsys.readouterr().out.strip() == expected


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built as they are released."""
    out = tmp_path_factory.mktemp("wheels")
    subprocess.run([sys.executable, PACKAGE / "build_wheels.py", "--out", out], check=True)
    return {path.name.partition("-")[0]: path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def clean(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with limner-engine, installed with pip, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install(folder, str(wheels["limner_engine"]))
    return folder


def install(environment: Path, requirement: str) -> None:
    """Install with pip into a virtual environment."""
    command: list[str | Path] = [environment / "bin" / "python", "-m", "pip", "install", "--quiet"]
    options: list[str | Path] = ["--disable-pip-version-check", "-c", ROOT / "constraints.txt", requirement]
    subprocess.run([*command, *options], check=True, env=ENVIRONMENT)


def installed(clean: Path, *arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Call the installed command."""
    command: list[str | Path] = [clean / "bin" / "limner", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=clean)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.slow
def test_the_wheels_share_no_file(wheels: dict[str, Path]) -> None:
    names = [{name for name in ZipFile(path).namelist() if name.startswith("limner/")} for path in wheels.values()]
    assert set(wheels) == {"limner", "limner_engine"} and not names[0] & names[1]
    assert all(path.stat().st_size < 40e6 for path in wheels.values())


@pytest.mark.slow
def test_its_size_and_no_pytorch(clean: Path) -> None:
    """NumPy, Pillow and onnxruntime take 164 of 243 MB; what comes with them is small.  PyAV is an extra."""
    listed = installed_distributions(clean)
    assert not {name for name in listed if name in HEAVY or name.startswith("nvidia")}
    (site,) = clean.glob("lib/python*/site-packages")
    sizes = {entry.name: size_of(entry) for entry in site.iterdir() if not entry.name.startswith(PIPS)}
    assert "av" not in sizes and sum(sizes.values()) < 280e6, sizes
    assert sum(size for name, size in sizes.items() if name not in LARGE) < 120e6, sizes


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def installed_distributions(clean: Path) -> list[str]:
    command: list[str | Path] = [
        clean / "bin" / "python",
        "-m",
        "pip",
        "list",
        "--format",
        "json",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return [entry["name"].lower() for entry in json.loads(done.stdout)]


@pytest.mark.slow
def test_captions_of_the_clean_environment_are_pytorchs(
    clean: Path, wheels: dict[str, Path], tiny: Path, tmp_path: Path
) -> None:
    """A picture, a folder with JSONL and sidecars, a clip with subtitles; what needs PyTorch is named."""
    pictures = tmp_path / "pictures"
    shutil.copytree(tiny / "world" / "images", pictures)
    for name, path in find_photographs()[0].items():
        shutil.copyfile(path, pictures / name)
    files = sorted(map(str, pictures.iterdir()))
    torch_engine = Pipeline.load()
    expected = {Path(file).name: torch_engine.caption(file).text for file in files}

    one = installed(clean, "caption", files[-1])
    assert one.stdout.strip() == expected[Path(files[-1]).name] and not one.stderr
    out = tmp_path / "captions.jsonl"
    installed(clean, "caption", pictures, "--out", out, "--sidecar", "txt")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    found = {Path(row["file"]).name: row["caption"] for row in rows}
    assert found == expected
    assert len(list(pictures.glob("*.txt"))) == len(files)

    clip = tmp_path / "clip.mp4"
    write_mp4(clip, slide_show(files[-3:]), fps=FPS)
    assert "pip install 'limner-engine[clips]'" in installed(clean, "caption", clip, status=3).stderr
    install(clean, f"{wheels['limner_engine']}[clips]")
    installed(clean, "caption", clip, "--srt")
    subtitles = clip.with_suffix(".srt").read_text(encoding="utf-8")
    assert torch_engine.caption(str(clip)).text in subtitles and "-->" in subtitles
    for words in (["train", "recipe.yaml"], ["explain", files[0]], ["caption", files[0], "--model", tiny / "run"]):
        assert "pip install limner" in installed(clean, *words, status=1).stderr
