"""Turn an old checkpoint into a run folder: limner convert --from SYSTEM CHECKPOINT --word-map MAP.json --out RUN

Or regions of others' detectors into a feature store: limner convert --from bottom-up FILE.tsv --out STORE, or
limner convert --from regions FOLDER --boxes FOLDER --sizes SIZES.json --out STORE

Nothing stored in a checkpoint is executed.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments, no_more, report_problems

REGIONS = ("bottom-up", "regions")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="state dict, or a checkpoint that holds it; TSV, ZIP or folder of regions")
    parser.add_argument(
        "--from",
        dest="system",
        required=True,
        help="the system it comes from, such as show-attend-tell or sa-lstm; an unknown name lists all",
    )
    parser.add_argument(
        "--word-map", default="", help="JSON file {word: id}; infos pickle of self-critical and its kin"
    )
    parser.add_argument(
        "--boxes", help="regions: folder of ID.npy with the boxes, when they are not beside the features"
    )
    parser.add_argument("--sizes", help="regions: JSON {id: [width, height]}, when boxes are in pixels")
    parser.add_argument(
        "--encoder", default="", help="transformers backbone, when the checkpoint holds the decoder alone"
    )
    parser.add_argument(
        "--channels", choices=("RGB", "BGR"), default="RGB", help="channel order the encoder was trained with"
    )
    parser.add_argument("--out", required=True, help="run folder, or feature store, to write")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    if options.system in REGIONS:
        return _regions(options)
    from limner.convert import SYSTEMS

    if options.system not in SYSTEMS:
        raise WrongArguments(f"unknown system '{options.system}'; known are {', '.join((*SYSTEMS, *REGIONS))}")
    if not options.word_map:
        raise WrongArguments("a checkpoint does not hold its words: give --word-map")
    summary = SYSTEMS[options.system](
        Path(options.checkpoint), Path(options.word_map), Path(options.out), options.encoder, options.channels
    )
    print(summary)
    return 0


def _regions(options: argparse.Namespace) -> int:
    from limner.data.regions import read_region_folder, read_region_tsv, store_regions

    source, (boxes, sizes) = Path(options.checkpoint), (path and Path(path) for path in (options.boxes, options.sizes))
    if options.system == "bottom-up" and (boxes or sizes):
        raise WrongArguments("a TSV tells its boxes and sizes: leave out --boxes and --sizes")
    found = read_region_tsv([source]) if options.system == "bottom-up" else read_region_folder(source, boxes, sizes)
    report = store_regions(found, Path(options.out))
    print(f"{options.out}: {report}")
    report_problems([f"{id}: {reason}" for id, reason in report.failures])
    return 3 if report.failures else 0
