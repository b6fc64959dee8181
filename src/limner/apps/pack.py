"""`limner pack`: pack a run into a model that can be passed on."""

import argparse

from limner.apps.shared.arguments import WrongArguments, refuse_unknown
from limner.runs.package import pack, push_to_hub
from limner.runs.resolve import open_package, resolve_model
from limner.runs.run import load_run


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    if options.verify:
        print(f"{open_package(options.run)}: every file is as it was packed")
        return 0
    folder = resolve_model(options.run)
    if options.out:
        card = options.card.read_text(encoding="utf-8") if options.card else ""
        folder = pack(load_run(folder, options.encoder), options.out, card, options.half)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"wrote {folder}: {size / 1e6:.1f} MB")
    elif not options.push:
        raise WrongArguments("where should the model go? give --out DIR (or --verify, --push)")
    if options.push:
        print(push_to_hub(folder, options.push, options.private))
    return 0
