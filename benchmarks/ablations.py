"""One recipe, some of its values changed, several seeds each: the best validation score of every run, as a table.

    OMP_NUM_THREADS=1 python benchmarks/ablations.py recipes/flickr8k_spatial.yaml runs/ablations \\
        --common stages='[...]' --seeds 1 2 3 \\
        --variant "gxg" --variant "none: model.positions=none" --variant "X-linear: model.cross_attention=xlinear"

`{seed}` in a value becomes the seed (`start=runs/student_{seed}`). Runs that are there already are not trained
again, and an interrupted one goes on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from limner.runs.recipe_file import load_recipe
from limner.training.train import train


def override(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"expected field=value, got {text!r}")
    return name.strip(), value


def curve(run: Path) -> list[dict[str, float]]:
    """The validations of a run, in order."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "split" in row]


def best(run: Path) -> dict[str, float]:
    return max(curve(run), key=lambda row: row["CIDEr"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("--common", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--variant", action="append", required=True, metavar="NAME: FIELD=VALUE FIELD=VALUE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--columns", nargs="+", default=["BLEU-4", "distinct", "seconds"], help="means of more facts")
    options = parser.parse_args(arguments)
    print(f"| variant | CIDEr, mean | of each seed | {' | '.join(options.columns)} |")
    print("|---" * (3 + len(options.columns)) + "|")
    for text in options.variant:
        name, _, changes = text.partition(":")
        found = []
        for seed in options.seeds:
            run = options.out / f"{'_'.join(name.split())}_{seed}"
            asked = [one.replace("{seed}", str(seed)) for one in (*options.common, *changes.split(), "seed={seed}")]
            recipe = load_recipe(options.recipe, [override(one) for one in asked])
            if not (run / "done").is_file():
                train(recipe, run, resume=(run / "last.safetensors").is_file())
                (run / "last.safetensors").unlink()
                (run / "done").touch()
            found.append(best(run))
        scores = [row["CIDEr"] for row in found]
        more = " | ".join(f"{mean(row[key] for row in found):.3g}" for key in options.columns)
        print(f"| {name} | {mean(scores):.3f} | {', '.join(f'{score:.3f}' for score in scores)} | {more} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
