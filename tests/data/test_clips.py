"""Clips as they come: what is on screen when, that nothing is decoded in vain, and what becomes of damaged files."""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from limner.core.types import Medium
from limner.data import clips
from limner.data.clips import decode_frames, frames_at, index_clip, read_clip, read_segments, sample_timestamps
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, read_medium
from limner.data.shots import colour_histograms, shot_boundaries
from tests.data.videos import greys, moving, noise, shown, tone, write

SHARED = Path(os.environ.get("LIMNER_SHARED", Path(__file__).parents[3] / "shared")) / "data"
POLICIES = [("uniform",), ("head",), ("tail",), ("random",), ("every", 7)]


def encode(path: Path, codec: str, **options: str) -> Path:
    try:
        return write(path, moving(90), codec, 25, **options)
    except av.error.FFmpegError as error:
        pytest.skip(f"this PyAV cannot write {codec}: {error}")


@pytest.mark.parametrize(
    ("name", "codec", "options", "apart"),
    [
        ("b-frames.mp4", "libx264", {"g": "20", "bf": "3"}, True),
        ("b-frames.mkv", "libx264", {"g": "35", "bf": "5"}, True),
        ("refresh.mkv", "libx264", {"x264-params": "intra-refresh=1:keyint=20"}, None),
        ("plain.mp4", "mpeg4", {"g": "20", "sc_threshold": "1000000000"}, True),
        ("leading.mp4", "mpeg4", {"g": "20", "bf": "2"}, False),  # frames that follow the key frame are shown before it
        ("vp8.webm", "libvpx", {"g": "20", "deadline": "realtime", "cpu-used": "8"}, True),
        ("stream.ts", "libx264", {"g": "20"}, False),
        ("old.avi", "libx264", {"g": "20"}, False),
        ("older.avi", "mpeg4", {"g": "20"}, False),
    ],
)
def test_skipping_frames_that_are_not_needed_gives_the_same_pictures(
    tmp_path: Path, name, codec, options, apart: bool | None
):
    clip = index_clip(encode(tmp_path / name, codec, **options))
    assert apart in (None, clip.gops is not None) and len(clip.timestamps) == 90
    everything = replace(clip, gops=None)
    for policy in POLICIES:
        for frames in (1, 5, 30):
            wanted = sample_timestamps(clip, FrameSampling(frames, *policy), seed=3)
            fast, slow = list(frames_at(clip, wanted)), list(frames_at(everything, wanted))
            assert len(fast) == len(slow) == len(wanted)
            np.testing.assert_array_equal(np.stack(fast), np.stack(slow))


def test_groups_without_a_wanted_frame_are_not_decoded(tmp_path: Path):
    # nine groups of ten frames
    clip = index_clip(encode(tmp_path / "a.mp4", "mpeg4", g="10", sc_threshold="1000000000"))
    assert clip.gops is not None and [clip.gops.count(group) for group in range(9)] == [10] * 9
    wanted = [clip.timestamps[25], clip.timestamps[61]]
    assert [clip.timestamps.index(stamp) for stamp, _ in decode_frames(clip, wanted)] == [
        20,
        21,
        22,
        23,
        24,
        25,
        60,
        61,
    ]
    assert len(list(decode_frames(replace(clip, gops=None), wanted))) == 90


def referred(packet: av.Packet) -> bool:
    """Whether other frames are predicted from this one: nal_ref_idc of its slices is not 0 (H.264, 7.4.1).

    In MP4 a packet is NAL units, each after its length in four bytes.
    """
    data, place = bytes(packet), 0
    while place < len(data):
        header = data[place + 4]  # one bit 0, two bits nal_ref_idc, five bits type
        if header & 31 in (1, 5):  # a slice, of a key frame or not
            return header >> 5 & 3 != 0
        place += 4 + int.from_bytes(data[place : place + 4], "big")
    raise AssertionError("a packet without a slice")


