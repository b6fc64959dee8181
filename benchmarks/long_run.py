"""Memory and open files of one process that captions very many images and clips.

    python benchmarks/long_run.py IMAGES CLIPS --samples samples.csv --out docs/experiments/long-run.svg
    python benchmarks/long_run.py --samples samples.csv --out docs/experiments/long-run.svg      draws again

IMAGES and CLIPS are folders; their files are repeated, by hard links where possible, until there are enough.  One
`limner caption` captions them all, while this script reads its memory and its open files from /proc (Linux) and
writes them to a table.
Afterwards the captions of all copies of a file are compared: they must be equal, whatever shared their batch.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from limner.data.media_folder import media_below


class Sample(NamedTuple):
    """A look at the process."""

    seconds: float
    done: int  # captions written so far
    megabytes: float  # resident memory without pages of files, which the system may drop
    files: int  # open


def repeat(source: Path, folder: Path, count: int) -> Path:
    """A folder with `count` copies of the files below `source`, as hard links where possible."""
    files = media_below(source).media
    folder.mkdir()
    for number in range(count):
        path = files[number % len(files)]
        copy = folder / f"{number:06}-{path.name}"
        try:
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)
    return folder


def look(process: int, rows: Path, begin: float) -> Sample:
    """Resident memory, open files and written rows of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    files = len(os.listdir(f"/proc/{process}/fd"))
    done = max(0, rows.read_bytes().count(b"\n") - 1) if rows.exists() else 0  # the first line says what made them
    return Sample(time.monotonic() - begin, done, int(status["RssAnon"].split()[0]) / 1024, files)


def caption(folders: list[Path], out: Path, every: float, table: Path) -> None:
    """Caption everything in one process, and look at it every so many seconds."""
    words = [sys.executable, "-m", "limner", "caption", *map(str, folders), "--out", str(out)]
    begin = time.monotonic()
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with open(table, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Sample._fields)
        while process.poll() is None:
            try:
                rows.writerow(look(process.pid, out.with_name(f"{out.name}.partial"), begin))
            except (OSError, KeyError):  # it has just ended
                break
            file.flush()
            time.sleep(every)
    if process.wait():
        raise SystemExit(f"limner caption ended with {process.returncode}; what was seen so far is in {table}")


def read(table: Path) -> list[Sample]:
    """The looks of a table."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file)][1:]
    return [Sample(float(seconds), int(done), float(size), int(files)) for seconds, done, size, files in rows]


def different_copies(out: Path) -> dict[str, set[str]]:
    """The files whose copies did not all get the same caption -> their captions."""
    captions: dict[str, set[str]] = defaultdict(set)
    with open(out, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            captions[Path(row["file"]).name.partition("-")[2] + row.get("start", "")].add(row["caption"])
    return {name: texts for name, texts in captions.items() if len(texts) > 1}


def draw(samples: list[Sample], images: int, out: Path) -> None:
    """Memory and open files over the number of captions."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "limner"})
    from matplotlib import pyplot

    figure, (memory, files) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 3.6), height_ratios=(2, 1))
    done = [sample.done for sample in samples]
    memory.plot(done, [sample.megabytes for sample in samples], color="tab:blue", linewidth=1)
    memory.set_ylabel("memory (MB)")
    files.plot(done, [sample.files for sample in samples], color="tab:orange", linewidth=1)
    files.set_ylabel("open files")
    files.set_xlabel("captions written by one process")
    for axes in (memory, files):
        axes.set_ylim(bottom=0)
        axes.axvline(images, color="gray", linewidth=0.7, linestyle="--")
        axes.grid(alpha=0.3)
    memory.annotate("clips from here", (images, 0), xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=8)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else {})


def report(samples: list[Sample], images: int) -> None:
    """Memory and open files in ten parts of the run."""
    print(f"{'captions':>15} {'memory, MB':>16} {'open files':>11} {'seconds':>8}")
    warm = [sample for sample in samples if sample.done]
    for part in range(10):
        own = warm[part * len(warm) // 10 : (part + 1) * len(warm) // 10]
        if own:
            memory, files = [each.megabytes for each in own], [each.files for each in own]
            print(
                f"{own[0].done:>7}-{own[-1].done:<7} {min(memory):>7.0f}-{max(memory):<8.0f} "
                f"{min(files):>5}-{max(files):<5} {own[-1].seconds:>8.0f}"
            )
    print(f"{images} images first, then clips")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="of images, and of clips")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two looks")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the links and captions go")
    parser.add_argument("--samples", type=Path, default=Path("samples.csv"), metavar="FILE", help="the table")
    parser.add_argument("--out", type=Path, default=Path("long-run.svg"), help="the figure")
    options = parser.parse_args()
    if len(options.folders) == 2:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            folders = [
                repeat(options.folders[0], Path(work) / "1-images", options.images),
                repeat(options.folders[1], Path(work) / "2-clips", options.clips),
            ]
            out = Path(work) / "captions.csv"
            caption(folders, out, options.every, options.samples)
            different = different_copies(out)
        print(f"{len(different)} files whose copies differ in their caption")
        for name, texts in sorted(different.items())[:20]:
            print(f"  {name}: {' | '.join(sorted(texts))}")
    samples = read(options.samples)
    report(samples, options.images)
    draw(samples, options.images, options.out)


if __name__ == "__main__":
    main()
