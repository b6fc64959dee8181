"""Video files as users hand them in: joined, trimmed, with several streams, of unknown codecs, under strange names."""

import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from limner.core.types import Medium
from limner.data.clips import index_clip, read_clip
from limner.data.containers import is_video, video_stream
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, read_medium
from limner.data.shots import detect_shots
from tests.data.videos import greys, join, shown, tone, with_sound, write

RED, GREEN, BLUE, WHITE = (
    np.full((32, 48, 3), colour, np.uint8) for colour in ((220, 20, 20), (20, 200, 40), (20, 40, 220), (250, 250, 250))
)
FIRST, SECOND = [RED] * 15 + [GREEN] * 15, [BLUE] * 15 + [WHITE] * 15  # 3 s each


def shots(path: Path) -> list[tuple[float, float]]:
    return [(round(a, 2), round(b, 2)) for a, b in detect_shots(index_clip(path))]


def timed(path: Path, times: list[int], codec: str = "libx264", **options: str) -> Path:
    """`greys` at times in milliseconds."""
    return write(path, greys(len(times), size=(32, 48)), codec, 10, times, **options)


# --- one clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg1video"), ("vob", "mpeg2video")]
)
def test_recordings_that_were_joined_follow_one_another(tmp_path: Path, suffix: str, codec: str):
    """4 s of red and green, 4 s of blue and white: 8 s with four shots, although the time stamps begin anew."""
    rate = 10 if codec == "libx264" else 25
    parts = [[RED] * 2 * rate + [GREEN] * 2 * rate, [BLUE] * 2 * rate + [WHITE] * 2 * rate]
    files = [write(tmp_path / f"{k}.{suffix}", part, codec, rate) for k, part in enumerate(parts)]
    path, notes = join(tmp_path / f"joined.{suffix}", *files), []
    assert shots(path) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    frames = read_clip(path, FrameSampling(4), notes=notes)
    for frame, colour in zip(frames, (RED, GREEN, BLUE, WHITE), strict=True):
        np.testing.assert_allclose(frame[16, 24].astype(int), colour[0, 0], atol=6)
    assert notes == [
        f"{path}: the time stamps begin anew or jump at 1 place (first after 4.0 s); "
        "the parts were joined to one clip of 8.0 s"
    ]


@pytest.mark.parametrize("offsets", [("100", "0"), ("0", "100"), ("95442", "0")])
def test_the_first_part_begins_the_clip_whatever_its_time_stamps(tmp_path: Path, offsets: tuple[str, str]):
    """FFmpeg looks some seconds ahead for the lowest one.  After 95443.7 s the 33 bits of MPEG-TS begin anew."""
    for number, (part, offset) in enumerate(zip((FIRST, SECOND), offsets, strict=True)):
        with av.open(str(tmp_path / f"{number}.ts"), "w", options={"output_ts_offset": offset}) as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for picture in part:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    clip = index_clip(join(tmp_path / "joined.ts", tmp_path / "0.ts", tmp_path / "1.ts"))
    assert clip.span == pytest.approx((0, 6)) and len(clip.timestamps) == 60
    assert [round(a, 1) for a, _ in detect_shots(clip)] == [0, 1.5, 3, 4.5]


@pytest.mark.parametrize("delays", [("3", "0"), ("0", "3")])
def test_parts_with_another_order_of_decoding_do_not_overlap(tmp_path: Path, delays: tuple[str, str]):
    """With B-frames, a recording is shown some frames after it is decoded; without them at once."""
    files = [
        write(tmp_path / f"{k}.ts", part, "libx264", 10, bf=bf)
        for k, (part, bf) in enumerate(zip((FIRST, SECOND), delays, strict=True))
    ]
    clip = index_clip(join(tmp_path / "joined.ts", *files))
    assert [clip.to_seconds(stamp) for stamp in clip.timestamps] == pytest.approx([k / 10 for k in range(60)])


