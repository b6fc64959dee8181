"""`limner caption` for clips: whole, in windows and in shots; times in every output; bad clips counted."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.shared.arguments import positive_seconds
from limner.apps.shared.journal import Journal, to_jsonl
from limner.core.types import Medium
from limner.data.clips import index_clip, read_clip
from limner.data.frames import FrameSampling
from limner.inference import pieces as pieces_module
from limner.inference.pieces import Cut, Piece, Problems, pieces
from limner.inference.pipeline import Pipeline
from tests.data.videos import animate, greys, join, noise, tone, with_sound, write

RED, GREEN, BLUE = (np.full((32, 32, 3), colour, np.uint8) for colour in ((220, 20, 20), (20, 200, 40), (20, 40, 220)))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s: red for 2 s, green for 3 s, blue for 1 s."""
    return write(tmp_path_factory.mktemp("clips") / "scenes.mp4", [RED] * 20 + [GREEN] * 30 + [BLUE] * 10)


def rows(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def times(path: Path) -> list[tuple[float, float]]:
    return [(float(row["start"]), float(row["end"])) for row in rows(path)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [(0, 6)]),
        (["--shots"], [(0, 2), (2, 5), (5, 6)]),
        (["--every", "2"], [(0, 2), (2, 4), (4, 6)]),
        (["--every", "2.5"], [(0, 2.5), (2.5, 6)]),
        (["--whole"], [(0, 6)]),
    ],
)
def test_pieces_have_their_times_and_their_own_captions(tiny: Path, scenes: Path, tmp_path: Path, options, expected):
    out = tmp_path / "c.jsonl"
    assert main(["caption", str(scenes), "--model", str(tiny / "run"), "--out", str(out), *options]) == 0
    assert times(out) == expected
    pipeline = Pipeline.load(tiny / "run")
    for row, (start, end) in zip(rows(out), expected, strict=True):
        caption = pipeline.caption(Medium("x", str(scenes), start=start, end=end))
        assert row["caption"] == caption.text and row["logprob"] == pytest.approx(caption.logprob, abs=1e-3)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_pictures_and_clips_together(tiny: Path, scenes: Path, tmp_path: Path, ending: str):
    Image.fromarray(RED).save(tmp_path / "red.png")
    out = tmp_path / f"c.{ending}"
    sources = [str(tmp_path / "red.png"), str(scenes)]
    command = ["caption", *sources, "--model", str(tiny / "run"), "--every", "3", "--out", str(out)]
    assert main(command) == 0
    found = rows(out)
    assert [row["file"] for row in found] == [sources[0], sources[1], sources[1]]
    picture = found[0].get("start") or None
    assert picture is None and float(found[1]["end"]) == float(found[2]["start"]) == 3
    if ending == "json":
        assert [row["image_id"] for row in found] == ["red", "scenes_0_3", "scenes_3_6"]
    written = out.read_bytes()
    assert main([*command, "--resume"]) == 0 and out.read_bytes() == written


def test_long_clips_are_cut_by_themselves(scenes: Path, monkeypatch: pytest.MonkeyPatch):
    known = index_clip(scenes)
    assert Cut()(known) == [(0.0, 6.0)]
    monkeypatch.setattr(pieces_module, "LONG", 5.0)
    assert len(Cut()(known)) == 3 and Cut(whole=True)(known) == [(0.0, 6.0)] and len(Cut(every=1.0)(known)) == 6


def test_a_piece_is_what_its_cut_shows(scenes: Path):
    problems = Problems()
    found = list(pieces([str(scenes), "x.png"], Cut(every=2.0), FrameSampling(3), problems))
    assert [piece for piece, _ in found[:3]] == [
        Piece(str(scenes), 2.0 * k, 2.0 * k + 2, whole_file=False) for k in range(3)
    ]
    assert found[3] == (Piece("x.png"), "x.png") and problems == Problems()
    for piece, frames in found[:3]:
        np.testing.assert_array_equal(frames, read_clip(scenes, FrameSampling(3), piece.start, piece.end))


