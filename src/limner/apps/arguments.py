"""Arguments that several commands share."""

import argparse
import sys
from collections.abc import Sequence

from limner.decode.search import Beam
from limner.pipeline import with_beam


def no_more(rest: Sequence[str]) -> None:
    """Refuse arguments a command does not know."""
    if rest:
        raise ValueError(f"unknown arguments: {' '.join(rest)} (see --help)")


def overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """`--stages.0.lr 1e-4` or `--stages.0.lr=1e-4` -> [("stages.0.lr", "1e-4")]."""
    pairs, words = [], list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"expected --field value, got '{word}'")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise ValueError(f"{word} needs a value")
            value = words.pop(0)
        pairs.append((name, value))
    return pairs


def positive(text: str) -> int:
    """A whole number from 1 on, as an argument's type."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got '{text}'")
    return int(text)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding (defaults: the run's recipe)")
    group.add_argument("--beam", type=positive, metavar="K", help="hypotheses per medium; 1 is greedy")
    group.add_argument("--length-penalty", type=float, metavar="A", help="score = log-probability / length^A")
    group.add_argument("--min-length", type=int, metavar="N", help="words before the caption may end")
    group.add_argument("--max-length", type=positive, metavar="N", help="longest caption in tokens, its end included")
    group.add_argument("--allow-unknown", action="store_true", default=None, help="let the unknown word be spoken")
    group.add_argument("--allow-repeats", action="store_true", default=None, help="let a word follow itself")


def decoding_of(options: argparse.Namespace, default: Beam) -> Beam:
    return with_beam(
        default,
        options.beam,
        options.length_penalty,
        min_length=options.min_length,
        max_length=options.max_length,
        unknown=options.allow_unknown,
        no_repeat=None if options.allow_repeats is None else False,
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the run's pretrained encoder lies now")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")


def report_problems(problems: Sequence[str], shown: int = 20) -> None:
    """What was skipped, on stderr."""
    if problems:
        print(f"{len(problems)} skipped or mended:", file=sys.stderr)
        for line in problems[:shown]:
            print(f"  {line}", file=sys.stderr)
        if len(problems) > shown:
            print(f"  ... and {len(problems) - shown} more", file=sys.stderr)
