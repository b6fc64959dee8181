"""METEOR against the jar on real captions: equal counts and scores on five kinds of segments, and the time of both.

    OMP_NUM_THREADS=1 python benchmarks/meteor.py --rounds 3

The jar is a black box, asked over the protocol that pycocoevalcap uses; all lines are written at once, so that it never
waits.  The kinds:

- human: one human's caption against the others', of COCO val2014, Flickr8k, MSR-VTT and MSVD; of COCO raw text too
- shuffled: the captions of other images, and captions with their words shuffled
- degenerate: "a a a", one word repeated, the first words repeated, words drawn at random
- long: texts of 3 to 12 captions
- model: captions of a trained model (results/)

COCO's captions are read from the jar of SPICE in an installed pycocoevalcap; the other sets lie beside the project, in
LIMNER_SHARED.  Text is tokenised by `simple`: both sides get the same lines.

Speed: MSR-VTT's captions, 20 references each, without start-up; the jar's time is its second pass over them.  Then a
new process scores 5,000 images x 5 references: cold, with numba's code and the tables on disk, and warm, other captions
for the same references.
"""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from limner.data.captions_file import read_captions
from limner.metrics.meteor import meteor_lines
from limner.metrics.meteor.evaluation import MeteorReferences
from limner.metrics.meteor.tables import find_pycocoevalcap, load_tables
from limner.text.tokens import get_tokenizer
from paired import arguments

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("LIMNER_SHARED", ROOT.parent / "shared")) / "data"
MODELS = ("results/flickr8k_show_attend_tell/captions.json", "results/flickr8k_show_attend_tell/greedy/captions.json")
SCORE, EVAL, BETWEEN = "SCORE", "EVAL", " ||| "

Segment = tuple[str, list[str]]
Captions = dict[str, tuple[str, ...]]


