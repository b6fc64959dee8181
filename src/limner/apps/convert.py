"""`limner convert`: checkpoints of other captioners to run folders, regions of detectors to feature stores."""

import argparse
from difflib import get_close_matches
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments, refuse_unknown, report_unreadable
from limner.core.files import check_writable

REGIONS = ("bottom-up", "regions")


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
    check_writable(options.out)
    summary = SYSTEMS[options.system](
        Path(options.checkpoint), Path(options.word_map), Path(options.out), options.encoder, options.channels, settings
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
