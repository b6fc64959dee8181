"""METEOR's tables in the user's cache, into which they are converted once from an installed pycocoevalcap.

The cache is the folder LIMNER_CACHE, or limner's folder in XDG_CACHE_HOME (~/.cache).  Tables are used only if their
sizes and checksums are those of the index, which is written last.  Otherwise all tables are converted again.
"""

import os
import sys
import tempfile
import zlib
from atexit import register
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, Int32, UInt8, UInt64

from limner.core.files import read_json, write_json
from limner.core.temporaries import temporary_folder
from limner.metrics.meteor.convert import read_paraphrase_tables, read_synonym_tables, read_word_lists
from limner.metrics.meteor.normalise import Prefixes, read_prefixes

FORMAT = 2  # increased when the arrays or their keys change; each format has its own folder
INDEX = "index.json"
ARRAYS = (
    *("phrase", "sieve", "paraphrase_start", "paraphrase", "source_start", "source", "source_rank"),
    *("word", "synset_start", "synset", "own", "exception"),
)
INSTALL_HINT = "METEOR needs tables of pycocoevalcap, which is not installed: pip install 'limner[meteor]'"

Array = np.ndarray


class MissingTablesError(ImportError):
    """METEOR's tables are neither in the cache nor in an installed pycocoevalcap.  The message says what to install."""


class DamagedTablesError(ValueError):
    """The tables in the cache are incomplete, or differ from their index."""


@dataclass(frozen=True)
class Tables:
    """Paraphrases, synonyms and word lists.  The arrays are described in `convert`; they are mapped from their files.

    function  the function words
    prefixes  the words that keep a final full stop, see `normalise`
    """

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


def why_unavailable() -> str | None:
    """None if METEOR can be computed on this machine, else one line that says what to install."""
    return None if (cache_folder() / INDEX).is_file() or find_pycocoevalcap() else INSTALL_HINT


def load_tables() -> Tables:
    """The tables.  If the cache has none or damaged ones, they are converted first.

    If the cache cannot be written, the tables are converted for this process only, with a message on stderr.  Raises
    MissingTablesError when there is nothing to convert.
    """
    return _load_tables(cache_folder())


def cache_folder() -> Path:
    """The folder of the converted tables in the user's cache."""
    base = os.environ.get("LIMNER_CACHE")
    if base:
        return Path(base) / f"meteor-1.5-{FORMAT}"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "limner" / f"meteor-1.5-{FORMAT}"


def open_tables(folder: Path) -> Tables:
    """Map the tables of a folder into memory.

    Raises FileNotFoundError when the folder has no index, and DamagedTablesError when a file differs from the index.
    """
    index = _read_index(folder)
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        if not path.is_file() or _size_and_checksum(path) != index["files"].get(path.name):
            raise DamagedTablesError(f"{path} is not the file that {INDEX} describes")
        arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return Tables(
        **arrays,
        function=frozenset(word.strip() for word in index["function"]),
        prefixes=read_prefixes(index["nonbreaking"]),
    )


def convert_tables(package: Path, folder: Path) -> None:
    """Convert the tables of an installed pycocoevalcap into an empty folder, and write the index last."""
    jar = package / "meteor" / "meteor-1.5.jar"
    with _progress(package / "meteor" / "data" / "paraphrase-en.gz") as (paraphrases, advance):
        arrays = {**read_synonym_tables(jar), **read_paraphrase_tables(paraphrases, advance)}
    files = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        np.save(path, arrays[name])
        files[path.name] = _size_and_checksum(path)
    write_json(folder / INDEX, {"format": FORMAT, "files": files, **read_word_lists(jar)})


@lru_cache(maxsize=1)
def _load_tables(folder: Path) -> Tables:
    try:
        return open_tables(folder)
    except (OSError, DamagedTablesError):
        package = find_pycocoevalcap()
    if package is None:
        raise MissingTablesError(INSTALL_HINT)
    try:
        _convert_into_cache(package, folder)
    except OSError as error:
        folder = _convert_for_this_process(package, error)
    return open_tables(folder)


def _convert_into_cache(package: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder.parent, folder.name) as work:
        new = work / folder.name
        new.mkdir()
        convert_tables(package, new)
        if not _is_valid(folder):
            with suppress(FileNotFoundError):
                os.rename(folder, work / "damaged")
        try:
            os.rename(new, folder)
        except OSError:
            if not _is_valid(folder):  # if it is valid, another process was faster
                raise


def _convert_for_this_process(package: Path, error: OSError) -> Path:
    print(
        f"METEOR's tables cannot be saved ({error}) and are converted for this run only; "
        "set LIMNER_CACHE to a folder that can be written",
        file=sys.stderr,
    )
    until_exit = ExitStack()
    register(until_exit.close)
    folder = until_exit.enter_context(temporary_folder(tempfile.gettempdir(), "limner-meteor"))
    convert_tables(package, folder)
    return folder


def find_pycocoevalcap() -> Path | None:
    """The folder of an installed pycocoevalcap that has METEOR's files, or None."""
    spec = find_spec("pycocoevalcap")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "meteor" / "data" / "paraphrase-en.gz").is_file():
            return Path(place)
    return None


def _is_valid(folder: Path) -> bool:
    try:
        open_tables(folder)
    except (OSError, DamagedTablesError):
        return False
    return True


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = read_json(folder / INDEX)
        if index["format"] == FORMAT and {"files", "function", "nonbreaking"} <= index.keys():
            return dict(index)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedTablesError(f"{folder / INDEX} is not an index of METEOR's tables") from error
    raise DamagedTablesError(f"{folder / INDEX} is of another format")


def _size_and_checksum(path: Path) -> dict[str, int]:
    """The size and the checksum of a file."""
    size = path.stat().st_size
    if not size:
        return {"bytes": 0, "crc32": 0}
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return {"bytes": size, "crc32": zlib.crc32(content)}


@contextmanager
def _progress(path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A progress bar on stderr, if that is a terminal, for reading a file; yields the file and `advance`."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("METEOR's tables (once)", total=path.stat().st_size)
        yield path, lambda count: bar.advance(task, count)
