"""Pack a run into a model that can be passed on.

    limner pack RUN --out model.limner

The folder holds weights (safetensors), JSON, a model card and a hash of every file.  Commands take it in place of a
run.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments, refuse_unknown
from limner.runs.package import open_package, pack, push_to_hub
from limner.runs.run import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder; with --verify or --push a packed model")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write, for example model.limner")
    parser.add_argument("--card", type=Path, metavar="FILE", help="model card (Markdown) to put in")
    parser.add_argument("--half", action="store_true", help="weights as float16: half the size")
    parser.add_argument("--verify", action="store_true", help="only check every file of a packed model")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the packed model to the hub")
    parser.add_argument("--private", action="store_true", help="with --push: a new repository is private")
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the run's pretrained encoder is now")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    if options.verify:
        print(f"{open_package(options.run)}: every file is as it was packed")
        return 0
    folder = Path(options.run)
    if options.out:
        card = options.card.read_text(encoding="utf-8") if options.card else ""
        folder = pack(load_run(options.run, options.encoder), options.out, card, options.half)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"wrote {folder}: {size / 1e6:.1f} MB")
    elif not options.push:
        raise WrongArguments("where should the model go? give --out DIR (or --verify, --push)")
    if options.push:
        print(push_to_hub(folder, options.push, options.private))
    return 0
