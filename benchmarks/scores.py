"""Scores of 5,000 images x 5 references, from caption strings: limner against pycocoevalcap; wall and CPU time.

    OMP_NUM_THREADS=1 python benchmarks/scores.py --rounds 3

The captions are COCO val2014's, read from the jar in an installed pycocoevalcap.  References: five of each of the first
5,000 images.  Hypotheses: for each image the caption, of another 5,000 images' first ones, that is nearest to its
references (cosine of idf-weighted words), as a retrieval captioner would choose; round t takes the t-th nearest, so
that no round finds the sentences of an earlier one in a cache.

- pycocoevalcap: PTB tokenizer (twice), BLEU, METEOR, ROUGE-L and CIDEr, a Java process started for each that is Java's.
- cold: `References`, `candidates` and the metrics, in this process, in which they ran before (METEOR's tables are
  converted and open, numba has compiled).
- new process: the same, the first thing a fresh process does after its imports.
- warm: `candidates` and the metrics on a `References` that has been used, as at each validation of a training.

Every variant's scores are checked against pycocoevalcap's first, each corpus value and each image's.
"""

import contextlib
import io
import json
import multiprocessing
import os
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limner.metrics.bleu import bleu
from limner.metrics.cider import cider
from limner.metrics.meteor import meteor
from limner.metrics.references import Candidates, References, Score
from limner.metrics.rouge import rouge_l
from limner.text.tokens import TOKENIZERS, simple
from paired import arguments, report, take_turns

IMAGES, COUNT = 5_000, 5
BARS = {"cold": 5.0, "warm": 12.0}
BAR_WITHOUT_METEOR = 6.0

Texts = dict[str, list[str]]
Scores = dict[str, Score]


def coco_captions(split: str = "val2014") -> Texts:
    """COCO's captions by image id, in the order of the file."""
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("this needs pycocoevalcap: pip install 'limner[meteor]'")
    jar = Path(package.submodule_search_locations[0]) / "spice" / "spice-1.0.jar"
    with zipfile.ZipFile(jar) as archive, archive.open(f"coco/annotations/captions_{split}.json") as file:
        annotations = json.load(file)["annotations"]
    captions: Texts = {}
    for annotation in annotations:
        captions.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    return captions


def retrieved(references: Texts, pool: list[str], count: int) -> list[dict[str, str]]:
    """Per image the `count` captions of the pool that are nearest to its references, nearest first."""
    bags = [Counter(word for text in texts for word in set(simple(text))) for texts in references.values()]
    df = Counter(word for bag in bags for word in bag)
    column = {word: i for i, word in enumerate(word for word in df if df[word] >= 5)}

    def vectors(bags: list[Counter[str]]) -> torch.Tensor:
        matrix = torch.zeros(len(bags), len(column))
        for row, bag in zip(matrix, bags, strict=True):
            for word in bag.keys() & column.keys():
                row[column[word]] = bag[word] * log(len(references) / df[word])
        return torch.nn.functional.normalize(matrix)

    near = (vectors(bags) @ vectors([Counter(simple(text)) for text in pool]).T).topk(count).indices.tolist()
    return [{id: pool[row[k]] for id, row in zip(references, near, strict=True)} for k in range(count)]


def metrics(with_meteor: bool) -> dict[str, Callable[[Candidates, References], Score]]:
    found: dict[str, Callable[[Candidates, References], Score]] = {
        f"BLEU-{n}": partial(bleu, order=n) for n in range(1, 5)
    }
    return {**found, **({"METEOR": meteor} if with_meteor else {}), "ROUGE-L": rouge_l, "CIDEr": cider}


def score(captions: dict[str, str], references: References, with_meteor: bool) -> Scores:
    candidates = references.candidates(captions)
    return {name: metric(candidates, references) for name, metric in metrics(with_meteor).items()}


def cold(captions: dict[str, str], references: Texts, with_meteor: bool) -> Scores:
    return score(captions, References(references, "ptb"), with_meteor)


def timed_cold(captions: dict[str, str], references: Texts, with_meteor: bool) -> float:
    """Seconds of `cold`; runs in a process of its own, whose imports are over."""
    begin = time.perf_counter()
    cold(captions, references, with_meteor)
    return time.perf_counter() - begin


