"""`limner demo`: caption photographs with limner-small, show them on a page, and explain one."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from limner.apps.shared.arguments import refuse_unknown
from limner.apps.shared.journal import Row, finished_rows, printable
from limner.data.photographs import FPS, find_photographs, slide_show
from limner.inference.load import is_transformers

EXPLAINED = "photographer.png"
MOST = 6  # images in the video


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    from limner import shipped
    from limner.apps.shared.input_files import expand
    from limner.data.media import is_clip

    begin, out = time.monotonic(), options.out
    model = options.model or shipped.DEFAULT
    given, problems = expand(options.files) if options.files else (copy_photographs(out / "pictures"), [])
    if problems:
        raise ValueError("; ".join(problems))
    images = [file for file in given if not is_clip(file)]
    files = [*given, *make_videos(images, out / "clips")]
    report = out / "report.html"
    n_best = str(min(3, options.beam))
    model_arguments = ["--model", options.model] if options.model else []
    search = ["--beam", str(options.beam), "--n-best", n_best]
    status = _call("caption", *files, *model_arguments, "--shots", *search, "--out", str(report), "--overwrite")
    if status not in (0, 3):
        return status
    rows = finished_rows(report)
    for row in rows:
        print(f"  {printed_row(row)}")
    captioned = {row["file"] for row in rows}
    explainable = [file for file in images or files if printable(file) in captioned]
    if is_transformers(options.model):
        print(f"{options.model} is a model of transformers, which cannot be explained")
    elif explainable:
        chosen = next((file for file in explainable if Path(file).name == EXPLAINED), explainable[0])
        for figure in (out / "explained.png", out / "explained.mp4"):
            explain = ("explain", model, chosen, "--beam", str(options.beam), "--out", str(figure), "--overwrite")
            status = max(status, _call(*explain))
    print(f"look at {report}; all of it took {time.monotonic() - begin:.0f} s")
    return status


def printed_row(row: Row) -> str:
    """A caption after the name of its file and the time in a video."""
    time = f" {row['start']:.1f} \u2013 {row['end']:.1f} s" if "start" in row else ""
    return f"{Path(row['file']).name + time:32} {row['caption']}"


def _call(*arguments: str) -> int:
    """Run another command, after printing it as a user would type it."""
    from limner.apps.cli import main

    line = shlex.join(arguments)
    print(f"$ limner {line if len(line) < 200 else f'{line[:120]} ... {line[-60:]}'}", flush=True)
    return main(arguments)


def copy_photographs(folder: Path) -> list[str]:
    """Copy the photographs of installed packages to a folder, and print which packages are missing.

    Raises ValueError when there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, missing = find_photographs()
    for name, source in found.items():
        (folder / name).write_bytes(source.read_bytes())
    if missing:
        print(f"the photographs of {' and '.join(missing)} are missing: pip install 'limner[demo]'", file=sys.stderr)
    if not found:
        raise ValueError("there is no photograph to caption: name some, or pip install 'limner[demo]'")
    return [str(folder / name) for name in found]


def make_videos(images: Sequence[str], folder: Path) -> list[str]:
    """Write a video of the images, if there are any, and one of the micro-world."""
    from limner.data.shapes import generate_world
    from limner.explanations.video import write_mp4

    folder.mkdir(parents=True, exist_ok=True)
    videos = []
    if frames := slide_show(images[:MOST]):
        videos.append(str(write_mp4(folder / "photographs.mp4", frames, FPS)))
    generate_world(folder / "shapes", images=0, videos=1, seed=1, size=128)
    return [*videos, str(folder / "shapes" / "videos" / "000000.mp4")]
