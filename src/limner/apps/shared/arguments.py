"""Argument types and helpers that several commands share."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

Override = tuple[str, str]  # the dotted name of a recipe's field, and its value as text


class WrongArguments(ValueError):
    """Arguments that are unknown or contradict each other: the command ends with exit status 2."""


def refuse_unknown(rest: Sequence[str]) -> None:
    """Raise WrongArguments when a command got arguments that it does not know."""
    if rest:
        raise WrongArguments(f"unknown arguments: {' '.join(rest)} (see --help)")


def split_dotted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Command-line words -> (words for argparse, dotted options with their values).

    argparse does not know `--data.media DIR` and would read DIR as a positional argument.

    >>> split_dotted(["run", "--data.media", "photos", "--beam", "3", "--decoding.groups=3"])
    (['run', '--beam', '3'], ['--data.media', 'photos', '--decoding.groups=3'])
    """
    plain: list[str] = []
    dotted: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        if not (name.startswith("--") and "." in name):
            plain.append(word)
            continue
        dotted.append(word)
        if not equals and left and not left[0].startswith("--"):
            dotted.append(left.pop(0))
    return plain, dotted


def overrides(rest: Sequence[str]) -> list[Override]:
    """`--stages.0.lr 1e-4` or `--stages.0.lr=1e-4` -> [("stages.0.lr", "1e-4")].

    Raises WrongArguments for a word that is no option, and for an option without a value.
    """
    pairs, words = [], list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise WrongArguments(f"expected --field value, got '{word}'")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words or words[0].startswith("--"):
                raise WrongArguments(f"{word} needs a value")
            value = words.pop(0)
        pairs.append((name, value))
    return pairs


def split_decoding(rest: Sequence[str]) -> tuple[dict[str, str], list[Override]]:
    """Overrides on the command line -> ({field of the decoding: value}, all other overrides).

    >>> split_decoding(["--decoding.rules.max_length", "12", "--features", "store"])
    ({'rules.max_length': '12'}, [('features', 'store')])
    """
    if rest and not rest[0].startswith("--"):
        refuse_unknown(rest)
    pairs = overrides(rest)
    decoding = {name.partition(".")[2]: value for name, value in pairs if name.startswith("decoding.")}
    return decoding, [pair for pair in pairs if not pair[0].startswith("decoding.")]


def only_decoding(rest: Sequence[str]) -> dict[str, str]:
    """The decoding fields that a command line overrides, of a command that takes no other overrides."""
    unknown, dotted = split_dotted(rest)
    refuse_unknown(unknown)
    decoding, others = split_decoding(dotted)
    refuse_unknown([f"--{name} {value}" for name, value in others])
    return decoding


def positive_int(text: str) -> int:
    """Argument type: a whole number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got '{text}'")
    return int(text)


def positive_seconds(text: str) -> float:
    """Argument type: a duration in seconds, more than 0 and finite."""
    try:
        if 0 < float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got '{text}'")


def word_list(text: str) -> tuple[str, ...]:
    """Argument type: words separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def number_list(text: str) -> list[float]:
    """Argument type: numbers separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got '{text}'") from None


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --encoder and --device, for commands that open a run."""
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the run's pretrained encoder is now")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite, which `refuse_overwriting` reads."""
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def refuse_overwriting(options: argparse.Namespace, *outputs: Path | None) -> None:
    """Raise FileExistsError when one of the outputs exists already and --overwrite is not given."""
    for path in outputs:
        if path is not None and path.is_file() and not options.overwrite:
            raise FileExistsError(f"{path} exists: give --overwrite to replace it, or choose another name")


def report_lines(lines: Sequence[str], one: str, many: str, shown: int = 20) -> None:
    """Print a counted list to stderr: "1 file could not be read:", then a line for each."""
    if lines:
        print(f"{len(lines)} {one if len(lines) == 1 else many}:", file=sys.stderr)
        for line in lines[:shown]:
            print(f"  {line}", file=sys.stderr)
        if len(lines) > shown:
            print(f"  ... and {len(lines) - shown} more", file=sys.stderr)


def report_unreadable(lines: Sequence[str]) -> None:
    """Print the files that were skipped to stderr."""
    report_lines(lines, "file could not be read", "files could not be read")


def report_notes(lines: Sequence[str]) -> None:
    """Print what a user should know to stderr, for example that a file was damaged and still read."""
    report_lines(lines, "note", "notes")


def report_data_problems(lines: Sequence[str]) -> None:
    """Print what is wrong with a data set to stderr: media that cannot be used, captions that were dropped."""
    report_lines(lines, "problem in the data", "problems in the data")