def test_subtitles(tiny: Path, scenes: Path, tmp_path: Path, capsys):
    command = ["caption", str(scenes), "--model", str(tiny / "run"), "--shots"]
    assert main([*command, "--srt", str(tmp_path / "s.srt"), "--vtt", str(tmp_path / "subs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    texts = [line.split(": ", 1)[1] for line in lines[:3]]
    assert lines[0].startswith("00:00:00.000 - 00:00:02.000: ") and lines[2].startswith("00:00:05.000 - 00:00:06.000: ")
    assert lines[3:] == [f"wrote {tmp_path / 's.srt'}", f"wrote {tmp_path / 'subs' / 'scenes.vtt'}"]
    blocks = (tmp_path / "s.srt").read_text().strip().split("\n\n")
    assert [block.split("\n")[1] for block in blocks] == [
        "00:00:00,000 --> 00:00:02,000",
        "00:00:02,000 --> 00:00:05,000",
        "00:00:05,000 --> 00:00:06,000",
    ]
    assert [" ".join(block.split("\n")[2:]) for block in blocks] == texts
    assert (tmp_path / "subs" / "scenes.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n")


def test_subtitles_count_from_the_beginning_of_the_file(tiny: Path, tmp_path: Path, capsys):
    """Sound from the beginning, the first frame after 3 s."""
    path = with_sound(tmp_path / "a.mp4", greys(20), begins=3)
    command = ["caption", str(path), "--model", str(tiny / "run"), "--every", "1", "--srt"]
    assert main(command) == 0 and capsys.readouterr().err == ""
    times = [line for line in path.with_suffix(".srt").read_text().splitlines() if "-->" in line]
    assert times[0].startswith("00:00:03,0") and len(times) == 2
    assert main([*command[:4], "--out", str(tmp_path / "c.jsonl")]) == 0
    assert rows(tmp_path / "c.jsonl")[0]["start"] == pytest.approx(3, abs=0.03)
    assert rows(tmp_path / "c.jsonl")[0]["end"] == pytest.approx(5, abs=0.03)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_an_animation_is_captioned_as_a_clip(tiny: Path, tmp_path: Path, name: str, capsys):
    """3 s of red, 2 s of green."""
    frames = [colour + (k % 2) for colour, count in ((RED, 30), (GREEN, 20)) for k in range(count)]
    path = animate(tmp_path / name, frames)
    command = ["caption", str(path), "--model", str(tiny / "run"), "--out", str(tmp_path / "c.jsonl"), "--overwrite"]
    assert main([*command, "--shots", "--srt"]) == 0
    assert times(tmp_path / "c.jsonl") == [(0, 3), (3, 5)] and "00:00:03,000 --> 00:00:05,000" in (
        path.with_suffix(".srt").read_text()
    )
    captions = [row["caption"] for row in rows(tmp_path / "c.jsonl")]
    pipeline = Pipeline.load(tiny / "run")
    assert captions == [pipeline.caption(np.stack([colour] * 4)).text for colour in (RED + 1, GREEN + 1)]
    assert main(command) == 0 and times(tmp_path / "c.jsonl") == [(0, 5)]


def test_joined_recordings_are_noted_and_unknown_codecs_listed(tiny: Path, tmp_path: Path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    part = write(tmp_path / "a.ts", [RED] * 50 + [GREEN] * 50, "mpeg2video", 25)
    join(folder / "joined.ts", part, part)
    unknown = write(folder / "unknown.avi", greys(3))
    unknown.write_bytes(unknown.read_bytes().replace(b"FMP4", b"NBDY"))
    write(folder / "whole.mp4", greys(3))
    out = tmp_path / "c.jsonl"
    assert main(["caption", str(folder), "--model", str(tiny / "run"), "--shots", "--out", str(out)]) == 3
    assert [(Path(row["file"]).name, round(row["start"], 2)) for row in rows(out)] == [
        *(("joined.ts", start) for start in (0, 2, 4, 6)),
        ("whole.mp4", 0),
    ]
    error = capsys.readouterr().err
    assert error.startswith(f"1 file could not be read:\n  {unknown}: the video is in a format that this PyAV cannot")
    assert f"1 note:\n  {folder / 'joined.ts'}: the time stamps begin anew or jump at 1 place" in error


def test_bad_clips_are_counted_and_the_others_captioned(tiny: Path, tmp_path: Path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.mkv", noise(40))
    (folder / "a.mkv").write_bytes((folder / "a.mkv").read_bytes()[: (folder / "a.mkv").stat().st_size // 2])
    (folder / "b.mp4").write_bytes(b"")
    tone(folder / "c.mp4")
    write(folder / "d.mp4", noise(1))
    write(folder / "e.mp4", noise(5, (33, 17)))
    out = tmp_path / "c.jsonl"
    command = ["caption", str(folder), "--model", str(tiny / "run"), "--out", str(out)]
    for options in ([], ["--every", "0.5"]):
        assert main([*command, "--overwrite", *options]) == 3
        error = capsys.readouterr().err
        assert error.startswith("2 files could not be read:") and "\n1 note:\n" in error
        assert (
            f"{folder / 'b.mp4'}: the file is empty" in error and f"{folder / 'c.mp4'}: the file has no video" in error
        )
        assert f"{folder / 'a.mkv'}: truncated: " in error and "of 4.0 s can be read" in error
        assert [Path(file).name for file in dict.fromkeys(row["file"] for row in rows(out))] == [
            "a.mkv",
            "d.mp4",
            "e.mp4",
        ]


def test_a_damaged_clip_that_is_captioned_is_a_note(tiny: Path, tmp_path: Path, capsys):
    """Nothing was skipped: the status is 0."""
    clip = write(tmp_path / "a.mkv", noise(40))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert main(["caption", str(clip), "--model", str(tiny / "run")]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert shown.err.startswith(f"1 note:\n  {clip}: truncated: ") and shown.err.count("\n") == 2


def test_an_interrupted_clip_is_begun_again(tiny: Path, scenes: Path, tmp_path: Path, monkeypatch, capsys):
    """Two of three pieces were done: all three are redone, the picture before is not."""
    Image.fromarray(RED).save(tmp_path / "red.png")
    command = ["caption", str(tmp_path / "red.png"), str(scenes), "--model", str(tiny / "run"), "--batch-size", "1"]
    assert main([*command, "--every", "2", "--out", str(tmp_path / "whole.csv")]) == 0
    captions = Pipeline.captions
    asked = []

    def stopping(pipeline, sources, *rest):
        for number, item in enumerate(captions(pipeline, sources, *rest)):
            asked.append(item[0])
            if number == 3 and len(asked) == 4:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(Pipeline, "captions", stopping)
    command += ["--out", str(tmp_path / "c.csv")]
    assert main([*command, "--every", "2"]) == 130
    assert main([*command, "--every", "3", "--resume"]) == 1
    assert "was written with another clips" in capsys.readouterr().err
    assert main([*command, "--every", "2", "--resume"]) == 0 and len(asked) == 4 + 3
    assert (tmp_path / "c.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_rows_of_pieces_survive_the_journal(tmp_path: Path):
    head = {"model": "0", "decoding": {}}
    row = {"file": "a.mp4", "caption": "x", "logprob": -1.0, "finished": True, "start": 0.0, "end": 2.5}
    other = row | {"start": 2.5, "end": 4.0}
    last = {"file": "b.png", "caption": "y", "logprob": -1.0, "finished": True}
    (tmp_path / "c.csv.partial").write_text(to_jsonl([head, row, other, last]))
    journal = Journal(tmp_path / "c.csv", True, head)
    assert list(journal.rows.values()) == [row, other, last]
    journal.finish(["b.png", "a.mp4"])
    assert [found["file"] for found in rows(tmp_path / "c.csv")] == ["b.png", "a.mp4", "a.mp4"]
    assert list(Journal(tmp_path / "c.csv", True, head).rows.values()) == [last, row, other]


@pytest.mark.parametrize("options", [["--shots", "--whole"], ["--every", "0"], ["--every", "-1"], ["--every", "x"]])
def test_wrong_options(tiny: Path, scenes: Path, options: list[str]):
    with pytest.raises(SystemExit):
        main(["caption", str(scenes), "--model", str(tiny / "run"), *options])


def test_seconds_and_frames(tiny: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch):
    assert positive_seconds("2.5") == 2.5
    seen = []
    encode = Pipeline.encode
    monkeypatch.setattr(
        Pipeline, "encode", lambda self, pixels: seen.append(pixels.frames.shape[1]) or encode(self, pixels)
    )
    assert main(["caption", str(scenes), "--model", str(tiny / "run"), "--frames", "3"]) == 0
    assert main(["caption", str(scenes), "--model", str(tiny / "run")]) == 0
    assert seen == [3, 4]  # the run's recipe says 4
