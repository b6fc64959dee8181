"""Convert a checkpoint of another captioner into a run folder, or a detector's regions into a feature store.

    limner convert --from SYSTEM CHECKPOINT --word-map MAP.json --out RUN
    limner convert --from bottom-up FILE.tsv --out STORE
    limner convert --from regions DIR --boxes DIR --sizes SIZES.json --out STORE

Code inside a checkpoint is never executed.
"""

import argparse
from difflib import get_close_matches
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments, positive_int, refuse_unknown, report_unreadable

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
    group = parser.add_argument_group("settings of a model that its checkpoint may not hold")
    group.add_argument("--heads", type=positive_int, metavar="N", help="attention heads: spatial, self-critical")
    group.add_argument("--activation", choices=("relu", "gelu"), help="of the feed-forward blocks: spatial")
    group.add_argument("--max-words", type=positive_int, metavar="N", help="most words of a caption")
    group.add_argument("--align", type=_three_sizes, metavar="T,H,W", help="size of the maps: video-captioning-3d")
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder or feature store to write")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    given = {name: getattr(options, name) for name in ("heads", "activation", "max_words", "align")}
    if options.system in REGIONS:
        if any(value is not None for value in given.values()):
            raise WrongArguments("--heads, --activation, --max-words and --align are of models: leave them out")
        return _convert_regions(options)
    from limner.convert import SYSTEMS, Settings, check_settings

    if options.system not in SYSTEMS:
        near = get_close_matches(options.system.lower().replace("_", "-"), (*SYSTEMS, *REGIONS), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise WrongArguments(f"unknown system '{options.system}'{hint}; known are {', '.join((*SYSTEMS, *REGIONS))}")
    settings = Settings(**given)
    try:
        check_settings(settings, options.system)
    except ValueError as error:
        raise WrongArguments(str(error)) from error
    if not options.word_map:
        raise WrongArguments("a checkpoint does not hold its words: give --word-map")
    summary = SYSTEMS[options.system](
        Path(options.checkpoint), Path(options.word_map), Path(options.out), options.encoder, options.channels, settings
    )
    print(summary)
    return 0


def _three_sizes(text: str) -> tuple[int, ...]:
    """Argument type: three whole numbers from 1 on, separated by commas."""
    sizes = tuple(positive_int(part.strip()) for part in text.split(","))
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"expected three numbers T,H,W, got '{text}'")
    return sizes


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
