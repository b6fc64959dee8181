"""The state file: what is in it after kills, and what it refuses."""

from pathlib import Path

import pytest

from limner.watching.arrivals import Signature
from limner.watching.state import Record, WatchState

MADE = {"model": "m", "decoding": {"size": 3}}
ROWS = [{"file": "a.jpg", "caption": "a dog"}]
RECORD = Record("a.jpg", 10, 20, "f00", ROWS)


def test_records_survive_and_say_what_was_handed_on(tmp_path: Path):
    path = tmp_path / "state"
    state = WatchState(path, MADE)
    state.add(RECORD)
    state.add(Record("b\udcff.jpg", 1, 2, "f01", problem="damaged"))  # a name that is not UTF-8
    assert WatchState(path, MADE).undelivered() == [RECORD]
    state.delivered("a.jpg")
    again = WatchState(path, MADE)
    assert again.undelivered() == [] and again.known("a.jpg", Signature(10, 20))
    assert not again.known("a.jpg", Signature(10, 21)) and not again.known("c.jpg", Signature(10, 20))
    found = again.of_content("f01")
    assert found is not None and found.problem == "damaged" and found.file == "b\udcff.jpg"


@pytest.mark.parametrize("kept", range(0, 240, 7))
def test_a_file_that_was_cut_anywhere_is_read(tmp_path: Path, kept: int):
    """A kill during the writing of a line; the first line is written atomically."""
    path = tmp_path / "state"
    state = WatchState(path, MADE)
    head = path.stat().st_size
    state.add(RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole[: head + kept])
    records = WatchState(path, MADE).records
    assert records == ({"a.jpg": RECORD} if head + kept >= len(whole) else {})


def test_other_options_and_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "state"
    WatchState(path, MADE).add(RECORD)
    with pytest.raises(ValueError, match="of captions with another model: give the same options as before, or another"):
        WatchState(path, {**MADE, "model": "other"})
    with pytest.raises(ValueError, match="with another style"):
        WatchState(path, {**MADE, "style": "alt-text"})
    path.write_text("{}\n[]\n")
    with pytest.raises(ValueError, match=r"state, line 2: expected a file with its captions, got \[\]"):
        WatchState(path, MADE)
    path.write_text("dear diary\n")
    with pytest.raises(ValueError, match="state, line 1 is not a JSON file"):
        WatchState(path, MADE)


def test_a_start_leaves_one_line_per_file(tmp_path: Path):
    path = tmp_path / "state"
    state = WatchState(path, MADE)
    for _ in range(5):
        state.add(RECORD)
    WatchState(path, MADE)
    assert path.read_text().count("\n") == 2
