"""Damaged files: no reader shows a traceback, takes long or much memory, runs a program, or accepts a sealed file."""

import os
from pathlib import Path

import pytest

from tests.faults.harness import try_damaged
from tests.faults.mutate import mutate
from tests.faults.readers import Reader, all_readers

TRIES = int(os.environ.get("LIMNER_MUTATIONS", "150"))  # for each of about 100 readers
FOUND = Path(__file__).with_name("found")
SAMPLE = {  # a reader of each kind -> tries in every run of the suite
    "captions coco.json": 20, "captions table.csv": 20, "captions packed.zip": 10, "recipe.yaml": 20, "store": 40,
    "features .h5": 20, "image png": 15, "clip mkv": 10, "archive t.tar": 10, "checkpoint sa-lstm": 10,
    "micro-world": 20, "packed model": 8, "run": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def readers(tiny: Path, corpus: Path) -> list[Reader]:
    return all_readers(corpus, tiny)


def test_a_share_of_the_damaged_files(readers: list[Reader], corpus: Path):
    chosen = {reader.name: reader for reader in readers}
    faults = [
        fault for name, tries in SAMPLE.items() for fault in try_damaged(chosen[name], range(tries), corpus).faults
    ]
    assert faults == []


def test_what_was_found_stays_mended(readers: list[Reader], corpus: Path):
    """`found/READER/SEED-FILE`: files that once did what none may do."""
    faults = []
    for reader in readers:
        found = sorted((FOUND / reader.name.replace(" ", "_")).glob("*"))
        files = {path.name: path for path in reader.files}

        def one_found(_: dict[Path, bytes], number: int, found=found, files=files) -> tuple[Path, bytes]:
            return files[found[number].name.partition("-")[2]], found[number].read_bytes()

        faults += try_damaged(reader, range(len(found)), corpus, damage=one_found).faults if found else []
    assert faults == []
    assert {folder.name for folder in FOUND.iterdir()} <= {reader.name.replace(" ", "_") for reader in readers}


@pytest.mark.faults
def test_many_damaged_files(readers: list[Reader], corpus: Path):
    assert len(readers) > 80
    faults = [fault for reader in readers for fault in try_damaged(reader, range(1000, 1000 + TRIES), corpus).faults]
    assert faults == []


def test_mutations_are_seeded_and_differ():
    data = b'{"a": [1, 2, {"b": "c"}], "d": null}'
    damaged = [mutate(data, seed) for seed in range(200)]
    assert damaged == [mutate(data, seed) for seed in range(200)]
    assert data not in damaged and len(set(damaged)) > 150


def test_the_harness_notices_what_must_not_happen(tmp_path: Path):
    """A program that is started, an exception that no command reports, a sealed file that is accepted, a process that
    dies; and what a reader writes is removed again."""
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    cases = {
        "Executed: os.system": lambda: os.system("true"),
        "ZeroDivisionError": lambda: 1 / 0,
        "accepted, and is not what was written": path.read_bytes,
        "the process ended with 3": lambda: os._exit(3),
    }
    for said, read in cases.items():
        count, (fault,) = try_damaged(Reader("bad", [path], read, said.startswith("accepted")), range(1), tmp_path)
        assert count == 1
        assert said in fault.what
    assert try_damaged(Reader("good", [path], (tmp_path / "new").touch), range(2), tmp_path) == (2, [])
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
