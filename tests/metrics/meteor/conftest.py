"""A small pycocoevalcap of a few words: the files from which METEOR's tables are converted."""

import gzip
import itertools
import random
import zipfile
from pathlib import Path

import pytest

from limner.metrics.meteor import tables
from limner.metrics.meteor.tables import Tables

WORDS = ("a", "the", "dog", "dogs", "cat", "hound", "run", "runs", "running", "walk", "big", "large", "on", "top")
FUNCTION = ("a", "the", "on", ".")
SYNSETS = {"dog": "1 2", "hound": "2", "cat": "3", "run": "4 5", "walk": "5", "big": "6", "large": "6", "mouse": "7"}
EXCEPTIONS = {"mouse": "mice", "run": "ran"}
PREFIXES = ("# abbreviations", "", "Dr", "e.g", "No #NUMERIC_ONLY# ")


def paraphrases(count: int = 400) -> list[tuple[str, str]]:
    """Distinct pairs of phrases of up to 7 words, sorted by the first phrase, as in METEOR's file."""
    rng = random.Random(0)
    lengths = (1, 1, 1, 2, 2, 2, 3, 3, 4, 7)

    def phrase() -> str:
        return " ".join(rng.choices(WORDS, k=rng.choice(lengths)))

    pairs = dict.fromkeys((phrase(), phrase()) for _ in range(count))
    return sorted((pair for pair in pairs if pair[0] != pair[1]), key=lambda pair: pair[0])


def write_package(folder: Path) -> Path:
    """A folder with the files of pycocoevalcap that are read."""
    package = folder / "pycocoevalcap"
    (package / "meteor" / "data").mkdir(parents=True)
    lines = itertools.chain.from_iterable((".5", *pair) for pair in paraphrases())
    with gzip.open(package / "meteor" / "data" / "paraphrase-en.gz", "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    with zipfile.ZipFile(package / "meteor" / "meteor-1.5.jar", "w") as jar:
        for name, pairs in (("synsets", SYNSETS), ("exceptions", EXCEPTIONS)):
            jar.writestr(f"synonym/english.{name}", "".join(f"{a}\n{b}\n" for a, b in pairs.items()))
        jar.writestr("function/english.words", "\n".join(FUNCTION))
        jar.writestr("nonbreaking/english.prefixes", "\n".join(PREFIXES))
    return package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small pycocoevalcap in place of an installed one, and an empty cache, `tmp_path / "cache"`."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    made = write_package(tmp_path)
    monkeypatch.setattr(tables, "find_pycocoevalcap", lambda: made)
    tables._load_tables.cache_clear()
    return made


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of the small pycocoevalcap."""
    folder = tmp_path_factory.mktemp("meteor")
    (folder / "tables").mkdir()
    tables.convert_tables(write_package(folder), folder / "tables")
    return tables.open_tables(folder / "tables")
