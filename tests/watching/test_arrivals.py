"""Which files are ready: with a clock of the test, so that every moment is known."""

import os
from pathlib import Path

from limner.watching.arrivals import Arrivals, signature_of


class Clock:
    """Seconds that pass when the test says so, on both clocks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watched(folder: Path, **options: bool) -> tuple[Arrivals, Clock]:
    clock = Clock()
    arrivals = Arrivals(str(folder), settle=2, patience=30, clock=clock, wall_clock=clock, **options)
    return arrivals, clock


def write(path: Path, size: int, clock: Clock) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (clock.now, clock.now))
    return path


def names(arrivals: Arrivals) -> list[tuple[str, bool]]:
    return [(Path(found.path).name, found.last) for found in arrivals.look()]


def test_a_file_is_ready_when_it_has_not_changed_for_two_seconds(tmp_path: Path):
    arrivals, clock = watched(tmp_path)
    path = write(tmp_path / "a.jpg", 10, clock)
    assert names(arrivals) == []
    clock.now += 1.9
    assert names(arrivals) == []
    write(path, 20, clock)  # the program that writes it goes on
    clock.now += 1.9
    assert names(arrivals) == []  # the change is seen now
    clock.now += 2
    assert names(arrivals) == [("a.jpg", False)]


def test_a_file_that_was_copied_with_its_old_time_is_seen_twice_before_it_is_ready(tmp_path: Path):
    arrivals, clock = watched(tmp_path)
    write(tmp_path / "a.jpg", 10, clock)
    clock.now += 3600
    assert names(arrivals) == []
    clock.now += 2
    assert names(arrivals) == [("a.jpg", True)]  # an hour is more than the patience


def test_a_postponed_file_is_ready_again_after_the_patience_or_a_change(tmp_path: Path):
    arrivals, clock = watched(tmp_path)
    path = write(tmp_path / "a.jpg", 10, clock)
    arrivals.look()
    clock.now += 2
    (found,) = arrivals.look()
    arrivals.postpone(found.path)
    clock.now += 27.9
    assert names(arrivals) == [] and arrivals.is_waiting
    clock.now += 0.1
    assert names(arrivals) == [("a.jpg", True)]
    write(path, 20, clock)
    assert names(arrivals) == []
    clock.now += 2
    assert names(arrivals) == [("a.jpg", False)]


def test_a_file_that_is_done_stays_out_until_it_changes(tmp_path: Path):
    arrivals, clock = watched(tmp_path)
    path = write(tmp_path / "a.jpg", 10, clock)
    signature = signature_of(str(path))
    assert signature is not None
    arrivals.done(str(path), signature)
    clock.now += 100
    assert names(arrivals) == [] and not arrivals.is_waiting
    write(path, 10, clock)  # the same size, another time
    arrivals.look()
    clock.now += 2
    assert names(arrivals) == [("a.jpg", False)]


def test_what_is_left_out(tmp_path: Path):
    """Unfinished downloads, hidden files, what is no medium, links to nothing, and subfolders when asked."""
    arrivals, clock = watched(tmp_path)
    for name in ("a.jpg.part", "b.mp4.crdownload", ".c.jpg", "notes.txt", "sub/d.jpg"):
        write(tmp_path / name, 10, clock)
    (tmp_path / "e.jpg").symlink_to(tmp_path / "nowhere")
    flat, clock_of_flat = watched(tmp_path, recursive=False)
    for each, its in ((arrivals, clock), (flat, clock_of_flat)):
        each.look()
        its.now += 2
    assert names(arrivals) == [("d.jpg", False)] and names(flat) == []


def test_a_folder_that_is_gone_is_a_problem_and_not_the_end(tmp_path: Path):
    arrivals, _ = watched(tmp_path / "gone")
    assert arrivals.look() == []
    assert arrivals.problems == (
        f"{tmp_path}/gone: the folder cannot be listed (No such file or directory); it was left out",
    )
