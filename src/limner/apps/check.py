"""`limner check`: look for faults in a data set, show them, and write a cleaned caption file."""

import argparse
import shlex
from collections.abc import Sequence
from typing import Any

from limner.apps.shared.arguments import WrongArguments, check_outputs, refuse_unknown, report_notes
from limner.apps.shared.check_page import check_page
from limner.apps.shared.progress import watched
from limner.core.files import write_json, write_text
from limner.core.plugins import load_entry_points
from limner.data.checks.findings import KINDS, Finding, by_kind, count_of
from limner.data.checks.manifest import SUFFIXES, clean, write_manifest
from limner.data.datasets import data_parts
from limner.data.own_data import find_data
from limner.runs.data_check import DataCheck, check_data
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe
from limner.runs.teaching import is_recipe

EXAMPLES, WIDTH = 3, 100  # lines of a kind on the console, and characters of each
SEEN = 5  # words of a class on the console


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    if options.fix and options.fix.suffix not in SUFFIXES:
        raise WrongArguments(f"--fix {options.fix}: name a file that ends in {', '.join(SUFFIXES)}")
    if options.max_words and options.max_words < options.min_words:
        raise WrongArguments(f"--max-words {options.max_words} is less than --min-words {options.min_words}")
    load_entry_points()
    given = is_recipe(options.data)
    if given and (options.media or options.file_column or options.caption_column):
        raise WrongArguments(
            f"{options.data} is a recipe, which says where its data are: leave out --media and columns"
        )
    data = (
        load_recipe(options.data)
        if given
        else find_data(options.data, options.media, options.file_column, options.caption_column)
    )
    parts = list(data_parts(data.data if isinstance(data, Recipe) else data).values())
    inputs = [options.data, *(path for part in parts for path in (part.annotations, part.media) if path)]
    check_outputs(options, options.json, options.html, options.fix, inputs=inputs)
    for part in parts:
        print(
            f"{part.annotations or part.media}: read as {part.name}{f', media in {part.media}' if part.media else ''}"
        )
    words = options.min_words, options.max_words or 0
    check = check_data(data, options.store, options.language, words, options.check, watched)
    _print(check)
    if options.json:
        write_json(options.json, as_json(check, options.data))
        print(f"wrote {options.json}")
    if options.html:
        text, missing = check_page(check, options.data, options.items)
        write_text(options.html, text)
        report_notes(missing)
        print(f"wrote {options.html}")
    if options.fix:
        _fix(check, options, parts[0].media if len(parts) == 1 else "")
    return 3 if check.findings else 0


def _print(check: DataCheck) -> None:
    """Print what is there, what is wrong, and how well the words are covered."""
    media = check.report.media
    captions = sum(len(medium.references) for medium in media)
    print(f"files     {len(media):,} in the data, {len(check.report.usable):,} with captions that can be used")
    print(f"captions  {captions:,}, {check.rules.language or 'language not known'}")
    for split, table in check.words.items():
        print(
            f"words     {split or 'no split'}: {table.media:,} files, {table.tokens:,} words, {table.types:,} "
            f"different, {table.unknown_rate:.2%} unknown"
        )
        for name, unseen in table.unseen.items():
            examples = ", ".join(list(unseen)[:SEEN])
            print(
                f"          never in train: {name} {len(unseen):,} ({examples}{', ...' if len(unseen) > SEEN else ''})"
            )
    groups = by_kind(check.findings)
    for kind, found in groups.items():
        print(f"\n{KINDS[kind].title}: {count_of(found)}; {KINDS[kind].advice}")
        for finding in found[:EXAMPLES]:
            print(f"  {_line(finding)}")
        if len(found) > EXAMPLES:
            print(f"  ... and {len(found) - EXAMPLES:,} more")
    print("" if groups else "nothing was found")
    report_notes(check.notes)


def _line(finding: Finding) -> str:
    """A finding on one line: its media, its caption, what is wrong."""
    ids = " = ".join(finding.ids[:4]) + (f" and {len(finding.ids) - 4} more" if len(finding.ids) > 4 else "")
    caption = f'"{_short(finding.caption)}"' if finding.caption else ""
    detail = finding.detail.removeprefix(f"{ids}: ")
    return ": ".join(filter(None, (ids, caption, _short(detail, 2 * WIDTH))))


def _short(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def as_json(check: DataCheck, data: str) -> dict[str, Any]:
    """All that was found, for programs."""
    words = {
        split: {
            **{name: getattr(table, name) for name in ("media", "captions", "tokens", "types", "unknown")},
            "unknown_rate": table.unknown_rate,
            "never_in_train": table.unseen,
        }
        for split, table in check.words.items()
    }
    findings = {
        kind: {
            "title": KINDS[kind].title,
            "advice": KINDS[kind].advice,
            "items": [
                {"ids": finding.ids, "detail": finding.detail}
                | ({"caption": finding.caption} if finding.caption else {})
                for finding in found
            ],
        }
        for kind, found in by_kind(check.findings).items()
    }
    rules = {name: getattr(check.rules, name) for name in ("min_words", "max_words", "language")}
    counts = {"files": len(check.report.media), "usable": len(check.report.usable)}
    return {"data": data, **counts, "rules": rules, "findings": findings, "words": words, "notes": check.notes}


def _fix(check: DataCheck, options: argparse.Namespace, root: str) -> None:
    """Write the cleaned caption file."""
    cleaned = clean(check.report.media, check.findings, check.rules)
    if not cleaned.media:
        raise ValueError(f"nothing would be left of {options.data}: {options.fix} was not written")
    write_manifest(cleaned.media, options.fix, root)
    print(
        f"wrote {options.fix}: {len(cleaned.media):,} files; left out were {cleaned.dropped:,} files and "
        f"{cleaned.captions:,} captions of others; {cleaned.repaired:,} captions were repaired"
    )
    words: Sequence[str] = ["limner", "init", str(options.fix), *(["--media", root] if root else [])]
    print(f"next:\n  {shlex.join(words)}")
