"""`limner merge`: one output of the parts that several jobs made."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    refuse_unknown,
    report_failed,
    report_unreadable,
)
from limner.apps.shared.caption_parts import merged_rows, record_path
from limner.apps.shared.journal import METADATA, WRITERS, check_output, printable, to_csv
from limner.core.files import check_writable, write_text
from limner.core.locks import lock_output


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    folders = [path for path in options.parts if path.is_dir()]
    if folders and len(folders) < len(options.parts):
        other = next(path for path in options.parts if not path.is_dir())
        raise WrongArguments(f"{folders[0]} is a folder and {other} is not: merge captions and features separately")
    if folders:
        return _merge_stores(folders, options.out, options.overwrite)
    if options.out.suffix not in WRITERS or options.out.name == METADATA or options.out.is_dir():
        raise WrongArguments(f"--out {options.out}: captions are merged into FILE{' or FILE'.join(WRITERS)}")
    with lock_output(options.out):
        return _merge_captions(options)


def _merge_captions(options: argparse.Namespace) -> int:
    """Merge outputs of `limner caption`, while the lock of the output is held."""
    out: Path = options.out
    check_output(out, resume=False, overwrite=options.overwrite)
    check_outputs(options, out, inputs=options.parts)
    rows, csv_safe, problems = merged_rows(options.parts)
    write_text(out, to_csv(rows, safe=csv_safe) if out.suffix == ".csv" else WRITERS[out.suffix](rows))
    record_path(out).unlink(missing_ok=True)  # of a part that had this name
    print(f"{printable(str(out))}: {len(rows)} captions of {len(options.parts)} parts")
    report_unreadable(problems.unreadable)
    report_failed(problems.failed)
    return 3 if problems.unreadable or problems.failed else 0


def _merge_stores(folders: Sequence[Path], out: Path, overwrite: bool) -> int:
    """Merge stores of `limner extract`."""
    from limner.data.store_files import INDEX
    from limner.data.store_parts import merge_stores

    if os.path.realpath(out) in {os.path.realpath(folder) for folder in folders}:
        raise ValueError(f"{out} is an input, which the output would replace: choose another name for the output")
    if out.exists() and not (out.is_dir() and ((out / INDEX).is_file() or not any(out.iterdir()))):
        raise ValueError(f"{out} is not a feature store: choose another name for --out")
    if (out / INDEX).is_file() and not overwrite:
        raise FileExistsError(f"{out} exists: give --overwrite to replace it, or choose another name")
    check_writable(out)
    count, failures = merge_stores(folders, out)
    print(f"{printable(str(out))}: {count} entries of {len(folders)} parts")
    report_unreadable([f"{id}: {reason}" for id, reason in failures.items()])
    return 3 if failures else 0