@pytest.mark.parametrize(
    ("name", "codec", "jump", "frames"),
    [
        ("a.ts", "libx264", 60_000, 10),
        ("a.mkv", "libx264", 1 << 40, 10),
        ("late.mkv", "libx264", 1 << 40, 1),
        ("a.flv", "flv", 1 << 30, 10),
    ],
)
def test_a_jump_of_the_clock_is_closed(tmp_path: Path, name: str, codec: str, jump: int, frames: int):
    """Twenty frames of .1 s; before the last `frames` of them the clock jumps by some milliseconds."""
    path = timed(tmp_path / name, [100 * k + (k >= 20 - frames) * jump for k in range(20)], codec)
    clip = index_clip(path)
    assert clip.duration == pytest.approx(2, abs=0.15) and len(detect_shots(clip)) <= 2
    assert clip.note.startswith("the time stamps begin anew or jump at 1 place (first after ")
    assert shown(read_clip(path, FrameSampling(4))) == [2, 7, 12, 17]


def test_a_long_slide_is_no_jump(tmp_path: Path):
    """Slides of ten minutes, as a screen recording has them: the clock stays, and a slide gets one part, not twenty."""
    clip = index_clip(timed(tmp_path / "a.mkv", [0, 600_000, 1_200_000]))
    assert [clip.to_seconds(stamp) for stamp in clip.timestamps] == [0, 600, 1200] and clip.note == ""
    assert len(detect_shots(clip)) <= 3


def test_a_frame_that_claims_to_last_for_days_is_bounded(tmp_path: Path):
    """One frame whose duration in the table of an MP4 (stts) is 2^31 - 1 ticks of 1/10240 s."""
    content = bytearray(write(tmp_path / "a.mp4", greys(1)).read_bytes())
    place = content.index(b"stts")
    content[place + 16 : place + 20] = (2**31 - 1).to_bytes(4, "big")
    (tmp_path / "b.mp4").write_bytes(content)
    clip = index_clip(tmp_path / "b.mp4")
    assert clip.duration < 1 and clip.note.startswith("a frame claims to be shown for 209715 s; it counts as ")


def test_an_absurd_frame_rate_is_bounded(tmp_path: Path):
    """An AVI whose header says that each of ten frames is shown for 2^30 s (`dwScale` / `dwRate` of its stream)."""
    content = bytearray(write(tmp_path / "a.avi", greys(10)).read_bytes())
    place = content.index(b"strh") + 8 + 20
    content[place : place + 8] = (1 << 30).to_bytes(4, "little") + (1).to_bytes(4, "little")
    (tmp_path / "b.avi").write_bytes(content)
    clip = index_clip(tmp_path / "b.avi")
    assert clip.duration == pytest.approx(0.4) and len(detect_shots(clip)) == 1
    assert clip.note == f"a frame claims to be shown for {1 << 30} s; it counts as 0.04 s"
    assert shown(read_clip(tmp_path / "b.avi", FrameSampling(5))) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_count_from_the_beginning_of_the_file(tmp_path: Path, suffix: str):
    """Sound from the beginning, the first frame after 3 s: players show it at 3 s."""
    path = with_sound(tmp_path / f"a.{suffix}", greys(20), begins=3)
    clip = index_clip(path)
    assert clip.span == pytest.approx((3, 5), abs=0.02) and clip.duration == pytest.approx(2, abs=0.02)
    assert clip.note == "" and detect_shots(clip)[0][0] == pytest.approx(3, abs=0.02)
    assert shown(read_clip(path, FrameSampling(4))) == [2, 7, 12, 17]
    assert shown(read_medium(Medium("a", str(path), start=4.0, end=5.0), FrameSampling(2))) == [12, 17]
    with pytest.raises(MediaError, match=r"the clip of 2\.\d\d s, which begins at 3\.\d\d s of the file"):
        read_clip(path, start=0.0, end=1.0)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_lone_stream_begins_at_zero_and_is_not_cut_short(tmp_path: Path, suffix: str):
    """Matroska stores when a stream ends, here 102 s, not how long it is."""
    clip = index_clip(timed(tmp_path / f"a.{suffix}", [100_000 + 100 * k for k in range(20)]))
    assert clip.span == pytest.approx((0, 2), abs=0.01) and clip.note == ""


