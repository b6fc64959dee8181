"""Argument types and helpers that several commands share."""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from limner.apps.shared.names import names_of

MORE = (
    "Any other field of a recipe's decoding: --decoding.FIELD VALUE, for example --decoding.length_penalty 0.5, "
    "--decoding.rules.min_length 6."
)
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


def part_argument(text: str) -> tuple[int, int]:
    """Argument type: a part and the number of parts.

    >>> part_argument("2/8")
    (2, 8)
    """
    index, slash, count = text.partition("/")
    if not (slash and all(number.isascii() and number.isdigit() for number in (index, count))):
        raise argparse.ArgumentTypeError(f"expected I/N, for example 2/8, got '{text}'")
    if not 1 <= int(index) <= int(count):
        raise argparse.ArgumentTypeError(f"parts are counted from 1 to {int(count)}, got '{text}'")
    return int(index), int(count)


def probability(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    try:
        if 0 <= float(text) <= 1:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected a probability from 0 to 1, got '{text}'")


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


def add_overwrite(parser: Any) -> None:
    """Add --overwrite, which `check_outputs` reads."""
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def add_part(parser: Any) -> None:
    """Add --part, which divides the work between machines."""
    parser.add_argument("--part", type=part_argument, metavar="I/N", help="only part I of N; join them with merge")


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """Add --metrics and --spice-jar, which `limner.apps.score.metrics_of` reads."""
    metrics = ", ".join(names_of("limner.metrics.report.METRICS"))
    parser.add_argument("--metrics", default="all", metavar="NAME,...", help=f"of {metrics}")
    parser.add_argument("--spice-jar", metavar="PATH", help="add SPICE with your spice-1.0.jar (Java 8 or 11)")


def add_clip(parser: Any) -> None:
    """Add --clip: how a captioner of images reads videos."""
    parser.add_argument(
        "--clip",
        choices=names_of("limner.decode.clip_options.CLIP_METHODS"),
        metavar="HOW",
        help="image captioners: consensus (default), mosaic, middle",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model, --engine and --threads, which `limner.apps.shared.models.open_captioner` reads."""
    parser.add_argument(
        "--model", metavar="RUN", help="run, packed model, hub id, hf:ID, openai:URL#NAME (default: limner-small)"
    )
    parser.add_argument(
        "--engine", choices=["torch", "onnx"], metavar="NAME", help="torch or onnx (default: the one of --model)"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="default: OMP_NUM_THREADS; of onnx else one")


def add_style(parser: argparse.ArgumentParser) -> None:
    """Add --batch-size, and --style, --min-confidence and --max-chars: how a caption is written."""
    parser.add_argument(
        "--batch-size", type=positive_int, default=16, metavar="N", help="images at a time (default: 16)"
    )
    parser.add_argument(
        "--style", choices=["plain", "sentence", "alt-text"], default="plain", metavar="NAME",
        help="plain (default), sentence (the first one), or alt-text",
    )  # fmt: skip
    parser.add_argument("--min-confidence", type=probability, metavar="P", help="withhold captions that are less sure")
    parser.add_argument("--max-chars", type=positive_int, metavar="N", help="of --style alt-text (default: 125)")


def add_prompting(parser: argparse.ArgumentParser) -> None:
    """The options of models that take a request with the picture."""
    group = parser.add_argument_group("vision-language models (hf:...) and servers (openai:...)")
    group.add_argument("--prompt", metavar="TEXT", help="the request (default: one plain sentence)")
    group.add_argument("--system", default="", metavar="TEXT", help="the system message of a chat model")
    group.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="", metavar="NAME",
        help="float32 (default on the CPU), bfloat16 (elsewhere) or float16",
    )  # fmt: skip
    group.add_argument(
        "--max-side", type=positive_int, metavar="N", help="scale larger pictures down to N pixels (default: 1024)"
    )
    group.add_argument(
        "--context", choices=["sidecar", "exif", "any"], metavar="FROM",
        help="words about a file for the request: sidecar (dog.txt), exif, any",
    )  # fmt: skip
    group.add_argument("--requests", type=positive_int, metavar="N", help="under way at a server (default: 4)")
    group.add_argument("--timeout", type=positive_seconds, metavar="S", help="seconds for a request (default: 300)")
    group.add_argument("--key-variable", metavar="NAME", help="that holds the key (default: LIMNER_API_KEY)")


def add_sidecars(parser: argparse.ArgumentParser, inside: bool = True) -> None:
    """Add the options of captions beside their files, and with `inside` of those inside them."""
    group = parser.add_argument_group(f"captions beside {'or inside ' if inside else ''}the files")
    kinds = ["txt", "caption", "json", "xmp"]
    group.add_argument("--sidecar", choices=kinds, metavar="KIND", help="txt, caption, json, xmp: dog.txt for dog.jpg")
    if inside:
        group.add_argument("--exif", action="store_true", help="into EXIF's ImageDescription of the image file itself")
        group.add_argument("--xmp", action="store_true", help="into its XMP (dc:description)")
    else:
        parser.set_defaults(exif=False, xmp=False)
    group.add_argument(
        "--existing", choices=["skip", "overwrite", "append", "prepend"], metavar="HOW",
        help="words that are there: skip (default), overwrite, append, prepend",
    )  # fmt: skip
    group.add_argument("--prefix", metavar="TEXT", help="before each caption that is written there")
    group.add_argument("--suffix", metavar="TEXT", help="after it")
    group.add_argument("--template", metavar="TEXT", help="around it: '{caption}, {name}, {folder}'")


def add_cutting(group: Any) -> None:
    """Add --shots, --every and --whole: how videos are cut."""
    cutting = group.add_mutually_exclusive_group()
    cutting.add_argument("--shots", action="store_true", help="cut every video into shots")
    cutting.add_argument("--every", type=positive_seconds, metavar="SECONDS", help="cut videos into equal windows")
    cutting.add_argument("--whole", action="store_true", help="one caption per video, however long")


def add_beam(parser: argparse.ArgumentParser) -> None:
    """The decoding options of a command that needs one caption per image or video."""
    group = parser.add_argument_group("decoding (default: the recipe's)", MORE)
    _add_beam(group)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """All decoding options: beam search, sampling and required or forbidden words."""
    group = parser.add_argument_group("decoding (default: the recipe's)", MORE)
    _add_beam(group)
    group.add_argument("--n-best", type=positive_int, metavar="N", help="the N best different captions of the beam")
    group.add_argument("--must", type=word_list, metavar="WORD,...", help="words that must appear; a|b: one of them")
    group.add_argument("--never", type=word_list, metavar="WORD,...", help="words that it must not contain")
    group.add_argument("--sample", type=positive_int, metavar="N", help="draw N captions at random instead")
    group.add_argument("--temperature", type=float, metavar="T", help="of --sample; below 1: safer captions")
    group.add_argument("--top-k", type=positive_int, metavar="K", help="of --sample: only the K likeliest words")
    group.add_argument("--top-p", type=float, metavar="P", help="of --sample: only the likeliest words, sum P")
    group.add_argument("--seed", type=int, metavar="N", help="of --sample (default: 0)")


def _add_beam(group: Any) -> None:
    group.add_argument("--beam", type=positive_int, metavar="K", help="number of hypotheses; 1 is greedy search")
    group.add_argument(
        "--max-length", "--max-new-tokens", type=positive_int, metavar="N",
        help="most tokens, end of sentence included",
    )  # fmt: skip


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    """Add --with and --weights: the further members of an ensemble, and the weight of each."""
    group = parser.add_argument_group("ensemble")
    group.add_argument(
        "--with", dest="others", action="append", default=[], metavar="RUN",
        help="one more member; may be repeated",
    )  # fmt: skip
    group.add_argument("--weights", type=number_list, metavar="W,...", help="one per member (default: equal)")
    group.add_argument(
        "--average", choices=["probabilities", "log_probabilities"], default="probabilities", metavar="WHAT",
        help="probabilities (default) or log_probabilities",
    )  # fmt: skip


def check_outputs(options: argparse.Namespace, *outputs: Path | None, inputs: Iterable[str | Path] = ()) -> None:
    """Check before the work that the outputs can be written, and that nothing is lost.

    Raises FileExistsError when one exists already and --overwrite is not given, ValueError when one is an input, also
    with --overwrite, OSError when it cannot be written.
    """
    from limner.core.files import check_writable  # not at the top, for a fast --help

    paths = [path for path in outputs if path is not None]
    read = {os.path.realpath(path) for path in inputs}
    for path in paths:
        if os.path.realpath(path) in read:
            raise ValueError(f"{path} is an input, which the output would replace: choose another name for the output")
        if path.is_file() and not options.overwrite:
            raise FileExistsError(f"{path} exists: give --overwrite to replace it, or choose another name")
    for path in paths:
        check_writable(path)


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


def report_failed(lines: Sequence[str]) -> None:
    """Print the files that were read and got no caption to stderr."""
    report_lines(lines, "file got no caption", "files got no caption")


def report_notes(lines: Sequence[str]) -> None:
    """Print what a user should know to stderr, for example that a file was damaged and still read."""
    report_lines(lines, "note", "notes")


def report_data_problems(lines: Sequence[str]) -> None:
    """Print what is wrong with a data set to stderr: media that cannot be used, captions that were dropped."""
    report_lines(lines, "problem in the data", "problems in the data")
