"""Show why a model says each word: limner explain RUN photo.jpg|clip.mp4 --out figure.png|film.mp4|film.gif|folder/

Where a run reads stored features, the id of a medium may stand in place of the file.
limner explain RUN --score tells how good the maps are, on the test split of the run's data.
limner explain --join FOLDER --out film.mp4 makes a film of PNG files, one frame each.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from limner.apps.shared.arguments import (
    WrongArguments,
    add_decoding,
    add_run,
    decoding_of,
    no_more,
    positive,
    report_problems,
)
from limner.apps.shared.runs import open_run
from limner.core.files import write_json
from limner.decode.search import beam
from limner.explanations import video
from limner.explanations.evaluation import score_run, scores_table
from limner.explanations.explanation_input import DisplayFrames, load_explanation_input
from limner.explanations.figure import FORMATS, strip_figure, word_figure
from limner.explanations.maps import (
    METHODS,
    Explanation,
    default_method,
    explain,
    sentence_from_text,
    sentence_from_tokens,
)
from limner.explanations.saliency import parse_block

FILMS = (".mp4", ".gif")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder, or packed model")
    parser.add_argument("source", nargs="?", help="picture or clip, or the id of stored features")
    parser.add_argument(
        "--out", type=Path,
        help="figure (.png .pdf .svg .jpg: a panel per word, or of a clip a row of frames), film (.mp4 .gif) or a "
        "folder for its frames; with --score a .json file",
    )  # fmt: skip
    parser.add_argument("--method", help=f"{', '.join(METHODS)}; with --score several, by commas (default: all)")
    parser.add_argument("--sentence", metavar="WORDS", help="explain this sentence instead of the model's own")
    parser.add_argument(
        "--unit", default="", metavar="U", help="saliency of a cell (default), a frame, a region, or T,H,W cells"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="frames sampled from a clip")
    parser.add_argument("--score", action="store_true", help="score the maps of a split of the run's data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N media")
    parser.add_argument("--join", type=Path, metavar="FOLDER", help="PNG files, by name, that become --out film.mp4")
    parser.add_argument("--pace", type=positive, default=15, metavar="N", help="frames per second of --join")
    add_decoding(parser)
    add_run(parser)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.join:
        no_more(rest)
        return join(options)
    if options.run is None:
        raise WrongArguments("name a run folder, and what to explain or --score (see --help)")
    if options.score:
        return score(options, rest)
    if options.source is None:
        raise WrongArguments(f"{options.run}: name a picture or clip to explain, or give --score")
    return show(options, rest)


def show(options: argparse.Namespace, rest: list[str]) -> int:
    """Explain one picture or clip."""
    out = options.out
    if out is None:
        raise WrongArguments("--out is required: a figure, a film or a folder (see --help)")
    if out.suffix.lower() not in ("", *FORMATS, *FILMS) and not out.is_dir():
        raise WrongArguments(
            f"{out}: the ending says the format; known are {', '.join((*FORMATS, *FILMS))}, and none for a folder"
        )
    loaded = open_run(options, rest)
    method = options.method or default_method(loaded.model)
    block = parse_block(options.unit) if options.unit else None
    if block and method != "saliency":
        raise WrongArguments(f"--unit is about saliency; {method} has a value for every cell: give --method saliency")
    sentence = None if options.sentence is None else sentence_from_text(loaded.vocabulary, options.sentence)
    subject = load_explanation_input(loaded, options.source, options.device, options.frames)
    if sentence is None:
        decoding = decoding_of(options, loaded.recipe.beam)
        sentence = sentence_from_tokens(
            loaded.vocabulary, beam(loaded.model, subject.features, decoding).tokens[0].tolist()
        )
    made = explain(loaded.model, subject.features, sentence, method, **({"block": block} if block else {}))
    write(made, subject.display, out)
    print(f"{made.text}\nwrote {out}")
    if sentence.unknown:
        print(f"not in the vocabulary, read as any unknown word: {', '.join(sentence.unknown)}", file=sys.stderr)
    if made.words and made.is_uniform:
        print(f"{method} is the same everywhere at every word; try another --method", file=sys.stderr)
    report_problems(subject.notes)
    return 0


def write(made: Explanation, shown: DisplayFrames, out: Path) -> None:
    """In the form that the ending of `out` asks for."""
    if not out.suffix or out.suffix.lower() in FILMS or out.is_dir():
        video.write_film(made, shown, out)
    elif len(shown.frames) == 1:
        word_figure(shown.frames[0], made, out, kept_region=shown.kept_region)
    else:
        strip_figure(shown, made, out)


def score(options: argparse.Namespace, rest: list[str]) -> int:
    """Score the explanations of a split."""
    if options.source is not None:
        raise WrongArguments(f"--score reads the run's data: leave out {options.source}")
    if idle := [name for name in ("sentence", "unit", "frames") if getattr(options, name)]:
        raise WrongArguments(f"--score explains the run's own captions cell by cell: leave out --{idle[0]}")
    if options.out and options.out.suffix != ".json":
        raise WrongArguments(f"{options.out}: scores are written as .json")
    methods = options.method.split(",") if options.method else tuple(METHODS)
    loaded = open_run(options, rest)
    decoding = decoding_of(options, loaded.recipe.beam)
    scored = score_run(loaded, methods, options.split, decoding, options.limit, options.device)
    Console().print(scores_table(scored))
    if options.out:
        facts = {"split": options.split, "media": scored.media, "decoding": asdict(decoding)}
        write_json(options.out, {**facts, "methods": [tally.means() for tally in scored.by_method]})
        print(f"wrote {options.out}")
    report_problems(scored.problems)
    return 3 if scored.problems else 0


def join(options: argparse.Namespace) -> int:
    """PNG files to a film."""
    if options.run is not None:
        raise WrongArguments(f"--join makes a film of {options.join} alone: leave out {options.run}")
    if options.out is None or options.out.suffix.lower() != ".mp4":
        raise WrongArguments("--join needs --out film.mp4")
    count = video.pngs_to_mp4(options.join, options.out, options.pace)
    print(f"wrote {options.out}: {count} frames")
    return 0
