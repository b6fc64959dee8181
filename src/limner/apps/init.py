"""`limner init`: look at a data set, and write a recipe that trains a captioner on it."""

import argparse
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from limner import shipped
from limner.apps.shared.arguments import WrongArguments, check_outputs, refuse_unknown, report_lines, report_notes
from limner.apps.shared.progress import watched
from limner.core.files import write_text
from limner.core.plugins import load_entry_points
from limner.core.torch_free import Medium
from limner.data.inspection import DataReport, inspect_data
from limner.data.new_splits import SplitPlan, plan_splits, write_split_lists
from limner.data.own_data import find_data
from limner.data.split_lists import SUFFIXES
from limner.runs.own_recipe import OwnRecipe, WordReport, count_words, write_own_recipe


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    out: Path = options.out
    if out.suffix not in (".yaml", ".yml"):
        raise WrongArguments(f"--out {out}: name a file that ends in .yaml")
    splits = out.with_name(f"{out.stem}_splits")
    lists = [splits / f"{split}{suffix}" for split in ("train", "val", "test") for suffix in SUFFIXES]
    check_outputs(options, out, *lists, inputs=[options.data])
    load_entry_points()
    config = find_data(options.data, options.media, options.file_column, options.caption_column)
    print(f"{options.data}: read as {config.name}{f', media in {config.media}' if config.media else ''}")
    report = inspect_data(config, options.check, watched)
    usable = report.usable
    plan = plan_splits(report.media, {medium.id for medium in usable}, report.duplicates)
    training = [text for medium in usable if plan.splits[medium.id] == "train" for text in medium.references]
    words = count_words(training, shipped.model())
    _say_what_is_there(report, usable, plan, words)
    problems = _say_what_is_wrong(report, plan, options)
    command = shlex.join(["limner", "init", options.data, "--out", str(out)])
    own = OwnRecipe(command, out, config, str(splits) if plan.is_new else "", plan, usable, words)
    text = write_own_recipe(own)
    for path in lists:
        path.unlink(missing_ok=True)  # those of an earlier call: there may be one list for each split
    if plan.is_new:
        write_split_lists(plan.splits, splits)
        print(f"wrote {splits}{'/'}: the lists of the splits")
    write_text(out, text)
    print(f"wrote {out}; next:\n  limner train {shlex.quote(str(out))}")
    print(f"  limner evaluate {shlex.quote(str(own.run))} --split test")
    return 3 if problems else 0


def _say_what_is_there(report: DataReport, usable: Sequence[Medium], plan: SplitPlan, words: WordReport) -> None:
    captions = [len(medium.references) for medium in usable]
    lengths = [len(text.split()) for medium in usable for text in medium.references]
    images = len(usable) - sum(medium.id in report.clips for medium in usable)
    kinds = [f"{count:,} {name}" for count, name in ((images, "images"), (len(usable) - images, "clips")) if count]
    each = f"{min(captions)}" if min(captions) == max(captions) else f"{min(captions)} to {max(captions)}"
    print(f"files     {' and '.join(kinds)} with captions that can be read")
    print(
        f"captions  {sum(captions):,}, {each} for a file, {min(lengths)} to {max(lengths)} words, "
        f"{statistics.median(lengths):.0f} in the middle"
    )
    splits = Counter(plan.splits[medium.id] for medium in usable)
    print(f"splits    {', '.join(f'{name} {count:,}' for name, count in _in_order(splits))}: {plan.reason}")
    print(f"words     {len(words.found):,} that {shipped.DEFAULT} knows, {len(words.new):,} new{_examples(words)}")
    if words.rare:
        print(f"          {words.rare:,} more occur less than {words.min_count} times and are not learnt")


def _examples(words: WordReport) -> str:
    examples = ", ".join(f"{word} ({words.counts[word]:,})" for word in words.new[:8])
    return f": {examples}{', ...' if len(words.new) > 8 else ''}" if examples else ""


def _in_order(splits: Counter[str]) -> Iterator[tuple[str, int]]:
    names = [*(name for name in ("train", "val", "test") if name in splits), *sorted(splits.keys())]
    return ((name, splits[name]) for name in dict.fromkeys(names))


def _say_what_is_wrong(report: DataReport, plan: SplitPlan, options: argparse.Namespace) -> bool:
    """Print all problems, counted -> whether captions or files are lost by them."""
    report_lines(report.missing, "file is missing", "files are missing", 5)
    if len(report.missing) > len(report.media) // 2 and not options.media:
        print("  is their folder another one? give it with --media DIR", file=sys.stderr)
    report_lines(report.unreadable, "file cannot be read", "files cannot be read", 5)
    report_lines(report.other_problems, "problem in the data", "problems in the data", 5)
    report_lines(report.without_captions, "file has no caption", "files have no caption", 5)
    report_lines(report.unnamed, "file is named by no caption", "files are named by no caption", 5)
    apart = [ids for ids in report.duplicates if len({plan.splits[id] for id in ids}) > 1]
    lines = [f"{' = '.join(ids[:4])}{' (in several splits)' if ids in apart else ''}" for ids in report.duplicates]
    report_lines(lines, "group of equal files", "groups of equal files", 5)
    if empty := sum(report.empty_captions.values()):
        print(f"{empty:,} {'caption is' if empty == 1 else 'captions are'} empty", file=sys.stderr)
    notes = list(report.notes)
    if report.unchecked:
        notes.append(f"{report.unchecked:,} files were not opened: --check N opens more")
    report_notes([*notes, *report.damaged])
    return bool(report.missing or report.unreadable or report.empty_captions or report.other_problems)