def test_frames_that_no_other_frame_refers_to_are_not_decoded(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", "libx264", g="90", bf="3", sc_threshold="0")
    clip = index_clip(path)
    number = {stamp: k for k, stamp in enumerate(clip.timestamps)}
    with av.open(str(path)) as container:
        needed = {number[it.pts] for it in container.demux(video=0) if it.pts is not None and referred(it)} | {80}
    found = [number[stamp] for stamp, _ in decode_frames(clip, [clip.timestamps[80]])]
    assert [k for k in found if k <= 80] == sorted(k for k in needed if k <= 80)
    assert len(found) < 60  # of 90


def test_only_wanted_frames_become_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, made = write(tmp_path / "a.mkv", greys(20)), []
    upright = clips.upright
    monkeypatch.setattr(clips, "upright", lambda *some: made.append(1) or upright(*some))
    assert shown(read_clip(path, FrameSampling(4))) == [2, 7, 12, 17] and len(made) == 4
    assert shown(read_clip(path, FrameSampling(8), 0.0, 0.2)) == [0] * 4 + [1] * 4 and len(made) == 4 + 2


def test_decoding_ends_with_the_last_wanted_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = replace(index_clip(write(tmp_path / "a.mp4", greys(20))), gops=None)
    given, was = [], clips.decode_frames
    monkeypatch.setattr(clips, "decode_frames", lambda *some: (given.append(item[0]) or item for item in was(*some)))
    assert shown(np.stack(list(frames_at(clip, [clip.timestamps[3]] * 2)))) == [3, 3]
    assert given == list(clip.timestamps[:5])  # the one behind tells that it was on screen


def test_a_variable_frame_rate_goes_by_the_clock(tmp_path: Path):
    """One picture for 1.8 s, eight of .02 s, the last for .1 s: the last tenth's middle is 1.957 s; number 8 came at
    1.94 s."""
    times = [0, *range(1800, 1980, 20)]
    path = write(tmp_path / "a.mkv", greys(10), "libx264", times=times, qp="0")
    clip = index_clip(path)
    assert [round(clip.to_seconds(stamp) * 1000) for stamp in clip.timestamps] == times
    assert clip.duration == pytest.approx(2.06) and shown(read_clip(path, FrameSampling(10))) == [0] * 9 + [8]
    assert shown(read_clip(path, FrameSampling(3, "head"))) == [0, 1, 2]
    assert shown(read_clip(path, FrameSampling(3, "tail"))) == [7, 8, 9]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (FrameSampling(4), [2, 7, 12, 17]),
        (FrameSampling(4, "head"), [0, 1, 2, 3]),
        (FrameSampling(4, "tail"), [16, 17, 18, 19]),
        (FrameSampling(4, "every", 6), [0, 6, 12, 18]),
        (FrameSampling(4, "every", 8), [0, 8, 16]),
        (FrameSampling(4, "random"), [2, 7, 12, 17]),  # without a seed the middles
    ],
)
def test_every_sampling_policy_picks_its_frames(tmp_path: Path, sampling: FrameSampling, expected: list[int]):
    path = write(tmp_path / "a.mp4", greys(20))
    assert shown(read_clip(path, sampling)) == expected


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (FrameSampling(4), [5, 6, 7, 8]),
        (FrameSampling(4, "head"), [5, 6, 7, 8]),
        (FrameSampling(4, "tail"), [5, 6, 7, 8]),
        (FrameSampling(4, "every", 2), [5, 7]),
    ],
)
def test_every_sampling_policy_picks_its_frames_within_an_interval(
    tmp_path: Path, sampling: FrameSampling, expected: list[int]
):
    path = write(tmp_path / "a.mp4", greys(20))
    assert shown(read_clip(path, sampling, 0.5, 0.9)) == expected


def test_a_short_clip_shows_its_last_frame_again(tmp_path: Path):
    path = write(tmp_path / "a.mp4", greys(2))
    for policy, expected in (("head", [0, 1, 1, 1]), ("tail", [0, 1, 1, 1]), ("every", [0]), ("uniform", [0, 0, 1, 1])):
        assert shown(read_clip(path, FrameSampling(4, policy))) == expected
    assert shown(read_clip(path, FrameSampling(3, "head"), 0.02, 0.04)) == [0, 0, 0]  # between two frames


