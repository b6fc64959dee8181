"""`limner compare`: compare runs on the same images or videos."""

import argparse
import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    refuse_unknown,
)
from limner.apps.shared.console import open_console
from limner.comparison.compare import Comparison, compare, to_json
from limner.comparison.compared_runs import (
    locate_media,
    read_compared_runs,
    references_from_file,
    references_from_runs,
)
from limner.comparison.formatting import format_interval, format_p_value, format_signed, format_x100, is_significant
from limner.comparison.latex import latex_table
from limner.comparison.page import comparison_page
from limner.core.files import write_json, write_text

MOST = 26  # runs: each is called by a letter


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    if not 2 <= len(options.runs) <= MOST:
        raise WrongArguments(f"a comparison takes 2 to {MOST} runs, got {len(options.runs)}")
    seen: set[Path] = set()
    for path in map(Path, options.runs):
        if path.resolve() in seen:
            raise WrongArguments(f"{path} is given twice; a comparison takes different runs")
        seen.add(path.resolve())
    read = [*options.runs, *([options.references] if options.references else [])]
    check_outputs(options, options.out, options.json, options.latex, inputs=read)
    runs = read_compared_runs(options.runs)
    media = references_from_file(options.references) if options.references else references_from_runs(runs)
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
