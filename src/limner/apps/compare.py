"""`limner compare`: compare runs on the same images or videos."""

import argparse
import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from limner.apps.options.compare import GROUP
from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    refuse_unknown,
)
from limner.apps.shared.console import open_console
from limner.comparison.compare import Comparison, compare, to_json
from limner.comparison.compared_runs import (
    ComparedRun,
    locate_media,
    read_compared_runs,
    references_from_file,
    references_from_runs,
)
from limner.comparison.formatting import format_interval, format_p_value, format_signed, format_x100, is_significant
from limner.comparison.latex import latex_table
from limner.comparison.page import comparison_page
from limner.comparison.seed_page import format_mean, group_names, seed_latex_table, seed_page
from limner.comparison.seeds import SeedComparison, SeedGroup, compare_seeds, seeds_to_json
from limner.core.files import write_json, write_text
from limner.core.types import Medium
from limner.metrics.significance import Difference

MOST = 26  # runs: each is called by a letter


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    if options.caption_column and not options.references:
        raise WrongArguments("--caption-column is of the references: give --references FILE")
    groups = _groups(options.runs)
    paths = [path for group in groups for path in group]
    if len(groups) == 1 and not 2 <= len(paths) <= MOST:
        raise WrongArguments(f"a comparison takes 2 to {MOST} runs, got {len(paths)}")
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.resolve() in seen:
            raise WrongArguments(f"{path} is given twice; a comparison takes different runs")
        seen.add(path.resolve())
    read = [*paths, *([options.references] if options.references else [])]
    check_outputs(options, options.out, options.json, options.latex, inputs=read)
    runs = read_compared_runs(paths)
    if options.references:
        media = references_from_file(options.references, options.caption_column)
    else:
        media = references_from_runs(runs)
    if len(groups) > 1:
        return _compare_seeds(options, groups, runs, media)
    if options.media:
        media = locate_media(options.media, media)
    comparison = compare(runs, media, options.tokenizer, options.bootstrap, options.seed)
    text, problems = comparison_page(comparison, options.items)
    write_text(options.out, text)
    if options.json:
        write_json(options.json, to_json(comparison))
    if options.latex:
        write_text(options.latex, latex_table(comparison))
    for line in (*comparison.warnings, *problems):
        print(f"note: {line}", file=sys.stderr)
    open_console().print(table(comparison))
    print("wrote " + ", ".join(str(path) for path in (options.out, options.json, options.latex) if path))
    return 3 if comparison.left_out else 0


def _groups(words: list[str]) -> list[list[str]]:
    """The runs between the marks of `--`; one group when there is none."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word == GROUP:
            groups.append([])
        else:
            groups[-1].append(word)
    if len(groups) > 1 and not all(groups):
        raise WrongArguments("`--` stands between groups of runs: name the runs before and after it")
    if len(groups) > MOST:
        raise WrongArguments(f"a comparison takes 2 to {MOST} groups of runs, got {len(groups)}")
    return groups


def _compare_seeds(
    options: argparse.Namespace, groups: list[list[str]], runs: tuple[ComparedRun, ...], media: dict[str, Medium]
) -> int:
    """Compare the means of groups of runs."""
    left = iter(runs)
    grouped = [[next(left) for _ in group] for group in groups]
    comparison = compare_seeds(grouped, media, options.tokenizer, options.bootstrap, options.seed)
    write_text(options.out, seed_page(comparison))
    if options.json:
        write_json(options.json, seeds_to_json(comparison))
    if options.latex:
        write_text(options.latex, seed_latex_table(comparison))
    for line in comparison.warnings:
        print(f"note: {line}", file=sys.stderr)
    for other, differences in zip(comparison.groups[1:], comparison.differences, strict=True):
        open_console().print(seed_table(comparison, other, differences))
    print("wrote " + ", ".join(str(path) for path in (options.out, options.json, options.latex) if path))
    return 3 if comparison.left_out else 0


def seed_table(comparison: SeedComparison, other: SeedGroup, differences: dict[str, Difference]) -> Table:
    """Means of the first group and of another one x100, with their spread, and the difference with its interval."""
    first = comparison.groups[0]
    names = "; ".join(f"{it.letter}: {group_names(it)}" for it in (first, other))
    shown = Table(
        title=f"mean x100 \u00b1 standard deviation over the runs, {comparison.protocol['images']} items",
        caption=escape(names) + ". Interval: 95 %, over items and seeds; bold: it does not contain 0",
    )
    heads = (f"{first.letter} ({len(first.runs)} runs)", f"{other.letter} ({len(other.runs)} runs)")
    shown.add_column("")
    for head in (*heads, f"{other.letter} \u2212 {first.letter}", "p"):
        shown.add_column(head, justify="right")
    for name, value in differences.items():
        bold = "[bold]" if is_significant(value) else ""
        shown.add_row(
            name,
            format_mean(first, name),
            format_mean(other, name),
            f"{bold}{format_signed(value.value)} {escape(format_interval(value))}",
            f"{bold}{format_p_value(value)}",
        )
    return shown


def table(comparison: Comparison) -> Table:
    """Scores x100 with their intervals, a row per metric."""
    first = comparison.runs[0]
    shown = Table(
        title=f"scores x100 [95 % interval], {comparison.protocol['images']} items",
        caption=escape("; ".join(f"{m.letter}: {m.run.name}" for m in comparison.runs))
        + ". Bold: the interval does not contain 0",
    )
    shown.add_column("")
    shown.add_column(first.letter, justify="right")
    for measured in comparison.runs[1:]:
        for head in (measured.letter, f"{measured.letter} \u2212 {first.letter}", "p"):
            shown.add_column(head, justify="right")
    for name in comparison.metrics:
        cells = [f"{format_x100(first.scores[name].value)}\n{format_interval(first.scores[name])}"]
        for measured, differences in zip(comparison.runs[1:], comparison.differences, strict=True):
            difference = differences[name]
            bold = "[bold]" if is_significant(difference) else ""
            cells.append(f"{format_x100(measured.scores[name].value)}\n{format_interval(measured.scores[name])}")
            cells += [
                f"{bold}{format_signed(difference.value)}\n{format_interval(difference)}",
                f"{bold}{format_p_value(difference)}",
            ]
        shown.add_row(name, *cells)
    return shown