def test_random_frames_differ_by_seed_and_stay_in_their_parts(tmp_path: Path):
    path = str(write(tmp_path / "a.mp4", greys(20)))
    seen = [tuple(shown(read_medium(Medium("a", path, frame_seed=k), FrameSampling(2, "random")))) for k in range(12)]
    assert len(set(seen)) > 6 and all(a < 10 <= b < 20 for a, b in seen)
    assert seen[3] == tuple(shown(read_medium(Medium("a", path, frame_seed=3), FrameSampling(2, "random"))))


def test_parts_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.mp4", greys(20), g="5")
    parts = [(0.0, 0.55), (0.55, 1.2), (1.2, 2.0)]
    clip = index_clip(path)
    alone = [read_clip(path, FrameSampling(3), *part) for part in parts]
    opened, was = [], av.open
    monkeypatch.setattr(av, "open", lambda *given, **named: opened.append(given) or was(*given, **named))
    together = list(read_segments(clip, parts, FrameSampling(3)))
    assert len(opened) == 1
    for part, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_large_frames_are_scaled_down_to_the_longest_side(tmp_path: Path):
    path = write(tmp_path / "a.mp4", greys(4, size=(64, 128)))
    frames = read_clip(path, FrameSampling(2), max_side=32)
    assert frames.shape == (2, 16, 32, 3) and shown(frames) == [1, 3]  # of 4: at a quarter and at three quarters


# --- files as users have them -----------------------------------------------------------------------------------------


def test_very_short_clips_and_odd_frame_sizes_are_read(tmp_path: Path):
    assert shown(read_medium(write(tmp_path / "one.mp4", greys(1)), FrameSampling(3))) == [0, 0, 0]
    assert shown(read_medium(write(tmp_path / "half.mp4", greys(5)), FrameSampling(2))) == [1, 3]
    pictures = [np.full((33, 17, 3), 10 * k, np.uint8) for k in range(4)]
    assert read_medium(write(tmp_path / "odd.mp4", pictures), FrameSampling(2)).shape == (2, 33, 17, 3)


