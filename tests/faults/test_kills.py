"""Real processes, killed at random moments: the next call finishes the work to the same bytes.

LIMNER_KILLS=50 LIMNER_KILL_LOG=kills.tsv make faults-kills: fifty for each writer, a line for each in the log.
"""

import os
from pathlib import Path

import pytest

from tests.faults.checks import Writer
from tests.faults.kills import kill, undisturbed
from tests.faults.writers import NAMES, writers

KILLS = int(os.environ.get("LIMNER_KILLS", "8"))
LOG = os.environ.get("LIMNER_KILL_LOG", "")
SAMPLE = ("caption csv", "pack", "extract", "sidecar txt", "alt")


@pytest.fixture(scope="module")
def all_writers(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Writer]:
    return writers(tiny, tmp_path_factory.mktemp("inputs"))


def lost(writer: Writer, seeds: range, folder: Path) -> list[str]:
    """What was lost by kills of a writer; every kill is a line in LOG: name, seed, signal, seconds, what was lost."""
    expected, seconds = undisturbed(writer, folder / "whole")
    found = []
    for seed in seeds:
        it = kill(writer, folder / "killed", expected, seconds, seed)
        if LOG:
            with open(LOG, "a", encoding="utf-8") as file:
                print(it.writer, it.seed, it.signal, f"{it.at:.3f}", ascii(it.lost), sep="\t", file=file)
        found += [f"{it.seed} {it.signal} at {it.at:.3f} s: {it.lost}"] if it.lost else []
    return found


@pytest.mark.parametrize("name", SAMPLE)
def test_a_killed_command_is_finished_by_the_next_one(name: str, all_writers: dict[str, Writer], tmp_path: Path):
    assert lost(all_writers[name], range(1), tmp_path) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", NAMES)
def test_many_kills(name: str, all_writers: dict[str, Writer], tmp_path: Path):
    if name == "export":
        pytest.importorskip("onnxscript")
    fewer = 4 if name == "export" and KILLS < 50 else 1  # torch.export takes a while
    assert lost(all_writers[name], range(100, 100 + max(1, KILLS // fewer)), tmp_path) == []


@pytest.mark.faults
def test_every_writer_is_named(all_writers: dict[str, Writer]):
    assert set(all_writers) == set(NAMES)
