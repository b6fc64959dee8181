"""CPU time of cold starts: `--help` of every command, one image with PyTorch and exported, against bare imports.

    OMP_NUM_THREADS=1 python benchmarks/startup.py --rounds 5

Each start is a new process whose user and system time count, with warm files and compiled modules.  The shipped model
captions an image of noise of 512 x 512 pixels; both engines must give the same caption.  `--modules` prints what
imports cost by package, as `python -X importtime` measures it.
"""

import os
import resource
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from limner import shipped
from limner.apps.cli import COMMANDS, main

LIMNER = [sys.executable, "-m", "limner"]


def cpu_seconds(command: list[str]) -> tuple[float, str]:
    """User and system time of a process in seconds, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def import_times(command: list[str]) -> dict[str, tuple[float, int]]:
    """What imports take themselves, by top-level package: milliseconds and modules; the standard library is one."""
    found = subprocess.run([command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True)
    milliseconds: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for line in found.stderr.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdigit():
            package = fields[2].strip().partition(".")[0]
            package = "standard library" if package in sys.stdlib_module_names else package
            milliseconds[package] += int(fields[0]) / 1e3  # type: ignore[assignment]
            modules[package] += 1
    return {package: (milliseconds[package], modules[package]) for package in modules}


def print_import_times(command: list[str], rounds: int, most: int = 12) -> None:
    """The least time of each package in all rounds, the largest first."""
    tables = [import_times(command) for _ in range(rounds)]
    least = {package: min(table[package] for table in tables) for package in tables[0]}
    for package, (milliseconds, modules) in sorted(least.items(), key=lambda item: -item[1][0])[:most]:
        print(f"    {package:<20} {milliseconds:7.1f} ms  {modules:4d} modules")


def run(rounds: int, modules: bool) -> int:
    """Print the table.  Returns 1 when the engines caption the image differently."""
    with TemporaryDirectory() as name:
        image, exported = Path(name) / "noise.png", Path(name) / "model.onnx"
        pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
        Image.fromarray(pixels).save(image)
        main(["export", str(shipped.model()), "--out", str(exported)])
        starts = {
            "import numpy": [sys.executable, "-c", "import numpy"],
            "import onnxruntime": [sys.executable, "-c", "import onnxruntime"],
            "import torch": [sys.executable, "-c", "import torch"],
            "limner --help": [*LIMNER, "--help"],
            **{f"limner {name} --help": [*LIMNER, name, "--help"] for name in COMMANDS},
            "limner caption, exported": [*LIMNER, "caption", str(image), "--model", str(exported)],
            "limner caption, PyTorch": [*LIMNER, "caption", str(image)],
        }
        captions = {start: cpu_seconds(command)[1] for start, command in starts.items()}  # warms the files too
        if captions["limner caption, exported"] != captions["limner caption, PyTorch"]:
            return 1
        seconds: dict[str, list[float]] = {start: [] for start in starts}
        for _ in range(rounds):
            for start, command in starts.items():
                seconds[start].append(cpu_seconds(command)[0])
        for start, times in seconds.items():
            print(f"{start:<26} min {min(times):.3f} s   median {median(times):.3f} s   ({rounds} rounds, CPU time)")
        if modules:
            for start in ("limner caption, exported", "limner caption, PyTorch"):
                print(f"own time of imports, {start}:")
                print_import_times(starts[start], rounds)
    return 0


if __name__ == "__main__":
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modules", action="store_true", help="also print the time of imports by package")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(run(given.rounds, given.modules))
