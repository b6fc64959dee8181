"""Execute the tutorials and store their outputs: `python docs/tutorials/execute.py docs/tutorials/*.ipynb`.

A notebook runs in an empty temporary folder, with one thread, so that its outputs are the same each time.
"""

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

CELL_SECONDS = 1200  # a cell that takes longer is an error
SOURCE = str(Path(__file__).parents[2] / "src")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # sums over several threads have no fixed order
    "HF_HUB_OFFLINE": "1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the command `limner`
    "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH")))),  # limner of this checkout
    "PYTHONWARNINGS": "ignore:IProgress not found",  # a progress bar without ipywidgets
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger would print a warning
}


def execute(notebook: Path, folder: Path, fast: bool = False) -> Any:
    """-> the executed notebook.  It runs in `folder`; with `fast` it uses few images and one epoch.

    Raises nbclient.exceptions.CellExecutionError when a cell raises an exception.
    """
    content = nbformat.read(notebook, as_version=4)
    environment = {**os.environ, **ENVIRONMENT, "LIMNER_TUTORIAL_FAST": "1" if fast else "0"}
    client = NotebookClient(
        content,
        timeout=CELL_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": folder}},
        extra_arguments=["--log-level=ERROR"],  # it would warn of TCP without encryption, which stays on this machine
    )
    client.execute(env=environment)
    content.metadata = {"kernelspec": content.metadata["kernelspec"], "language_info": {"name": "python"}}
    return content


def main(paths: list[str]) -> None:
    """Execute notebooks in place.  Prints their time, and their CPU time, which a busy machine changes less."""
    for path in map(Path, paths):
        start, before = time.monotonic(), cpu_seconds()
        with TemporaryDirectory() as folder:
            content = execute(path, Path(folder))
        nbformat.write(content, path)
        seconds = f"{time.monotonic() - start:.0f} s, of which CPU {cpu_seconds() - before:.0f} s"
        print(f"{path}: {seconds}, {path.stat().st_size / 1000:.0f} kB")


def cpu_seconds() -> float:
    """CPU time of all kernels that have ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main(sys.argv[1:])
