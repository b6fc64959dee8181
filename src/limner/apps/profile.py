"""What runs cost: limner profile RUN [RUN ...] --picture pareto.png

Parameters, operations, memory, time from file to sentence by stage, and captions per second.  The picture sets them
against CIDEr, which `limner evaluate` leaves in a run's folder.  Memory is that of a process on the CPU, whatever the
--device.  --frames N and --sampling.FIELD are taken anew, and --model.side teacher or student of SFT.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from limner.apps.shared.arguments import add_decoding, decoding_of, positive
from limner.apps.shared.runs import elsewhere
from limner.core.files import write_json
from limner.profiling.measure import Profile, profile
from limner.runs.run import load_run

SEEN = ("frames", "sampling")  # of a recipe: what of a clip is seen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--media", help="picture or clip to measure with (default: one of noise)")
    parser.add_argument("--repeats", type=positive, default=10, metavar="N", help="of which the median counts")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="for captions per second")
    parser.add_argument("--threads", type=positive, default=1, metavar="N")
    parser.add_argument("--no-memory", action="store_true", help="start no process to measure memory")
    parser.add_argument("--picture", type=Path, help="Pareto picture (.png, .pdf, .svg)")
    parser.add_argument("--out", type=Path, help="all numbers, as .json")
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the runs' pretrained encoder lies now")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    add_decoding(parser)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    from limner.profiling.figure import pareto_figure

    torch.set_num_threads(options.threads)
    profiles = []
    for folder in options.runs:
        loaded = elsewhere(load_run(folder, options.encoder, options.device), rest, SEEN)
        profiles.append(
            profile(
                loaded,
                options.media,
                decoding_of(options, loaded.recipe.beam),
                repeats=options.repeats,
                batch=options.batch_size,
                memory=not options.no_memory,
                device=options.device,
                encoder=options.encoder,
            )
        )
    Console().print(table(profiles))
    if options.out:
        write_json(options.out, [{**asdict(p), "total": p.total} for p in profiles])
        print(f"wrote {options.out}")
    if options.picture:
        print(f"wrote {pareto_figure(profiles, options.picture)}")
    return 0


def table(profiles: list[Profile]) -> Table:
    """A column per run."""
    about = profiles[0].about
    made = Table(
        title=f"one medium at a time, {about['device']}, {about['threads']} threads",
        caption="operations: 2 per multiply-add, of matrix products, convolutions, attention and recurrent layers; "
        "memory: of a new process on the CPU",
        min_width=60,
    )
    made.add_column("")
    for p in profiles:
        made.add_column(p.name, justify="right")
    rows = {
        "parameters, encoder (M)": [f"{p.parameters['encoder'] / 1e6:.2f}" for p in profiles],
        "parameters, captioner (M)": [f"{p.parameters['captioner'] / 1e6:.2f}" for p in profiles],
        "run folder (MB)": [f"{p.size / 1e6:.1f}" for p in profiles],
        "operations, encode (G)": [_of(p.operations.get("encode"), 1e9) for p in profiles],
        "operations, caption (G)": [_of(p.operations.get("caption"), 1e9) for p in profiles],
        "read (ms)": [_of(p.latency.get("read")) for p in profiles],
        "encode (ms)": [_of(p.latency.get("encode")) for p in profiles],
        "caption (ms)": [_of(p.latency.get("caption")) for p in profiles],
        "file to sentence (ms)": [f"{p.total:.1f}" if "read" in p.latency else "-" for p in profiles],
        "captions per second": [f"{p.rate:.1f}" for p in profiles],
        "  media at a time": [str(p.batch) for p in profiles],
        "measured on": [p.about["medium"] for p in profiles],
        "beam, cells, words": ["{beam}, {cells}, {words}".format(**p.about) for p in profiles],
        "peak memory (MB)": [_of(p.memory) for p in profiles],
        "CIDEr": ["-" if p.cider is None else f"{p.cider:.3f}" for p in profiles],
    }
    for name, values in rows.items():
        made.add_row(name, *values)
    return made


def _of(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.2f}" if value / unit < 10 else f"{value / unit:.0f}"
