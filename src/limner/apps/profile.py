"""`limner profile`: measure what runs cost: size, operations, memory and time."""

import argparse
from dataclasses import asdict

import torch
from rich.table import Table

from limner.apps.shared.arguments import check_outputs, split_decoding
from limner.apps.shared.console import open_console
from limner.apps.shared.decoding import beam_of
from limner.apps.shared.runs import with_inputs
from limner.core.files import write_json
from limner.profiling.measure import Profile, profile
from limner.runs.resolve import resolve_model
from limner.runs.run import load_run

INPUTS = ("frames", "sampling")  # fields of a recipe that may be changed: what a model sees of a video


def run(options: argparse.Namespace, rest: list[str]) -> int:
    from limner.profiling.figure import pareto_figure

    check_outputs(options, options.out, options.figure)
    decoding_changes, changes = split_decoding(rest)
    torch.set_num_threads(options.threads)
    profiles = []
    for folder in options.runs:
        loaded = with_inputs(load_run(resolve_model(folder), options.encoder, options.device), changes, INPUTS)
        profiles.append(
            profile(
                loaded,
                options.media,
                beam_of(options, decoding_changes, loaded.recipe.decoding).bind(loaded.vocabulary),
                repeats=options.repeats,
                batch=options.batch_size,
                memory=not options.no_memory,
                device=options.device,
                encoder=options.encoder,
            )
        )
    open_console().print(table(profiles))
    if options.out:
        write_json(options.out, [{**asdict(p), "total": p.total} for p in profiles])
        print(f"wrote {options.out}")
    if options.figure:
        print(f"wrote {pareto_figure(profiles, options.figure)}")
    return 0


def table(profiles: list[Profile]) -> Table:
    """A column per run."""
    about = profiles[0].about
    columns = Table(
        title=f"one medium at a time, {about['device']}, {about['threads']} threads",
        caption="operations: 2 per multiply-add, of matrix products, convolutions, attention and recurrent layers; "
        "memory: of a new process on the CPU",
        min_width=60,
    )
    columns.add_column("")
    for p in profiles:
        columns.add_column(p.name, justify="right")
    rows = {
        "parameters, encoder (M)": [f"{p.parameters['encoder'] / 1e6:.2f}" for p in profiles],
        "parameters, captioner (M)": [f"{p.parameters['captioner'] / 1e6:.2f}" for p in profiles],
        "run folder (MB)": [f"{p.size / 1e6:.1f}" for p in profiles],
        "operations, encode (G)": [_number(p.operations.get("encode"), 1e9) for p in profiles],
        "operations, caption (G)": [_number(p.operations.get("caption"), 1e9) for p in profiles],
        "read (ms)": [_number(p.latency.get("read")) for p in profiles],
        "encode (ms)": [_number(p.latency.get("encode")) for p in profiles],
        "caption (ms)": [_number(p.latency.get("caption")) for p in profiles],
        "file to sentence (ms)": [f"{p.total:.1f}" if "read" in p.latency else "-" for p in profiles],
        "captions per second": [f"{p.rate:.1f}" for p in profiles],
        "  media at a time": [str(p.batch) for p in profiles],
        "measured on": [p.about["medium"] for p in profiles],
        "beam, cells, words": ["{beam}, {cells}, {words}".format(**p.about) for p in profiles],
        "peak memory (MB)": [_number(p.memory) for p in profiles],
        "CIDEr": ["-" if p.cider is None else f"{100 * p.cider:.1f}" for p in profiles],
    }
    for name, values in rows.items():
        columns.add_row(name, *values)
    return columns


def _number(value: float | None, unit: float = 1.0) -> str:
    """A value in a unit, with two decimals below 10; "-" for None."""
    return "-" if value is None else f"{value / unit:.2f}" if value / unit < 10 else f"{value / unit:.0f}"
