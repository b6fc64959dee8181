"""Decoding options of commands: common ones have a flag, every other field is `--decoding.FIELD value`."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from limner.apps.shared.arguments import WrongArguments, number_list, positive_int, word_list
from limner.decode.options import Averaging, Beam, Decoding, Sample
from limner.decode.rules import missing_words
from limner.runs.overrides import override_options, parse_value
from limner.text.vocabulary import Vocabulary

# flag of a command (as argparse names it) -> the field of `Beam` or `Sample` that it sets
FIELDS = {
    "beam": "size",
    "max_length": "rules.max_length",
    "n_best": "n_best",
    "must": "must",
    "never": "rules.never",
    "sample": "count",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
WORD_LISTS = ("must", "rules.never", "rules.bad_endings")  # may also be given as words separated by commas
# the options of `Beam` that make a published search, and their values in limner's own
PUBLISHED = {"finished_compete": False, "keep_beam_full": False, "drop_hopeless": True}
MORE = (
    "Any other field of a recipe's decoding: --decoding.FIELD VALUE, for example --decoding.length_penalty 0.5, "
    "--decoding.groups 5, --decoding.rules.min_length 6, --decoding.rules.bad_endings common."
)


def add_beam(parser: argparse.ArgumentParser) -> None:
    """The decoding options of a command that needs one caption per image or video."""
    group = parser.add_argument_group("decoding (default: the recipe's)", MORE)
    _add_beam(group)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """All decoding options: beam search, sampling and required or forbidden words."""
    group = parser.add_argument_group("decoding (default: the recipe's)", MORE)
    _add_beam(group)
    group.add_argument("--n-best", type=positive_int, metavar="N", help="the N best different captions of the beam")
    group.add_argument("--must", type=word_list, metavar="WORD,...", help="words that the caption must contain")
    group.add_argument("--never", type=word_list, metavar="WORD,...", help="words that it must not contain")
    group.add_argument("--sample", type=positive_int, metavar="N", help="draw N captions at random instead")
    group.add_argument("--temperature", type=float, metavar="T", help="of --sample; below 1: safer captions")
    group.add_argument("--top-k", type=positive_int, metavar="K", help="of --sample: only the K likeliest words")
    group.add_argument("--top-p", type=float, metavar="P", help="of --sample: only the likeliest words, sum P")
    group.add_argument("--seed", type=int, metavar="N", help="of --sample (default: 0)")


def _add_beam(group: Any) -> None:
    group.add_argument("--beam", type=positive_int, metavar="K", help="number of hypotheses; 1 is greedy search")
    group.add_argument("--max-length", type=positive_int, metavar="N", help="most tokens, end of sentence included")


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


def averaging_of(options: argparse.Namespace) -> Averaging:
    """How an ensemble's members are averaged: --weights and --average."""
    return Averaging(tuple(options.weights) if options.weights else None, options.average)


def decoding_of(
    options: argparse.Namespace, given: Mapping[str, str], default: Decoding, vocabulary: Vocabulary | None = None
) -> Decoding:
    """The decoding that a command line asks for.

    options     the flags of `add_beam` or `add_decoding`, and of `add_ensemble`
    given       values of `--decoding.FIELD value`, by field: {"rules.max_length": "12"}
    default     the decoding of the model's recipe; a search of a plug-in stays as it is, and gives way to a beam when
                options of a beam are given
    vocabulary  the model's; None when it is not known

    Raises WrongArguments for a field or value that cannot be.  Prints a note to stderr when a published search gives
    way, and for forbidden words that the model does not know.
    """
    changes = {FIELDS[flag]: getattr(options, flag, None) for flag in FIELDS}
    changes = {name: value for name, value in changes.items() if value is not None}
    shown = {name: f"--{flag.replace('_', '-')}" for flag, name in FIELDS.items() if name in changes}
    for name, text in given.items():
        if name in shown:
            raise WrongArguments(f"{shown[name]} is decoding.{name}: give one of them")
        changes[name], shown[name] = _parsed(name, text), f"--decoding.{name}"
    sampling = getattr(options, "sample", None) is not None
    if not isinstance(default, Beam) and (changes or sampling):
        default = Beam(rules=default.rules)
    start: Decoding = Sample(rules=default.rules) if sampling else default
    _check_kind(start, shown, getattr(options, "seed", None))
    if getattr(options, "weights", None) is not None and not options.others:
        raise WrongArguments("--weights are of an ensemble: give --with RUN too")
    if isinstance(start, Beam):
        start, changes = _prepared_beam(start, changes, shown)
    try:
        decoding = override_options(start, changes, "decoding")
        if vocabulary is not None and shown:
            decoding.bind(vocabulary)
    except ValueError as error:
        raise WrongArguments(str(error)) from error
    if isinstance(decoding, Beam) and "diversity" in changes and decoding.groups == 1:
        raise WrongArguments("--decoding.diversity is between groups of hypotheses: give --decoding.groups G too")
    never = decoding.rules.never if "rules.never" in changes else ()
    if vocabulary is not None and (unknown := missing_words(never, vocabulary)):
        words = ", ".join(map(repr, unknown))
        print(f"note: the vocabulary has no {words}, so that it never appears anyway", file=sys.stderr)
    if sampling:
        import torch

        torch.manual_seed(options.seed or 0)
    return decoding


