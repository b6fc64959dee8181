"""Make a run a model that captions without PyTorch: limner export RUN --format onnx

The folder (by default RUN.onnx) holds an encoder and a decoding step as ONNX graphs, the words, and model.json.  It is
written only when its captions are those of PyTorch on at least 99 % of the media of --check (without it: of pictures
that are drawn).  --int8 makes it a quarter as large, for somewhat other captions; how many is said.  Then:
limner caption photo.jpg --model RUN.onnx --engine onnx
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from limner.apps.shared.arguments import no_more, positive

if TYPE_CHECKING:
    from limner.export.check import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, or a packed model")
    parser.add_argument("--format", choices=["onnx"], default="onnx")
    parser.add_argument("--int8", action="store_true", help="weights of one byte")
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN.onnx)")
    parser.add_argument("--check", metavar="FOLDER", help="pictures or clips on which captions are compared")
    parser.add_argument("--limit", type=positive, default=500, metavar="N", help="so many of them (default: 500)")
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the run's pretrained encoder lies now")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    from limner.export.check import media_of
    from limner.export.exporter import export_onnx
    from limner.runs.package import resolve_model
    from limner.runs.run import load_run

    media = media_of(options.check, options.limit) if options.check else ()
    loaded = load_run(resolve_model(options.run), options.encoder)
    out = options.out or Path(f"{str(options.run).rstrip('/')}.onnx")
    made = export_onnx(loaded, out, options.int8, media)
    print(told("float32", made.floats))
    if made.int8:
        print(told("int8", made.int8))
        for theirs, ours in made.int8.examples:
            print(f"    '{theirs}' became '{ours}'")
    for reason in made.floats.unread:
        print(f"not compared: {reason}", file=sys.stderr)
    for name, size in made.bytes.items():
        share = f", {size / made.float_bytes[name]:.0%} of the float file" if made.int8 and name != WORDS else ""
        print(f"{name}: {size / 1e6:.1f} MB{share}")
    only = [name for name, able in (("pictures", made.pictures), ("clips", made.clips)) if able]
    print(f"wrote {made.folder}, for {' and '.join(only)}: limner caption FILE --model {made.folder} --engine onnx")
    return 0


WORDS = "vocabulary.json"


def told(name: str, found: "Comparison") -> str:
    same = f"{name}: {found.identical} of {found.media} captions are PyTorch's ({found.share:.1%})"
    if found.identical == found.media:
        return same
    return f"{same}; mean log-probability {found.logprob - found.regret:.3f} against {found.logprob:.3f}"
