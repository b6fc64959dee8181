"""METEOR's tables, opened: from the user's cache, or converted into it once from an installed pycocoevalcap.

The cache is LIMNER_CACHE, or limner's folder in XDG_CACHE_HOME (~/.cache).  Tables are used only if their sizes and
checksums are those of the index, which is written last; else all are converted again.
"""

import os
import shutil
import sys
import tempfile
import zlib
from atexit import register
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, Int32, UInt8, UInt64

from limner.core.files import read_json, write_json
from limner.metrics.meteor.convert import paraphrase_tables, synonym_tables, word_lists
from limner.metrics.meteor.normalise import Prefixes, read_prefixes

FORMAT = 2  # counted up when the arrays or their keys change; each format has a folder of its own
INDEX = "index.json"
ARRAYS = (
    *("phrase", "sieve", "paraphrase_start", "paraphrase", "source_start", "source", "source_rank"),
    *("word", "synset_start", "synset", "own", "exception"),
)
NEEDED = "METEOR needs tables of pycocoevalcap, which is not installed: pip install 'limner[meteor]'"

Array = np.ndarray


class MissingTables(ImportError):
    """There is neither a cache nor an installed pycocoevalcap to convert; the message says how to get them."""


class Damaged(ValueError):
    """A cache that is incomplete, or not what its index says."""


@dataclass(frozen=True)
class Tables:
    """Paraphrases, synonyms and word lists; the arrays are those of `convert`, mapped from their files."""

    phrase: UInt64[Array, " P"]
    sieve: UInt8[Array, " S"]
    paraphrase_start: Int32[Array, " P+1"]
    paraphrase: Int32[Array, " N"]
    source_start: Int32[Array, " P+1"]
    source: Int32[Array, " N"]
    source_rank: Int16[Array, " N"]
    word: UInt64[Array, " W"]
    synset_start: Int32[Array, " W+1"]
    synset: Int32[Array, " M"]
    own: Int32[Array, " W"]
    exception: Bool[Array, " W"]
    function: frozenset[str]
    prefixes: Prefixes


def missing() -> str | None:
    """None when METEOR can be computed here, else one line that says what to install."""
    return None if (cache() / INDEX).is_file() or installed() else NEEDED


def load() -> Tables:
    """The tables, converted first where the cache has none or a damaged one.

    Where the cache cannot be written, they are converted for this process only, which stderr is told.
    Raises MissingTables.
    """
    return _load(cache())


def cache() -> Path:
    """The folder of the converted tables."""
    base = os.environ.get("LIMNER_CACHE")
    if base:
        return Path(base) / f"meteor-1.5-{FORMAT}"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "limner" / f"meteor-1.5-{FORMAT}"


def open_tables(folder: Path) -> Tables:
    """Map the tables of a folder.  Raises FileNotFoundError when it has none, Damaged when they cannot be trusted."""
    index = _index(folder)
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        if not path.is_file() or _measure(path) != index["files"].get(path.name):
            raise Damaged(f"{path} is not the file that {INDEX} describes")
        arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return Tables(
        **arrays,
        function=frozenset(word.strip() for word in index["function"]),
        prefixes=read_prefixes(index["nonbreaking"]),
    )


def convert(package: Path, folder: Path) -> None:
    """Write the tables of an installed pycocoevalcap into an empty folder, the index last."""
    jar = package / "meteor" / "meteor-1.5.jar"
    with _progress(package / "meteor" / "data" / "paraphrase-en.gz") as (paraphrases, advance):
        arrays = {**synonym_tables(jar), **paraphrase_tables(paraphrases, advance)}
    files = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        np.save(path, arrays[name])
        files[path.name] = _measure(path)
    write_json(folder / INDEX, {"format": FORMAT, "files": files, **word_lists(jar)})


@lru_cache(maxsize=1)
def _load(folder: Path) -> Tables:
    try:
        return open_tables(folder)
    except (OSError, Damaged):
        package = installed()
    if package is None:
        raise MissingTables(NEEDED)
    try:
        _into_cache(package, folder)
    except OSError as error:
        folder = _for_this_process(package, error)
    return open_tables(folder)


def _into_cache(package: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as name:
        new = Path(name) / folder.name
        new.mkdir()
        convert(package, new)
        if not _sound(folder):
            with suppress(FileNotFoundError):
                os.rename(folder, Path(name) / "damaged")
        try:
            os.rename(new, folder)
        except OSError:
            if not _sound(folder):  # else another process was faster
                raise


def _for_this_process(package: Path, error: OSError) -> Path:
    print(
        f"METEOR's tables cannot be kept ({error}) and are converted for this run only; "
        "set LIMNER_CACHE to a folder that can be written",
        file=sys.stderr,
    )
    folder = Path(tempfile.mkdtemp(prefix="limner-meteor-"))
    register(shutil.rmtree, folder, ignore_errors=True)
    convert(package, folder)
    return folder


def installed() -> Path | None:
    """The folder of an installed pycocoevalcap that has METEOR's files."""
    spec = find_spec("pycocoevalcap")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "meteor" / "data" / "paraphrase-en.gz").is_file():
            return Path(place)
    return None


def _sound(folder: Path) -> bool:
    try:
        open_tables(folder)
    except (OSError, Damaged):
        return False
    return True


def _index(folder: Path) -> dict[str, Any]:
    try:
        index = read_json(folder / INDEX)
        if index["format"] == FORMAT and {"files", "function", "nonbreaking"} <= index.keys():
            return dict(index)
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{folder / INDEX} is not an index of METEOR's tables") from error
    raise Damaged(f"{folder / INDEX} is of another format")


def _measure(path: Path) -> dict[str, int]:
    """Size and checksum of a file."""
    size = path.stat().st_size
    if not size:
        return {"bytes": 0, "crc32": 0}
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return {"bytes": size, "crc32": zlib.crc32(content)}


@contextmanager
def _progress(path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A bar on stderr, where that is a terminal, for reading a file once."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("METEOR's tables (once)", total=path.stat().st_size)
        yield path, lambda count: bar.advance(task, count)
