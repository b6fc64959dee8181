"""`limner watch --camera`: films with known cuts, streams on loopback, previews, and what cannot be opened."""

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

import limner
from limner.apps.cli import main
from limner.data.clips import read_clip
from limner.data.frames import FrameSampling
from limner.data.images import MediaError
from limner.explanations.fonts import font_of
from limner.watching import camera
from limner.watching.camera import Camera, open_source
from limner.watching.preview import FPS, FilmPreview, HttpPreview, burn_in, wrapped
from tests.data.videos import moving, write
from tests.watching.rtsp import playing
from tests.watching.test_scenes import BLUE, GREEN, RED, WHITE, frames

CUTS = [RED] * 20 + [GREEN] * 20 + [WHITE] + [GREEN] * 9 + [BLUE] * 20  # scenes begin at 0, 2 and 5 s; a flash at 4 s


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write(tmp_path / "film.mp4", CUTS)


def watch(tiny: Path, source: Path | str, *more: str | Path) -> int:
    return main(["watch", "--camera", str(source), "--model", str(tiny / "run"), *map(str, more)])


def test_one_caption_per_scene(tiny: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Those of the first frames of the scenes, in the output, in subtitles and printed; the same every time."""
    outputs = [tmp_path / f"o{ending}" for ending in (".jsonl", ".srt", ".vtt")]
    options = ("--fast", "--out", outputs[0], "--srt", outputs[1], "--vtt", outputs[2])
    assert watch(tiny, film, *options) == 0
    captioner = limner.load(tiny / "run")
    firsts = read_clip(film, FrameSampling(70, "every", 1))[[0, 20, 50]]
    texts = [captioner.caption(picture).text for picture in firsts]
    found = [json.loads(line) for line in outputs[0].read_text().splitlines()]
    assert [(row["start"], row["caption"]) for row in found] == list(zip((0, 2, 5), texts, strict=True))
    assert {row["file"] for row in found} == {str(film)}
    times = re.findall(r"(\S+) --> (\S+)", outputs[1].read_text())
    assert [(a[6:], b[6:]) for a, b in times] == [("00,000", "02,000"), ("02,000", "05,000"), ("05,000", "07,000")]
    assert outputs[2].read_text().startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n{texts[0]}\n")
    assert capsys.readouterr().out == (
        f"00:00:00.000: {texts[0]}\n00:00:02.000: {texts[1]}\n00:00:05.000: {texts[2]}\ndone: 3 captions, 0 problems\n"
    )
    before = [path.read_bytes() for path in outputs]
    assert watch(tiny, film, *options) == 1 and "give --overwrite" in capsys.readouterr().err
    assert watch(tiny, film, *options, "--overwrite") == 0
    assert [path.read_bytes() for path in outputs] == before


def test_a_film_in_real_time_with_a_command_and_a_preview(tiny: Path, tmp_path: Path):
    film = write(tmp_path / "film.mp4", [RED] * 12 + [GREEN] * 12)
    code = "import os; open(os.environ['LIMNER_FILE'] + '.log', 'a').write(os.environ['LIMNER_ROWS'] + chr(10))"
    assert watch(tiny, film, "--preview", tmp_path / "p.mp4", "--exec", f'{sys.executable} -c "{code}"') == 0
    rows = [json.loads(line) for line in Path(f"{film}.log").read_text().splitlines()]
    assert [row["start"] for (row,) in rows][:1] == [0]  # on a busy machine, the second may come late or be left out
    with av.open(str(tmp_path / "p.mp4")) as container:
        assert 0 < container.streams.video[0].frames <= 2.4 * FPS + 1


def test_sigterm_finishes_the_preview(tiny: Path, tmp_path: Path):
    film = write(tmp_path / "film.mp4", moving(300, (96, 128)))
    words = [
        "watch",
        "--camera",
        film,
        "--model",
        tiny / "run",
        "--preview",
        tmp_path / "p.mp4",
        "--srt",
        tmp_path / "a.srt",
    ]
    command = [sys.executable, "-m", "limner", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("00:00:00.000: ")
        time.sleep(0.5)
        process.terminate()
        out, error = process.communicate(timeout=60)
    assert process.returncode == 0 and error == ""
    assert "stopped; what was begun is finished: 1 captions, 0 problems" in out
    assert read_clip(tmp_path / "p.mp4", FrameSampling(1)).shape[2] == 480
    assert (tmp_path / "a.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:0")


def test_a_time_limit(tiny: Path, film: Path, tmp_path: Path):
    assert watch(tiny, film, "--fast", "--seconds", "3", "--out", tmp_path / "o.jsonl") == 0
    assert [json.loads(line)["start"] for line in (tmp_path / "o.jsonl").open()] == [0, 2]


def test_the_film_of_the_preview_has_the_caption_and_the_length_of_the_source(tmp_path: Path):
    preview = FilmPreview(tmp_path / "p.mp4", wait=True)
    for number, frame in enumerate(frames([BLUE] * 20)):
        preview.show(frame, "a dog" if number >= 10 else "")
    preview.close()
    pictures = read_clip(tmp_path / "p.mp4", FrameSampling(100, "every", 1))
    assert len(pictures) == int(1.9 * FPS) + 1 and pictures.shape[1:3] == (360, 480)
    whites = [int((picture.min(-1) > 180).sum()) for picture in pictures]
    assert max(whites[:14]) == 0 and min(whites[16:]) > 50


def test_a_preview_without_pictures_and_one_that_cannot_be_written(tmp_path: Path):
    FilmPreview(tmp_path / "p.mp4", wait=True).close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    preview = FilmPreview(tmp_path / "file" / "p.mp4", wait=True)
    preview.show(next(frames([BLUE])), "")
    with pytest.raises(OSError):
        preview.close()


def test_a_caption_covers_the_lower_edge_only():
    picture = np.full((400, 640, 3), 90, np.uint8)
    shown = burn_in(picture, "a dog " * 30)
    changed = np.flatnonzero((shown != picture).any((1, 2)))
    assert changed.max() == 399 and 200 < changed.min() < 360
    assert (burn_in(picture, "") == picture).all()


def test_lines_fit():
    font = font_of("a", 20)
    lines = wrapped("a dog runs through the high grass of a wide field " + "x" * 80, font, 200)
    assert max(map(font.getlength, lines[:-1])) <= 200 and lines[-1] == "x" * 80
    assert " ".join(lines).count(" ") == 11


def test_a_browser_on_this_machine_sees_pictures_and_captions():
    preview = HttpPreview(0, "<b>camera</b>")
    port = int(preview.address.rstrip("/").rpartition(":")[2])

    def ask(path: str, host: str = "localhost") -> tuple[int, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer

    ended = threading.Event()

    def show() -> None:
        while not ended.wait(0.02):
            preview.show(next(frames([RED])), "a red wall")

    shower = threading.Thread(target=show)
    shower.start()
    try:
        status, answer = ask("/stream.mjpg")
        assert status == 200 and answer.readline() == b"--picture\r\n" and b"image/jpeg" in answer.readline()
        length = int(answer.readline().split(b":")[1])
        assert answer.readline() == b"\r\n" and answer.read(length)[:2] == b"\xff\xd8"
        assert json.loads(ask("/caption")[1].read()) == {"caption": "a red wall"}
        page = ask("/")[1].read().decode()
        assert "&lt;b&gt;camera&lt;/b&gt;" in page and "http" not in page
        assert ask("/", "evil.example")[0] == 403 and ask("/etc/passwd")[0] == 404
        with pytest.raises(OSError, match="choose another one with --preview http:PORT"):
            HttpPreview(port, "")
    finally:
        ended.set()
        shower.join()
        preview.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the files of a folder, on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://me:secret@127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_stream_is_opened_again_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "a.ts", [RED] * 20, "mpeg2video", rate=25)
    monkeypatch.setattr(camera, "RETRIES", 1)
    with served(tmp_path) as address:
        source = open_source(f"{address}/a.ts")
        assert isinstance(source, Camera) and "secret" not in source.name
        live = source.frames(threading.Event())
        assert next(live).image.width == 64
        (tmp_path / "a.ts").unlink()
        with pytest.raises(MediaError, match=r"^http://127.0.0.1:\d+/a.ts: no more pictures \(") as refused:
            list(live)
        assert "secret" not in str(refused.value)
        with pytest.raises(MediaError, match=r"a\.ts: it cannot be opened"):
            open_source(f"{address}/a.ts")


def test_a_network_camera(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    """RTSP over TCP, with a password: captions, subtitles and events; then the camera goes."""
    stream = write(tmp_path / "a.ts", [RED] * 50 + [GREEN] * 50, "libx264", rate=25, g="25")
    monkeypatch.setattr(camera, "RETRIES", 0)
    with playing(stream, 4.0, "me:s3cret") as (server, place):
        source = f"rtsp://me:s3cret@{place}"
        outputs = ["--out", tmp_path / "o.jsonl", "--srt", tmp_path / "a.srt", "--vtt", tmp_path / "a.vtt"]
        assert watch(tiny, source, *outputs, "--preview", tmp_path / "p.mp4") == 1
        told = capsys.readouterr()
        with pytest.raises(MediaError, match=r"^rtsp://127.0.0.1:\d+/stream: it cannot be opened \("):
            Camera(f"rtsp://me:wrong@{place}")
    assert {"DESCRIBE", "SETUP", "PLAY"} <= set(server.methods)
    assert f"rtsp://{place}: no more pictures (" in told.err and "s3cret" not in told.out + told.err
    captioner = limner.load(tiny / "run")
    pictures = read_clip(stream, FrameSampling(100, "every", 1))[[0, 60]]
    red, green = (captioner.caption(picture).text for picture in pictures)
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["caption"] for row in found] == [red, green][: len(found)] and found  # one, on a very busy machine
    assert {row["file"] for row in found} == {f"rtsp://{place}"}
    assert (tmp_path / "a.srt").read_text().count(" --> ") == len(found)
    assert (tmp_path / "a.vtt").read_text().count(" --> ") == len(found)
    with av.open(str(tmp_path / "p.mp4")) as container:
        assert container.streams.video[0].frames > 1


def test_a_playlist_of_a_stream_reads_no_file(tmp_path: Path, film: Path):
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:7,\nfile://{film}\n#EXT-X-ENDLIST\n"
    )
    with served(tmp_path) as address, pytest.raises(MediaError, match=r"cannot be opened|no video stream"):
        open_source(f"{address}/list.m3u8")


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["--camera", "99"], 1, "camera 99: there is no /dev/video99; "),
        (["--camera", "nowhere.mp4"], 1, "nowhere.mp4: there is no such file"),
        (["--camera", "ftp://me:pw@host/x"], 1, "ftp://host/x: give an address with one of rtsp, "),
        (["--camera", "rtsp://127.0.0.1:1/x", "--fast"], 1, "--fast is for video files; rtsp://127.0.0.1:1/x comes as"),
        (
            ["--camera", "rtsp://me:pw@127.0.0.1:1/x"],
            1,
            "rtsp://127.0.0.1:1/x: it cannot be opened (",
        ),
        (["--camera", "0", "--preview", "x.gif"], 2, "--preview x.gif: give FILE.mp4, http or http:PORT"),
        (["--camera", "0", "--srt", "x.vtt"], 2, "--srt x.vtt: the file ends in .srt"),
    ],
)
def test_what_cannot_be(tiny: Path, words: list[str], status: int, reason: str, capsys: pytest.CaptureFixture[str]):
    assert main(["watch", *words, "--model", str(tiny / "run")]) == status
    error = capsys.readouterr().err
    assert reason in error and "pw" not in error
