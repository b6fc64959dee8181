"""Build the two wheels of limner: `limner-engine`, which needs no PyTorch, and `limner`, which requires it.

    python packages/engine/build_wheels.py --out dist

Both come from `src/limner`, and no file is in both: limner-engine has the modules that `engine_modules.py` chooses and
the exported limner-small, limner all others.  The exported model is made here, by `limner export`.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine_modules import engine_modules
from limner import shipped
from limner.core.version import __version__

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "src"
TYPED = "limner/py.typed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where the wheels go")
    parser.add_argument("--model", type=Path, metavar="DIR", help="limner-small, if it was exported before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = options.model or export_model(work / f"{shipped.DEFAULT}{shipped.EXPORTED}")
        stage_engine(work / "engine", model)
        stage_limner(work / "limner")
        for name in ("engine", "limner"):
            build_wheel(work / name, options.out)


def export_model(out: Path) -> Path:
    """Export the model inside limner, which compares its captions with PyTorch's."""
    subprocess.run([sys.executable, "-m", "limner", "export", shipped.DEFAULT, "--out", str(out)], check=True)
    return out


def stage_engine(stage: Path, model: Path) -> None:
    """Lay out the source tree of limner-engine in a new folder."""
    for file in [*engine_modules(SOURCE).values(), SOURCE / TYPED]:
        target = stage / "src" / file.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    inside = stage / "src" / "limner" / "shipped" / f"{shipped.DEFAULT}{shipped.EXPORTED}"
    shutil.copytree(model, inside)
    shutil.copyfile(shipped.model() / "README.md", inside / "README.md")
    metadata = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    write_metadata(stage, metadata.replace('version = "0"', f'version = "{__version__}"', 1))
    shutil.copyfile(HERE / "README.md", stage / "README.md")


def stage_limner(stage: Path) -> None:
    """Lay out what limner-engine lacks of the source tree in a new folder."""
    ignored = shutil.ignore_patterns("__pycache__", f"*{shipped.EXPORTED}")
    shutil.copytree(SOURCE / "limner", stage / "src" / "limner", ignore=ignored)
    for file in [*engine_modules(SOURCE).values(), SOURCE / TYPED]:
        (stage / "src" / file.relative_to(SOURCE)).unlink()
    write_metadata(stage, limner_metadata((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    shutil.copyfile(ROOT / "README.md", stage / "README.md")


def limner_metadata(text: str) -> str:
    """The metadata of the wheel limner: it requires limner-engine, which has the script and the version's module."""
    version_table = r"\[tool\.setuptools\.dynamic\]\nversion = .*\n"
    changes = (
        (r'dynamic = \["version"\]', f'version = "{__version__}"'),
        (r"(?m)^dependencies = \[$", f'dependencies = [\n    "limner-engine=={__version__}",'),
        (r"\[project\.scripts\]\nlimner = .*\n", ""),
        (version_table, ""),
        (r'"py\.typed", ', ""),
    )
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text)
        assert count == 1, f"pyproject.toml has {pattern} {count} times"
    return text


def write_metadata(stage: Path, text: str) -> None:
    """Write the pyproject.toml and the licence of a staged source tree."""
    (stage / "pyproject.toml").write_text(text, encoding="utf-8")
    for name in ("LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, stage / name)


def build_wheel(stage: Path, out: Path) -> None:
    """Build the wheel of a staged source tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(out), str(stage)], check=True)


if __name__ == "__main__":
    main()
