"""What a writer is, and what a reader may find at any moment while it works: nothing, or something whole."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from PIL import Image

from limner.data.store import FeatureStore
from limner.runs.run import load_run


def nothing(out: Path) -> None:
    """Leave a folder empty."""


class Writer(NamedTuple):
    """A command that writes into a folder.

    command      of a folder, whether an earlier call was killed -> its words
    whole        raises, or asserts, when what a reader finds there is not whole; nothing there is whole too
    prepare      puts into the folder what is there before the command
    environment  variables for the command; OUT stands for the folder
    patches      (module, name, value) set in the process of the command
    """

    name: str
    command: Callable[[Path, bool], list[str]]
    whole: Callable[[Path], object]
    prepare: Callable[[Path], object] = nothing
    environment: Mapping[str, str] = {}
    patches: tuple[tuple[ModuleType, str, Any], ...] = ()


def csv_is_whole(path: Path, rows: int) -> None:
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == rows


def lines_are_whole(path: Path, rows: int) -> None:
    if path.exists():
        assert len([json.loads(line) for line in path.read_text().splitlines()]) == rows


def json_is_whole(path: Path) -> None:
    if path.exists():
        json.loads(path.read_text())


def page_is_whole(path: Path) -> None:
    if path.exists():
        assert path.read_text().rstrip().endswith("</html>")


def report_is_whole(out: Path) -> None:
    """A page, what programs read of it, and rows."""
    page_is_whole(out / "c.html")
    json_is_whole(out / "c.json")
    if (out / "fixed.jsonl").exists():
        assert (out / "fixed.jsonl").read_text().endswith("}\n")


def sidecars_are_whole(out: Path) -> None:
    for path in (out / "in").iterdir():
        text = path.read_text() if path.suffix in (".txt", ".json", ".xmp") else "\n"
        assert text.endswith("\n") or text.endswith(">"), (path, text)


def images_are_whole(out: Path) -> None:
    for path in (out / "in").iterdir():
        if not path.name.startswith("."):
            with Image.open(path) as image:
                image.load()


def if_there(path: Path, read: Callable[[Path], object]) -> None:
    """Read a folder; it may have been replaced meanwhile, and then the new one is read."""
    for _ in range(20):
        if not path.exists():
            return
        before = path.stat().st_ino
        try:
            read(path)
            return
        except (ValueError, OSError):
            if path.exists() and path.stat().st_ino == before:
                raise


def run_is_whole(folder: Path) -> None:
    if_there(folder / "model.safetensors", lambda _: load_run(folder))


def store_is_whole(out: Path) -> None:
    if (out / "index.json").exists():
        store = FeatureStore(out)
        for id in store.ids:
            store.get(id)


def frames_are_whole(out: Path) -> None:
    if out.exists():
        names = sorted(path.name for path in out.iterdir())
        assert names == [f"{k:06}.png" for k in range(len(names))] and len(names) == 2, names