def beam_of(options: argparse.Namespace, given: Mapping[str, str], default: Decoding) -> Beam:
    """`decoding_of` for commands with the flags of `add_beam`, which always search with a beam."""
    decoding = decoding_of(options, given, default)
    return decoding if isinstance(decoding, Beam) else Beam(rules=decoding.rules)


def _parsed(name: str, text: str) -> Any:
    """A value of `--decoding.FIELD value`: YAML, and for lists of words also `a,the`."""
    try:
        value = parse_value(f"decoding.{name}", text)
    except ValueError as error:
        raise WrongArguments(str(error)) from error
    return word_list(value) if name in WORD_LISTS and isinstance(value, str) and value != "common" else value


def _check_kind(start: Decoding, shown: Mapping[str, str], seed: int | None) -> None:
    """Raise WrongArguments for options of a beam with --sample, and for options of sampling without."""
    other = {field.name for field in fields(Beam if isinstance(start, Sample) else Sample)}
    foreign = other - {field.name for field in fields(start)}
    wrong = [flag for name, flag in shown.items() if name.partition(".")[0] in foreign]
    if isinstance(start, Sample):
        if wrong:
            raise WrongArguments(f"--sample draws captions, without a beam: leave out {', '.join(wrong)}")
    elif wrong := wrong + ([] if seed is None else ["--seed"]):
        raise WrongArguments(f"{', '.join(wrong)}: only for drawn captions; give --sample N too")


def _prepared_beam(start: Beam, changes: Mapping[str, Any], shown: Mapping[str, str]) -> tuple[Beam, dict[str, Any]]:
    """Resolve what a recipe's beam and the changes exclude of each other.

    A given length penalty counts: a recipe's `normalise: avg`, which has none, becomes `power`.  A published search
    (`PUBLISHED`) that cannot do what is asked gives way to limner's own, and a note says so.
    """
    changes = dict(changes)
    if "length_penalty" in changes:
        if changes.get("normalise") == "avg":
            raise WrongArguments(
                "--decoding.normalise avg divides by the length, whatever the --decoding.length_penalty: give one of "
                "them"
            )
        if start.normalise == "avg":
            changes.setdefault("normalise", "power")
    beyond = {"groups": changes.get("groups", 1) != 1, "must": bool(changes.get("must"))}
    if start.finished_compete:
        beyond |= {"n_best": changes.get("n_best", 1) != 1, "length_penalty": bool(changes.get("length_penalty"))}
        beyond |= {"normalise": changes.get("normalise", "power") != "power"}
    asked = [shown[name] for name, wished in beyond.items() if wished and name in shown]
    quirks = [name for name, own in PUBLISHED.items() if getattr(start, name) != own]
    if not asked or PUBLISHED.keys() & changes.keys() or not quirks:
        return start, changes
    published = quirks[0]
    print(
        f"note: the published search of this model ({published}) has no {', '.join(asked)}; limner's own beam takes "
        "its place",
        file=sys.stderr,
    )
    return replace(start, finished_compete=False, keep_beam_full=False, drop_hopeless=True), changes