def test_a_clip_of_two_hours_is_read_at_the_right_times(tmp_path: Path):
    """7,200 frames, one a second: the ends of a long clip are where they should be."""
    small = [np.full((16, 16, 3), k, np.uint8) for k in (0, 80, 160, 240)]
    pictures = [small[k * 4 // 7200] for k in range(7200)]
    path = write(tmp_path / "a.mp4", pictures, "mpeg4", 1, g="250")
    assert index_clip(path).duration == 7200
    assert shown(read_medium(path, FrameSampling(4)), 80) == [0, 1, 2, 3]
    assert shown(read_medium(Medium("a", str(path), start=7100.0), FrameSampling(2)), 80) == [3, 3]


def test_files_without_video_are_refused(tmp_path: Path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    (tmp_path / "folder.mp4").mkdir()
    for path, message in (
        (
            tone(tmp_path / "sound.mp4"),
            r"sound\.mp4: the file has no video stream \(it holds audio\); replace or remove",
        ),
        (tmp_path / "empty.mp4", r"empty\.mp4: the file is empty \(0 bytes\); replace or remove it"),
        (tmp_path / "page.mp4", r"page\.mp4: it is a web page, not what it shows; download"),
        (tmp_path / "folder.mp4", r"folder\.mp4: there is no image in this folder; expected the frames of a clip"),
        (tmp_path / "gone.mp4", r"gone\.mp4: there is no such file; check"),
    ):
        with pytest.raises(MediaError, match=message):
            read_medium(path)


def test_an_mp4_without_its_end_has_no_table_of_contents(tmp_path: Path):
    path = write(tmp_path / "a.mp4", moving(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"a\.mp4: the clip cannot be decoded .*; replace or remove it"):
        read_medium(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "front.mp4"])
def test_the_readable_part_of_a_truncated_file_is_read_and_noted(tmp_path: Path, name: str):
    """Half of a clip of 4 s, in a container that tells its length at the front."""
    path = tmp_path / name
    if name == "front.mp4":
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            fill(container, noise(40))
    else:
        write(path, noise(40))
    whole = read_medium(path, FrameSampling(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    notes: list[str] = []
    found = read_medium(path, FrameSampling(40), notes=notes)
    clip = index_clip(path)
    assert 1 < clip.duration < 3 and len(notes) >= 1 and f"{name}: " in notes[0] and "can be read" in notes[0]
    count = len(clip.timestamps) - 1  # the last one may be half a frame
    head = read_clip(path, FrameSampling(count, "head"))
    np.testing.assert_array_equal(head[:count], whole[:count])
    assert found.shape == whole.shape


def fill(container: av.container.OutputContainer, pictures: Sequence[np.ndarray]) -> None:
    stream = container.add_stream("mpeg4", rate=10)
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt, stream.options = "yuv420p", {"qscale": "1"}
    for picture in pictures:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def test_damage_in_the_middle_of_a_clip_is_skipped(tmp_path: Path):
    """Zeros over some packets: the frames before and behind are still there."""
    path = write(tmp_path / "a.mkv", noise(60), g="10")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    whole = read_medium(path, FrameSampling(60))
    path.write_bytes(data)
    found = read_medium(path, FrameSampling(60))
    assert found.shape == whole.shape
    np.testing.assert_array_equal(found[:20], whole[:20])


def test_any_error_of_ffmpeg_is_damage_not_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Damaged FLV files make a decoder say "invalid argument" instead of "invalid data"."""

    class Context:
        name = "flv1"

        def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
            raise av.error.ArgumentError(22, "Invalid argument")

    path = write(tmp_path / "a.ts", greys(25), "mpeg2video", 25)
    monkeypatch.setattr(clips, "decoder", lambda stream: Context())
    with pytest.raises(MediaError, match=r"a\.ts: no frame of the clip can be decoded; replace or remove it"):
        read_clip(path)
    assert list(decode_frames(index_clip(path), notes=(notes := []))) == []
    assert notes == [f"{path}: 26 damaged places were skipped (Invalid argument)"]  # 25 packets and the end


def test_timestamps_ascend_and_give_the_frame_shown_at_a_time(tmp_path: Path):
    clip = index_clip(encode(tmp_path / "a.mp4", "libx264", g="20", bf="3"))
    assert all(a < b for a, b in pairwise(clip.timestamps)) and clip.duration == pytest.approx(3.6)
    assert clip.shown_at(clip.timestamps[7] + 1) == clip.timestamps[7]
    assert clip.shown_at(clip.timestamps[0] - 5) == clip.timestamps[0]
    with pytest.raises(MediaError, match=r"the interval from 5.0 to 6.0 s lies outside the clip of 3\.60 s"):
        clip.interval(5.0, 6.0)
    with pytest.raises(ValueError, match="frames is 0"):
        sample_timestamps(clip, FrameSampling(0))


@pytest.mark.data
def test_real_clips_are_read():
    """Ten clips: the same pictures with and without leaving out frames, and the 15 cuts that an eye sees."""
    paths = sorted(SHARED.glob("ms*/clips/*"))
    if not paths:
        pytest.skip(f"no clips below {SHARED}")
    found: dict[str, list[float]] = {}
    for path in paths:
        clip = index_clip(path)
        assert clip.gops is not None or path.suffix == ".avi"
        for policy in POLICIES:
            wanted = sample_timestamps(clip, FrameSampling(28, *policy), seed=1)
            for fast, slow in zip(frames_at(clip, wanted), frames_at(replace(clip, gops=None), wanted), strict=True):
                np.testing.assert_array_equal(fast, slow)
        found[path.stem] = [round(cut, 1) for cut in shot_boundaries(colour_histograms(clip))]
    assert found == {
        "video7310": [5.8],  # and none of its dozen camera flashes
        "video7586": [0.0, 2.5, 5.7, 6.6, 8.8, 10.8],
        "video9301": [],
        "video9969": [],
        "video9974": [1.9, 4.0, 6.2],
        "0lh_UWF9ZP4_62_69": [0.9, 5.5],
        "778mkceE0UQ_40_46": [0.2],  # a fade, no cut
        "PeUHy0A1GF0_114_121": [1.7, 2.1, 4.8],
        "TZ860P4iTaM_15_28": [],
        "klteYv1Uv9A_27_33": [],
    }
