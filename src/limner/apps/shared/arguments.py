"""Arguments that several commands share."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from limner.decode.options import Averaging, Beam, Decoding, Sample, with_beam
from limner.decode.rules import ENDINGS, missing_words
from limner.text.vocabulary import Vocabulary


class WrongArguments(ValueError):
    """Arguments that are not known, or do not go together."""


def no_more(rest: Sequence[str]) -> None:
    """Refuse arguments a command does not know."""
    if rest:
        raise WrongArguments(f"unknown arguments: {' '.join(rest)} (see --help)")


def overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """`--stages.0.lr 1e-4` or `--stages.0.lr=1e-4` -> [("stages.0.lr", "1e-4")]."""
    pairs, words = [], list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise WrongArguments(f"expected --field value, got '{word}'")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise WrongArguments(f"{word} needs a value")
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
    group.add_argument(
        "--length-penalty",
        type=float,
        metavar="A",
        help="score = log-probability / length^A, also where the recipe's normalise is avg",
    )
    group.add_argument("--min-length", type=int, metavar="N", help="words before the caption may end")
    group.add_argument("--max-length", type=positive, metavar="N", help="longest caption in tokens, its end included")
    group.add_argument("--allow-unknown", action="store_true", default=None, help="let the unknown word be spoken")
    group.add_argument("--allow-repeats", action="store_true", default=None, help="let a word follow itself")


def decoding_of(options: argparse.Namespace, default: Beam) -> Beam:
    return with_beam(
        _plain(options, default),
        options.beam,
        options.length_penalty,
        min_length=options.min_length,
        max_length=options.max_length,
        allow_unknown=options.allow_unknown,
        no_repeat_word=None if options.allow_repeats is None else False,
    )


def _plain(options: argparse.Namespace, default: Beam) -> Beam:
    """`default`, without what makes it a published search (`finished_compete`, `keep_beam_full`) where that cannot
    do what is asked."""
    given = vars(options)  # a command may have the options of a beam alone
    beyond = {"--groups": (given.get("groups") or 1) > 1, "--must": bool(given.get("must"))}
    if default.finished_compete:
        beyond |= {"--n-best": (given.get("n_best") or 1) > 1, "--length-penalty": bool(options.length_penalty)}
        beyond |= {"--normalise": given.get("normalise") in ("wu", "avg")}
    asked = [name for name, wished in beyond.items() if wished]
    if not asked or not (default.finished_compete or default.keep_beam_full):
        return default
    print(
        "note: the published search of this model "
        f"({'finished_compete' if default.finished_compete else 'keep_beam_full'}) has no "
        f"{', '.join(asked)}; limner's own beam takes its place",
        file=sys.stderr,
    )
    return replace(default, finished_compete=False, keep_beam_full=False)


def add_search(parser: argparse.ArgumentParser) -> None:
    """Other searches than a beam, several captions, rules about words, and ensembles."""
    group = parser.add_argument_group("search")
    group.add_argument("--normalise", choices=["power", "wu", "avg"], help="how --length-penalty is applied")
    group.add_argument("--n-best", type=positive, metavar="N", help="the N best different captions of the beam")
    group.add_argument("--groups", type=positive, metavar="G", help="diverse beam search: G groups of K / G hypotheses")
    group.add_argument("--diversity", type=float, metavar="L", help="how much groups avoid each other's words (0.5)")
    group.add_argument("--sample", type=positive, metavar="N", help="draw N captions instead of searching")
    group.add_argument("--temperature", type=float, metavar="T", help="of drawing; below 1 is surer")
    group.add_argument("--top-k", type=positive, metavar="K", help="draw from the K likeliest words only")
    group.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest words that sum to P only")
    group.add_argument(
        "--seed", type=int, metavar="N", help="of drawing (0); another --batch-size or a --resume draws others"
    )
    group.add_argument("--no-trigrams", action="store_true", default=None, help="never the same three words twice")
    group.add_argument("--no-bad-endings", action="store_true", help="never end with an article, a preposition, ...")
    group.add_argument("--never", type=listed, metavar="WORD,...", help="words that must not appear")
    group.add_argument("--must", type=listed, metavar="WORD,...", help="words that must appear")
    group = parser.add_argument_group("ensemble")
    group.add_argument(
        "--with", dest="others", action="append", default=[], metavar="RUN",
        help="a further member; --encoder is for it too where it has the same encoder",
    )  # fmt: skip
    group.add_argument("--weights", type=numbers, metavar="W,...", help="one per member, RUN's first (default: equal)")
    group.add_argument("--average", choices=["probabilities", "log_probabilities"], default="probabilities")


def averaging_of(options: argparse.Namespace) -> Averaging:
    """How an ensemble's members are averaged: --weights and --average."""
    return Averaging(tuple(options.weights) if options.weights else None, options.average)


def listed(text: str) -> tuple[str, ...]:
    """Words between commas, as an argument's type."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> list[float]:
    """Numbers between commas, as an argument's type."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers between commas, got '{text}'") from None


def search_of(options: argparse.Namespace, default: Beam, vocabulary: Vocabulary | None = None) -> Decoding:
    """What `add_decoding` and `add_search` ask for, of a captioner that says `vocabulary` (None: it is not known).

    What is dropped or does nothing is told on stderr.
    """
    beam = decoding_of(options, default)
    rules = beam.rules
    if options.no_trigrams:
        rules = replace(rules, no_repeat_trigram=True)
    if options.no_bad_endings:
        rules = replace(rules, bad_endings=ENDINGS)
    if options.never is not None:
        rules = replace(rules, never=options.never)
        if vocabulary is not None and (lacking := missing_words(options.never, vocabulary)):
            words = ", ".join(map(repr, lacking))
            print(f"note: the vocabulary has no {words}, so that it never appears anyway", file=sys.stderr)
    drawing = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    given = {name: value for name, value in drawing.items() if value is not None}
    asked = {
        **{"normalise": options.normalise, "n_best": options.n_best, "groups": options.groups},
        **{"diversity": options.diversity, "must": options.must},
    }
    searching = {name: value for name, value in asked.items() if value is not None}
    _insist_on_sense(options, [*given, *(["seed"] if options.seed is not None else [])], bool(searching))
    if options.sample is None:
        return replace(beam, rules=rules, **searching)
    import torch

    torch.manual_seed(options.seed or 0)
    return Sample(options.sample, rules=rules, **given)


def _insist_on_sense(options: argparse.Namespace, drawing: Sequence[str], searching: bool) -> None:
    """Refuse what would do nothing.  Raises WrongArguments."""
    if options.sample is None and drawing:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in drawing)
        raise WrongArguments(f"{names}: of drawing captions; give --sample N too")
    of_beam = searching or options.beam is not None or options.length_penalty is not None
    if options.sample is not None and of_beam:
        raise WrongArguments("--sample draws captions: --beam and what belongs to a beam cannot be given with it")
    if options.diversity is not None and (options.groups or 1) == 1:
        raise WrongArguments("--diversity is between groups of hypotheses: give --groups G too")
    if options.normalise == "avg" and options.length_penalty is not None:
        raise WrongArguments("--normalise avg divides by the length, whatever the --length-penalty: give one of them")
    if options.weights is not None and not options.others:
        raise WrongArguments("--weights are of an ensemble: give --with RUN too")


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
