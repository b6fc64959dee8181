"""A captioner of one's own from 500 pictures, as a newcomer makes it: init, train, evaluate, on one core.

    python benchmarks/own_data.py --out work/own_data

The pictures are Flickr8k's: 400 of its validation split and 100 of its test split, which the model inside limner was
not trained on.  Two words of their captions are renamed, so that the model has to learn new words: it has to say them
where they belong.  Prints the seconds of each command, the scores on the 100 test pictures, and for each new word its
precision (pictures for which it is said and at least one of five captions has it / pictures for which it is said) and
its recall (said / pictures in whose captions it stands at least three times out of five).
"""

import argparse
import csv
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

DATA = Path(os.environ.get("LIMNER_DATA", "../shared/data")) / "flickr8k"
MAJORITY = 3  # of five captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--rename", nargs="*", default=["dog=qubitron", "man=velquin"], metavar="WORD=NEW")
    parser.add_argument("--train", type=int, default=400, help="pictures for training, a tenth of them for validation")
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pictures")
    parser.add_argument("--core", type=int, default=None, help="run on this core (default: any single one)")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core if options.core is not None else min(os.sched_getaffinity(0))})
    renamed = dict(pair.split("=") for pair in options.rename)
    references = write_table(options, renamed)
    seconds = {}
    for command in (
        "init photos.csv --out recipe.yaml --overwrite",
        "train recipe.yaml",
        "evaluate runs/recipe --split test",
    ):
        start = time.monotonic()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-m", "limner", *command.split()], cwd=options.out, check=True, env=environment)
        seconds[command] = time.monotonic() - start
    report(options.out / "runs" / "recipe", references, renamed, seconds)


def write_table(options: argparse.Namespace, renamed: dict[str, str]) -> dict[str, list[str]]:
    """Write photos.csv and link the pictures -> the captions of the test pictures, by file name."""
    saved = json.loads((DATA / "dataset_flickr8k.json").read_text(encoding="utf-8"))
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, renamed))})\b", re.IGNORECASE)
    draw = random.Random(options.seed)
    by_split: dict[str, list[dict[str, object]]] = {"val": [], "test": []}
    for image in sorted(saved["images"], key=lambda image: image["filename"]):
        by_split.setdefault(image["split"], []).append(image)
    chosen = {"train": draw.sample(by_split["val"], options.train), "test": draw.sample(by_split["test"], options.test)}
    shutil.rmtree(options.out / "runs", ignore_errors=True)
    (options.out / "photos").mkdir(parents=True, exist_ok=True)
    references: dict[str, list[str]] = {}
    with open(options.out / "photos.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption", "split"])
        for split, images in chosen.items():
            for image in images:
                name = image["filename"]
                shutil.copyfile(DATA / "images" / name, options.out / "photos" / name)
                texts = [pattern.sub(lambda m: renamed[m[1].lower()], each["raw"]) for each in image["sentences"]]
                table.writerows([name, text, split] for text in texts)
                if split == "test":
                    references[name] = texts
    return references


def report(run: Path, references: dict[str, list[str]], renamed: dict[str, str], seconds: dict[str, float]) -> None:
    """Print seconds, scores, and precision and recall of the new words."""
    for command, passed in seconds.items():
        print(f"limner {command}: {passed:.0f} s")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"together {sum(seconds.values()):.0f} s, CPU {used.ru_utime + used.ru_stime:.0f} s")
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))["scores"]
    print("  ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    captions = {each["image_id"]: each["caption"].split() for each in json.loads((run / "captions.json").read_text())}
    for old, new in renamed.items():
        counts = {name: sum(new in text.lower().split() for text in texts) for name, texts in references.items()}
        said = {name for name, words in captions.items() if new in words}
        right = sum(counts[name] > 0 for name in said)
        due = {name for name, count in counts.items() if count >= MAJORITY}
        print(f"{new} ({old}): precision {right}/{len(said)}, recall {len(said & due)}/{len(due)}")


if __name__ == "__main__":
    main()
