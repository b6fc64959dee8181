"""Convert a checkpoint of another captioner into a run folder, or a detector's regions into a feature store.

    limner convert --from SYSTEM CHECKPOINT --word-map MAP.json --out RUN
    limner convert --from bottom-up FILE.tsv --out STORE
    limner convert --from regions DIR --boxes DIR --sizes SIZES.json --out STORE

Code inside a checkpoint is never executed.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments, refuse_unknown, report_unreadable

REGIONS = ("bottom-up", "regions")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint; or the TSV, ZIP or folder of regions")
    parser.add_argument(
        "--from",
        dest="system",
        required=True,
        metavar="SYSTEM",
        help="for example show-attend-tell or sa-lstm; an unknown name lists all",
    )
    parser.add_argument(
        "--word-map", default="", metavar="FILE", help="JSON {word: id}, or self-critical's infos pickle"
    )
    parser.add_argument("--boxes", metavar="DIR", help="regions: ID.npy with boxes, if not beside the features")
    parser.add_argument("--sizes", metavar="FILE", help="regions: JSON {id: [width, height]}, for boxes in pixels")
    parser.add_argument("--encoder", default="", metavar="PATH", help="transformers backbone, for a decoder alone")
    parser.add_argument("--channels", choices=("RGB", "BGR"), default="RGB", help="channel order of the encoder")
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder or feature store to write")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    if options.system in REGIONS:
        return _convert_regions(options)
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


def _convert_regions(options: argparse.Namespace) -> int:
    """Store the regions of a detector."""
    from limner.data.regions import read_region_folder, read_region_tsv, store_regions

    source, (boxes, sizes) = Path(options.checkpoint), (path and Path(path) for path in (options.boxes, options.sizes))
    if options.system == "bottom-up" and (boxes or sizes):
        raise WrongArguments("a TSV has boxes and sizes inside: leave out --boxes and --sizes")
    regions = read_region_tsv([source]) if options.system == "bottom-up" else read_region_folder(source, boxes, sizes)
    report = store_regions(regions, Path(options.out))
    print(f"{options.out}: {report}")
    report_unreadable([f"{id}: {reason}" for id, reason in report.failures])
    return 3 if report.failures else 0
