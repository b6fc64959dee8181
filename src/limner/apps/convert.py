"""Turn an old checkpoint into a run folder: limner convert --from SYSTEM CHECKPOINT --word-map MAP.json --out RUN

Nothing stored in a checkpoint is executed.
"""

import argparse
from pathlib import Path

from limner.apps.arguments import no_more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="state dict, or a checkpoint that holds it")
    parser.add_argument(
        "--from",
        dest="system",
        required=True,
        help="the system it comes from, such as show-attend-tell or sa-lstm; an unknown name lists all",
    )
    parser.add_argument("--word-map", required=True, help="JSON file {word: id}")
    parser.add_argument(
        "--encoder", default="", help="transformers backbone, when the checkpoint holds the decoder alone"
    )
    parser.add_argument(
        "--channels", choices=("RGB", "BGR"), default="RGB", help="channel order the encoder was trained with"
    )
    parser.add_argument("--out", required=True, help="run folder to write")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    from limner.convert import SYSTEMS

    if options.system not in SYSTEMS:
        raise ValueError(f"unknown system '{options.system}'; known are {', '.join(SYSTEMS)}")
    summary = SYSTEMS[options.system](
        Path(options.checkpoint), Path(options.word_map), Path(options.out), options.encoder, options.channels
    )
    print(summary)
    return 0
