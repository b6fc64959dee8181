"""Decoding options of commands: common ones have a flag, every other field is `--decoding.FIELD value`."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from limner.apps.shared.arguments import WrongArguments, word_list
from limner.decode.options import Averaging, Beam, Decoding, Sample
from limner.decode.required_words import missing_alternatives
from limner.decode.rules import missing_words
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
    way, and for forbidden words and alternatives that the model does not know.
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
        decoding = _overridden(start, changes)
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
    must = decoding.must if isinstance(decoding, Beam) and "must" in changes else ()
    if vocabulary is not None and (unknown := missing_alternatives(must, vocabulary)):
        words = ", ".join(map(repr, unknown))
        print(f"note: the vocabulary has no {words}, so that one of the other words of --must appears", file=sys.stderr)
    if sampling:
        import torch

        torch.manual_seed(options.seed or 0)
    return decoding


def _overridden(start: Decoding, changes: Mapping[str, Any]) -> Decoding:
    """The decoding with fields changed; most calls change none, and need neither YAML nor a schema."""
    if not changes:
        return start
    from limner.runs.overrides import override_options

    return override_options(start, changes, "decoding")


def beam_of(options: argparse.Namespace, given: Mapping[str, str], default: Decoding) -> Beam:
    """`decoding_of` for commands with the flags of `add_beam`, which always search with a beam."""
    decoding = decoding_of(options, given, default)
    return decoding if isinstance(decoding, Beam) else Beam(rules=decoding.rules)


def _parsed(name: str, text: str) -> Any:
    """A value of `--decoding.FIELD value`: YAML, and for lists of words also `a,the`."""
    from limner.runs.overrides import parse_value  # YAML

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
