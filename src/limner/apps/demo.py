"""Caption real photographs with limner's own model, show them on a page, and explain one: limner demo [PICTURES]

The photographs come from installed packages: matplotlib's sample photo and scikit-image's, which the extra `demo`
brings.  With them go a clip put together from them, and one of the micro-world.  Needs no data and no network.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from limner.apps.shared.arguments import no_more, positive
from limner.apps.shared.journal import Row, finished_rows, printable
from limner.inference.load import is_transformers

# name -> package and file in it.  The pictures stay where the packages' licences put them: nothing of them is in limner
PHOTOGRAPHS = {
    "officer.jpg": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut.png": ("skimage", "data/astronaut.png"),
    "cat.png": ("skimage", "data/chelsea.png"),
    "coffee.png": ("skimage", "data/coffee.png"),
    "motorcycle.png": ("skimage", "data/motorcycle_left.png"),
    "photographer.png": ("skimage", "data/camera.png"),
    "rocket.jpg": ("skimage", "data/rocket.jpg"),
}
EXPLAINED = "photographer.png"
SIDE = (320, 240)  # of the clip: width and height in pixels
PACE, SECONDS, SHOWN = 12, 2, 6  # frames a second; each picture is shown so long; at most so many pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="*", help="pictures, clips or folders instead of the packages' photographs")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything the demo makes")
    parser.add_argument("--model", metavar="RUN", help="instead of limner's own")
    parser.add_argument("--beam", type=positive, default=5, metavar="K", help="hypotheses (default: %(default)s)")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    from limner import shipped
    from limner.apps.caption import expand
    from limner.data.media import is_clip

    begin, out = time.monotonic(), options.out
    model = options.model or str(shipped.model())
    given, problems = expand(options.pictures) if options.pictures else (copied(out / "pictures"), [])
    if problems:
        raise ValueError("; ".join(problems))
    pictures = [file for file in given if not is_clip(file)]
    files = [*given, *clips(pictures, out / "clips")]
    report = out / "report.html"
    report.with_name(report.name + ".partial").unlink(missing_ok=True)  # of a demo that was interrupted
    kept = str(min(3, options.beam))
    named = ["--model", options.model] if options.model else []
    search = ["--beam", str(options.beam), "--n-best", kept]
    status = _call("caption", *files, *named, "--shots", *search, "--out", str(report))
    if status not in (0, 3):
        return status
    rows = finished_rows(report)
    for row in rows:
        print(f"  {line_of(row)}")
    told = {row["file"] for row in rows}
    seen = [file for file in pictures or files if printable(file) in told]
    if is_transformers(options.model):
        print(f"{options.model} does not tell where it looks: nothing is explained")
    elif seen:
        chosen = next((file for file in seen if Path(file).name == EXPLAINED), seen[0])
        for made in (out / "explained.png", out / "explained.mp4"):
            status = max(status, _call("explain", model, chosen, "--beam", str(options.beam), "--out", str(made)))
    print(f"look at {report}; all of it took {time.monotonic() - begin:.0f} s")
    return status


def line_of(row: Row) -> str:
    """The name of a file, the time of a shot, and what is said about it."""
    time = f" {row['start']:.1f} \u2013 {row['end']:.1f} s" if "start" in row else ""
    return f"{Path(row['file']).name + time:32} {row['caption']}"


def _call(*arguments: str) -> int:
    """Another command, said as a user would type it."""
    from limner.apps.cli import main

    line = shlex.join(arguments)
    print(f"$ limner {line if len(line) < 200 else f'{line[:120]} ... {line[-60:]}'}", flush=True)
    return main(arguments)


def copied(folder: Path) -> list[str]:
    """The photographs of the packages that are installed, in `folder`; says which are not."""
    folder.mkdir(parents=True, exist_ok=True)
    found, without = [], set()
    for name, (package, file) in PHOTOGRAPHS.items():
        spec = find_spec(package)
        source = Path(spec.origin).parent / file if spec and spec.origin else None
        if source is None or not source.is_file():
            without.add(package)
            continue
        (folder / name).write_bytes(source.read_bytes())
        found.append(str(folder / name))
    if without:
        packages = " and ".join(sorted({"skimage": "scikit-image"}.get(name, name) for name in without))
        print(f"photographs of {packages} are not here: pip install 'limner[demo]' brings them", file=sys.stderr)
    if not found:
        raise ValueError("there is no photograph to caption: name some, or pip install 'limner[demo]'")
    return found


def clips(pictures: Sequence[str], folder: Path) -> list[str]:
    """A clip that moves over the pictures one after the other, where there are any, and one of the micro-world."""
    from limner.data.shapes import generate_world
    from limner.explanations.video import write_mp4

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    if frames := moving(pictures[:SHOWN]):
        made.append(str(write_mp4(folder / "photographs.mp4", frames, PACE)))
    generate_world(folder / "shapes", images=0, videos=1, seed=1, size=128)
    return [*made, str(folder / "shapes" / "videos" / "000000.mp4")]


def moving(pictures: Sequence[str]) -> list[np.ndarray]:
    """`SECONDS` of each picture, drawing nearer; those that cannot be read are left out."""
    from limner.data.media import MediaError, read_image

    frames: list[np.ndarray] = []
    for file in pictures:
        try:
            frames += nearer(read_image(file)[0])
        except MediaError:
            continue  # captioning says it
    return frames


def nearer(picture: np.ndarray) -> Iterator[np.ndarray]:
    """Frames (H,W,3) uint8 of a picture's middle, from as much of it as fits to four fifths of that."""
    from PIL import Image, ImageOps

    image = Image.fromarray(picture)
    for border in np.linspace(0, 0.1, PACE * SECONDS).tolist():  # on each side
        yield np.asarray(ImageOps.fit(image, SIDE, Image.Resampling.BILINEAR, border))
