"""Every writer as a command, what it leaves when nothing disturbs it, and what a reader may find at any moment."""

import json
from collections.abc import Callable
from pathlib import Path

from limner.data.shapes import load_world
from limner.inference.onnx.model import read_export_manifest
from limner.runs.resolve import open_package
from limner.runs.run import load_run
from tests.convert.test_refusals import written
from tests.data.videos import noise, write
from tests.faults.checks import (
    Writer,
    csv_is_whole,
    frames_are_whole,
    if_there,
    json_is_whole,
    lines_are_whole,
    page_is_whole,
    store_is_whole,
)
from tests.faults.more_writers import OBJECTIVES, editors, meteor_cache, tools, trainings

NAMES = (
    *("caption csv", "caption jsonl", "caption json", "caption html", "caption parquet", "caption part", "subtitles"),
    *("sidecar txt", "sidecar json", "sidecar xmp", "exif", "xmp", "alt", "watch", "extract", "merge captions"),
    *("merge features", "train", *OBJECTIVES, "distill", "average", "calibrate", "pack", "export", "convert", "shapes"),
    *("init", "check", "score", "METEOR's cache", "evaluate", "compare", "explain"),
)


def writers(tiny: Path, folder: Path) -> dict[str, Writer]:
    """All writers, with their inputs in `folder`."""
    run, images = str(tiny / "run"), str(tiny / "world" / "images")
    count = len(list((tiny / "world" / "images").iterdir()))
    clip = write(folder / "clip.mp4", noise(8))
    checkpoint, words = written("sa-lstm", folder / "sa")
    (folder / "c.json").write_text(json.dumps({str(k): "a red circle" for k in range(20)}))
    scored = ["--candidates", str(folder / "c.json"), "--references", str(folder / "c.json"), "--metrics", "BLEU-1"]

    def caption(ending: str, whole: Callable[[Path], object]) -> Writer:
        def command(out: Path, again: bool) -> list[str]:
            words = ["caption", images, "--model", run, "--batch-size", "4", "--out", str(out / f"c.{ending}")]
            return [*words, "--resume"] if again else words

        return Writer(f"caption {ending}", command, lambda out: whole(out / f"c.{ending}"))

    def train(name: str, *more: str) -> Writer:
        def command(out: Path, again: bool) -> list[str]:
            words = ["train", str(tiny / "tiny.yaml"), "--out", str(out / "run"), "--seed", "1", "--frames=4", *more]
            return [*words, "--checkpoint_steps", "1", *(["--resume"] if again else [])]

        return Writer(
            name, command, lambda out: if_there(out / "run" / "model.safetensors", lambda _: load_run(out / "run"))
        )

    def plain(name: str, whole: Callable[[Path], object], *words: str, again: tuple[str, ...] = ()) -> Writer:
        def command(out: Path, resumed: bool) -> list[str]:
            made = [word.replace("OUT", str(out)) for word in words]
            return [*made, *again] if resumed else made

        return Writer(name, command, whole)

    over = ("--overwrite",)
    first = next((tiny / "world" / "images").iterdir())
    made = [
        caption("csv", lambda path: csv_is_whole(path, count)),
        caption("jsonl", lambda path: lines_are_whole(path, count)),
        caption("json", json_is_whole),
        caption("html", page_is_whole),
        caption("parquet", lambda path: None),
        plain("subtitles", lambda out: None, "caption", str(clip), "--model", run, "--srt", "OUT/s.srt", again=over),
        plain("extract", lambda out: store_is_whole(out / "s"), "extract", run, "--out", "OUT/s", "--batch-size", "4"),
        train("train"),
        plain("pack", lambda out: if_there(out / "m", open_package), "pack", run, "--out", "OUT/m"),
        plain("export", lambda out: if_there(out / "m", read_export_manifest), "export", run, "--out", "OUT/m"),
        plain("convert", lambda out: if_there(out / "r", load_run), "convert", "--from", "sa-lstm", str(checkpoint),
              "--word-map", str(words), "--out", "OUT/r"),
        plain("shapes", lambda out: load_world(out / "w") if (out / "w" / "truth.json").exists() else None,
              "shapes", "--out", "OUT/w", "--images", "30", "--videos", "1", "--size", "32"),
        plain("score", lambda out: json_is_whole(out / "s.json"), "score", *scored, "--out", "OUT/s.json", again=over),
        plain("evaluate", lambda out: json_is_whole(out / "e" / "scores.json"), "evaluate", run, "--metrics", "BLEU-1",
              "--split", "val", "--out", "OUT/e"),
        plain("explain", lambda out: frames_are_whole(out / "f"), "explain", run, str(first), "--sentence", "a circle",
              "--out", "OUT/f", again=over),
    ]  # fmt: skip
    made += [*trainings(tiny, folder), *editors(tiny), *tools(tiny, folder), meteor_cache(folder)]
    return {writer.name: writer for writer in made}