class Jar:
    """A running METEOR."""

    def __init__(self, package: Path) -> None:
        command = ["java", "-Duser.country=US", "-Xmx2G", "-jar", "meteor-1.5.jar"]
        self.process = subprocess.Popen(
            [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=package / "meteor",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> "Jar":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def counts(self, segments: Sequence[Segment]) -> list[str]:
        """The counts of each segment, as the jar prints them."""
        return self._ask(
            [BETWEEN.join([SCORE, *references, caption]) for caption, references in segments], len(segments)
        )

    def scores(self, counts: Sequence[str]) -> list[float]:
        """The score of each segment, and last the corpus'."""
        return [float(line) for line in self._ask([BETWEEN.join([EVAL, *counts])], len(counts) + 1)]

    def _ask(self, lines: Sequence[str], answers: int) -> list[str]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None

        def write() -> None:
            stdin.writelines(f"{line}\n" for line in lines)
            stdin.flush()

        writer = threading.Thread(target=write)
        writer.start()
        found = [stdout.readline().rstrip("\n") for _ in range(answers)]
        writer.join()
        return found


def tokenised(captions: Captions) -> Captions:
    lines = iter(get_tokenizer("simple")([text for texts in captions.values() for text in texts]))
    return {id: tuple(next(lines) for _ in texts) for id, texts in captions.items()}


def coco(package: Path) -> Captions:
    jar = package / "spice" / "spice-1.0.jar"
    with zipfile.ZipFile(jar) as archive, archive.open("coco/annotations/captions_val2014.json") as file:
        annotations = json.load(file)["annotations"]
    captions: dict[str, list[str]] = {}
    for annotation in annotations:
        captions.setdefault(str(annotation["image_id"]), []).append(annotation["caption"].replace("\n", " "))
    return {id: tuple(texts) for id, texts in captions.items()}


def first_against_others(captions: Captions) -> list[Segment]:
    return [(texts[0], list(texts[1:])) for texts in captions.values() if len(texts) > 1]


def degenerate(segments: Sequence[Segment], rng: random.Random) -> list[Segment]:
    found = []
    for i, (caption, references) in enumerate(segments):
        words = caption.split() or ["a"]
        made = (
            ["a"] * 3,
            ["a"] * rng.randint(1, 40),
            [rng.choice(words)] * 20,
            words[: rng.randint(1, 4)] * 8,
            rng.choices(words, k=rng.randint(5, 30)),
        )
        found.append((" ".join(made[i % len(made)]), references))
    return found


def long(captions: Captions, count: int, rng: random.Random) -> list[Segment]:
    sets = [texts for texts in captions.values() if len(texts) >= 3]
    found = []
    for i in range(count):
        chosen = [sets[(i + k) % len(sets)] for k in range(rng.choice((3, 4, 5, 6, 8, 12)))]
        caption = " ".join(texts[0] for texts in chosen)
        rng.shuffle(chosen)
        found.append((caption, [" ".join(texts[k] for texts in chosen) for k in (1, 2)]))
    return found


def kinds(package: Path) -> dict[str, list[Segment]]:
    """The segments of every kind and source that is here."""
    rng = random.Random(1)
    raw = coco(package)
    known = tokenised(raw)
    segments = first_against_others(known)
    found = {
        "human, COCO": segments[:8000],
        "human, COCO raw": first_against_others(raw)[8000:12000],
        "shuffled images, COCO": [(segments[i + 1][0], segments[i][1]) for i in range(6000)],
        "shuffled words, COCO": [(" ".join(rng.sample(w, len(w))), r) for w, r in words(segments[6000:10000])],
        "degenerate, COCO": degenerate(segments[:6000], rng),
        "long, COCO": long(known, 1500, rng),
    }
    for name, path in {
        "Flickr8k": SHARED / "flickr8k" / "dataset_flickr8k.json",
        "MSR-VTT": SHARED / "msrvtt" / "test_videodatainfo.json.zip",
        "MSVD": SHARED / "msvd" / "sents_train_lc_nopunc.txt",
    }.items():
        if not path.exists():
            print(f"{name}: left out, there is no {path}")
            continue
        captions = tokenised(read_captions(path).captions)
        found[f"human, {name}"] = first_against_others(captions)
        if name == "Flickr8k":
            by_stem = {Path(id).stem: list(texts) for id, texts in captions.items()}
            made = [(id, text) for model in MODELS for id, (text,) in read_captions(ROOT / model).captions.items()]
            found["model, Flickr8k"] = [(text, by_stem[id]) for id, text in made]
    return found


def words(segments: Sequence[Segment]) -> list[tuple[list[str], list[str]]]:
    return [(caption.split(), references) for caption, references in segments]


def check(jar: Jar, sets: dict[str, list[Segment]]) -> bool:
    """Print the differences of every kind; whether there are none."""
    tables = load_tables()
    print(f"{'kind':<24}{'segments':>9}{'pairs':>9}{'counts differ':>15}{'max difference':>16}{'of the corpus':>15}")
    wrong = total = pairs = 0
    for name, segments in sets.items():
        lines = jar.counts(segments)
        expected = np.array(jar.scores(lines))
        captions, references = [caption for caption, _ in segments], [texts for _, texts in segments]
        counts = MeteorReferences(references, tables).count(captions)
        differ = int((counts != np.array([line.split() for line in lines], dtype=float)).any(1).sum())
        score = meteor_lines(captions, references)
        gap, corpus = np.abs(score.segments - expected[:-1]).max(), abs(score.corpus - expected[-1])
        size = sum(map(len, references))
        print(f"{name:<24}{len(segments):>9,}{size:>9,}{differ:>15}{gap:>16.1e}{corpus:>15.1e}", flush=True)
        wrong, total, pairs = wrong + differ + (gap > 1e-9) + (corpus > 1e-9), total + len(segments), pairs + size
    print(f"{'all':<24}{total:>9,}{pairs:>9,}")
    return not wrong


def aligner(jar: Jar, segments: list[Segment], rounds: int) -> None:
    """Both sides take turns; neither pays for its start."""
    captions, references = [caption for caption, _ in segments], [texts for _, texts in segments]
    known = MeteorReferences(references, load_tables())
    seconds: dict[str, list[float]] = {"jar": [], "limner, all": [], "limner, references known": []}
    jar.counts(segments)
    known.count(captions)
    for _ in range(rounds):
        for name, run in (
            ("jar", lambda: jar.counts(segments)),
            ("limner, all", lambda: MeteorReferences(references, load_tables()).count(captions)),
            ("limner, references known", lambda: known.count(captions)),
        ):
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    pairs = sum(map(len, references))
    for name, times in seconds.items():
        ratio = median(a / b for a, b in zip(seconds["jar"], times, strict=True))
        print(f"{name:<28}{median(times):7.3f} s  {pairs / median(times):10,.0f} pairs/s   {ratio:5.1f}x the jar")


def timed(references: list[list[str]], first: list[str], second: list[str]) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of opening the tables, of a first evaluation (that, numba and the references included), of a
    second."""

    def since(begin: tuple[float, float]) -> tuple[float, float]:
        return time.perf_counter() - begin[0], time.process_time() - begin[1]

    begin = since((0, 0))
    tables = load_tables()
    seconds = {"tables": since(begin)}
    known = MeteorReferences(references, tables)
    known.count(first)
    seconds["cold"] = since(begin)
    begin = since((0, 0))
    known.count(second)
    return seconds | {"warm": since(begin)}


def main() -> int:
    rounds = arguments(__doc__, rounds=3).rounds
    package = find_pycocoevalcap()
    if package is None:
        raise SystemExit("this needs pycocoevalcap: pip install 'limner[meteor]'")
    sets = kinds(package)
    with Jar(package) as jar:
        equal = check(jar, sets)
        if "human, MSR-VTT" in sets:
            print("\nthe aligner alone, MSR-VTT test, wall time, median of rounds")
            aligner(jar, sets["human, MSR-VTT"], rounds)
    texts = [texts[:5] for texts in tokenised(coco(package)).values() if len(texts) >= 5]
    first, second = [texts[i][0] for i in range(5000, 10000)], [texts[i][0] for i in range(10000, 15000)]
    print("\n5,000 images x 5 references, new processes")
    for _ in range(rounds):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds = pool.apply(timed, ([list(refs) for refs in texts[:5000]], first, second))
        print(", ".join(f"{name} {wall:.3f} s (CPU {cpu:.3f} s)" for name, (wall, cpu) in seconds.items()), flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