def in_new_process(*task: Any) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(timed_cold, task))


def coco(captions: dict[str, str], references: Texts, with_meteor: bool) -> Scores:
    """The same by pycocoevalcap; never two Java processes at once."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with contextlib.redirect_stdout(io.StringIO()):
        gts = PTBTokenizer().tokenize({id: [{"caption": text} for text in texts] for id, texts in references.items()})
        res = PTBTokenizer().tokenize({id: [{"caption": captions[id]}] for id in references})
        whole, parts = Bleu(4).compute_score(gts, res, verbose=0)
        found = {f"BLEU-{n + 1}": Score(whole[n], np.array(parts[n])) for n in range(4)}
        if with_meteor:
            java = Meteor()
            value, segments = java.compute_score(gts, res)
            found["METEOR"] = Score(value, np.array(segments))
            del java  # and its process
        for name, scorer in (("ROUGE-L", Rouge()), ("CIDEr", Cider())):
            value, segments = scorer.compute_score(gts, res)
            found[name] = Score(float(value), np.array(segments))
    return found


def cpu_time() -> float:
    """Of this process and of the children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def unequal(found: Scores, expected: Scores) -> bool:
    """Print the largest differences; whether any is above 1e-9."""
    gaps = {
        name: (abs(found[name].corpus - score.corpus), float(np.abs(found[name].segments - score.segments).max()))
        for name, score in expected.items()
    }
    for name, (whole, parts) in gaps.items():
        print(f"  {name:<8} {expected[name].corpus:.6f}   difference {whole:.1e}, of an image at most {parts:.1e}")
    return any(gap > 1e-9 for pair in gaps.values() for gap in pair)


def compare(references: Texts, hypotheses: list[dict[str, str]], with_meteor: bool, rounds: int) -> bool:
    """Check, time and print; whether the scores are equal."""
    kept = References(references, "ptb")
    print("with METEOR" if with_meteor else "without METEOR")
    expected = coco(hypotheses[0], references, with_meteor)
    for run in (partial(cold, references=references), partial(score, references=kept)):
        if unequal(run(hypotheses[0], with_meteor=with_meteor), expected):
            return False

    used: dict[str, list[float]] = {}

    def each(name: str, run: Callable[[dict[str, str]], Any]) -> Callable[[], None]:
        """`run` on the next set of hypotheses; also notes its CPU time."""
        sets, used[name] = cycle(hypotheses[1:]), []

        def turn() -> None:
            begin = cpu_time()
            run(next(sets))
            used[name].append(cpu_time() - begin)

        return turn

    variants = {
        "pycocoevalcap": each("pycocoevalcap", partial(coco, references=references, with_meteor=with_meteor)),
        "cold": each("cold", partial(cold, references=references, with_meteor=with_meteor)),
        "warm": each("warm", partial(score, references=kept, with_meteor=with_meteor)),
    }
    seconds = take_turns(variants, rounds, time.perf_counter)
    seconds["new process"] = [in_new_process(each, references, with_meteor) for each in hypotheses[1 : rounds + 1]]
    bars = BARS if with_meteor else {"cold": BAR_WITHOUT_METEOR}
    for times, measured in ((seconds, "wall time"), (used, "CPU time, child processes included")):
        for name in [name for name in times if name != "pycocoevalcap"]:
            pair = {f"limner, {name}": times[name], "pycocoevalcap": times["pycocoevalcap"]}
            bar = {"pycocoevalcap": bars[name]} if name in bars else {}
            report(pair, bar, measured, paired_with="pycocoevalcap itself, all images in one call")
    return True


def main() -> int:
    rounds = arguments(__doc__, rounds=3).rounds
    if "ptb" not in TOKENIZERS:
        raise SystemExit("limner has no PTB tokenizer yet")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}: on a busy machine CPU time says more")
    captions = coco_captions()
    ids = list(captions)
    references = {id: captions[id][:COUNT] for id in ids[:IMAGES]}
    hypotheses = retrieved(references, [captions[id][0] for id in ids[IMAGES : 2 * IMAGES]], rounds + 1)
    return 0 if all(compare(references, hypotheses, kind, rounds) for kind in (False, True)) else 1


if __name__ == "__main__":
    sys.exit(main())
