"""Real processes, killed at random moments: the next call finishes the work to the same bytes."""

import os
from pathlib import Path

import pytest

from tests.faults.kills import kill, undisturbed
from tests.faults.writers import writers

KILLS = int(os.environ.get("LIMNER_KILLS", "50"))
SAMPLE = ("caption csv", "pack", "extract")
ALL = (
    "caption csv", "caption jsonl", "caption json", "caption html", "subtitles", "extract", "train",
    "train scst", "pack", "convert", "shapes", "score", "evaluate", "explain",
)  # fmt: skip


def lost(name: str, seeds: range, tiny: Path, folder: Path) -> list[str]:
    """What was lost by kills of a writer."""
    writer = writers(tiny, folder)[name]
    expected, seconds = undisturbed(writer, folder / "whole")
    outcomes = [kill(writer, folder / "killed", expected, seconds, seed) for seed in seeds]
    return [f"{it.seed} {it.signal} at {it.at:.3f} s: {it.lost}" for it in outcomes if it.lost]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_killed_command_is_finished_by_the_next_one(name: str, tiny: Path, tmp_path: Path):
    assert lost(name, range(1), tiny, tmp_path) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", ALL)
def test_many_kills(name: str, tiny: Path, tmp_path: Path):
    assert lost(name, range(100, 100 + KILLS), tiny, tmp_path) == []


@pytest.mark.faults
def test_kills_of_an_export(tiny: Path, tmp_path: Path):
    """torch.export takes a while: fewer kills."""
    pytest.importorskip("onnxscript")
    assert lost("export", range(100, 100 + max(2, KILLS // 10)), tiny, tmp_path) == []