def test_an_avi_with_b_frames_begins_at_zero(tmp_path: Path):
    """AVI has time stamps of decoding only; FFmpeg's first frame is one frame late, as in the clips of MSVD."""
    clip = index_clip(write(tmp_path / "a.avi", greys(20), "mpeg4", bf="1"))
    assert clip.span == pytest.approx((0, 2)) and clip.note == ""


@pytest.mark.parametrize("seconds", ["1", "3/4"])
def test_an_edit_list_hides_frames_without_a_note(tmp_path: Path, seconds: str):
    """The first frames of 2.5 s lie before the beginning; they are needed for decoding only."""
    whole, path = write(tmp_path / "a.mp4", greys(25), "libx264", 10, bf="3", g="25"), tmp_path / "b.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                shift = int(Fraction(seconds) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    clip = index_clip(path)
    hidden = {"1": 10, "3/4": 8}[seconds]
    assert len(clip.timestamps) == 25 - hidden and clip.note == ""
    assert shown(read_clip(path, FrameSampling(1, "head"))) == [hidden]


# --- which stream -----------------------------------------------------------------------------------------------------


def two_streams(path: Path, default: int) -> Path:
    """A small stream of grey 50 and a larger one of grey 200; `default` is the one that players show."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, size in enumerate(((16, 32), (32, 64))):
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            streams.append(stream)
        for _ in range(5):
            for stream, grey in zip(streams, (50, 200), strict=True):
                pixels = np.full((stream.height, stream.width, 3), grey, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("default", "shape", "grey"), [(0, (16, 32), 5), (1, (32, 64), 20)])
def test_the_default_stream_is_read(tmp_path: Path, default: int, shape: tuple[int, int], grey: int):
    frames = read_clip(two_streams(tmp_path / "a.mkv", default), FrameSampling(2))
    assert frames.shape[1:3] == shape and shown(frames) == [grey, grey]


def test_the_cover_picture_of_a_sound_file_is_not_a_clip():
    """What music players show: a video stream of one picture, marked as such."""

    class Stream:
        disposition = av.stream.Disposition.attached_pic
        type = "video"

    class Container:
        class streams:
            video = (Stream,)

            def __iter__(self):
                return iter(self.video)

        streams = streams()

    with pytest.raises(MediaError, match="no video stream"):
        video_stream(Container, "a.mkv")


@pytest.mark.parametrize(
    ("name", "known", "unknown"), [("a.mkv", b"V_MPEG4/ISO/AVC", b"V_NOBODY/ISO/AV"), ("a.avi", b"FMP4", b"NBDY")]
)
def test_an_unknown_codec_is_refused_by_name(tmp_path: Path, name: str, known: bytes, unknown: bytes):
    path = write(tmp_path / name, greys(3), "libx264" if name == "a.mkv" else "mpeg4")
    path.write_bytes(path.read_bytes().replace(known, unknown))
    with pytest.raises(MediaError, match=rf"{name}: the video is in a format that this PyAV cannot decode; convert it"):
        read_medium(path)
    assert not is_video(path)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["10:30 party.mp4", "http:x.mp4", "concat:a|b.mp4", "-i.mp4", "100%d.mp4", "a?b#c.mp4", "bad\udcff.mp4"]
)
def test_a_path_is_never_taken_as_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    shutil.copy(write(tmp_path / "a.mp4", greys(4)), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert shown(read_medium(name, FrameSampling(2))) == [1, 3]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mp4", "ffconcat version 1.0\nfile 'b.ts'\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/b.ts\n#EXT-X-ENDLIST\n"),
    ],
)
def test_playlists_are_refused_and_not_followed(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(MediaError, match=rf"{name}: a playlist, not a video; give the files that it names"):
        read_clip(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"a\.mp4: a FIFO \(named pipe\), not a file; give an image or a video file"):
        read_medium(tmp_path / "a.mp4")


def test_videos_are_told_by_their_content(tmp_path: Path):
    from PIL import Image

    video = shutil.copy(write(tmp_path / "a.mp4", greys(3)), tmp_path / "no_suffix")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("a text\n" * 50)
    names = ("a.jpg", "a.txt", "gone", ".")
    assert is_video(video) and not any(is_video(tmp_path / name) for name in names)
    assert not is_video(tone(tmp_path / "sound.mp4"))
