"""SubRip and WebVTT, letter by letter."""

from pathlib import Path

import pytest

from limner.apps.shared.subtitles import subtitle_paths, write_subtitles
from limner.text.subtitles import Cue, timestamp, to_srt, to_vtt

CUES = [
    Cue(0.0, 1.5, "a dog"),
    Cue(1.5, 2.0, " "),  # nothing was said
    Cue(2.0, 3725.0625, "a <b>man</b> & a dog --> run\n\nover the grass of a very wide field"),
]


def test_subrip():
    assert to_srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:01,500\na dog\n\n"
        "2\n00:00:02,000 --> 01:02:05,062\na <b>man</b> & a dog --> run over the\ngrass of a very wide field\n\n"
    )


def test_webvtt():
    assert to_vtt(CUES) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.500\na dog\n\n"
        "00:00:02.000 --> 01:02:05.062\n"
        "a &lt;b&gt;man&lt;/b&gt; &amp; a dog --&gt; run over the\ngrass of a very wide field\n\n"
    )
    assert to_vtt([]) == "WEBVTT\n\n" and to_srt([]) == ""


def test_the_timestamp():
    assert (
        timestamp(0.0004) == "00:00:00.000"
        and timestamp(59.9996) == "00:01:00.000"
        and timestamp(360000) == "100:00:00.000"
    )


def test_paths(tmp_path: Path):
    two = ["in/a.mp4", "in/b.c.avi"]
    assert subtitle_paths("", ".srt", two) == {"in/a.mp4": Path("in/a.srt"), "in/b.c.avi": Path("in/b.c.srt")}
    assert subtitle_paths("out", ".vtt", two) == {"in/a.mp4": Path("out/a.vtt"), "in/b.c.avi": Path("out/b.c.vtt")}
    assert subtitle_paths("x/y.SRT", ".srt", two[:1]) == {"in/a.mp4": Path("x/y.SRT")}
    (tmp_path / "odd.mp4").mkdir()
    assert subtitle_paths(str(tmp_path / "odd.mp4"), ".srt", two[:1]) == {"in/a.mp4": tmp_path / "odd.mp4" / "a.srt"}
    for option, clips, message in (
        ("y.srt", two, r"--srt y\.srt is one file, for 2 videos: name a folder instead"),
        ("in/a.mp4", two, r"--srt in/a\.mp4 is an image or a video; put --srt after the files"),
        ("", [], "--srt: there is no video among the files"),
        (
            "",
            ["in/a.mp4", "in/a.avi"],
            r"in/a\.mp4 and in/a\.avi would both write in/a\.srt; caption them in separate calls",
        ),
        ("out", ["x/a.mp4", "y/a.mp4"], r"would both write out/a\.srt"),
    ):
        with pytest.raises(ValueError, match=message):
            subtitle_paths(option, ".srt", clips)


def test_clips_without_a_caption_get_no_file(tmp_path: Path):
    files = {"a.mp4": tmp_path / "sub" / "a.srt", "b.mp4": tmp_path / "sub" / "b.srt"}
    assert write_subtitles({"a.mp4": CUES[:1], "b.mp4": []}, files, ".srt") == [files["a.mp4"]]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.srt"]
