"""`limner train`: train a captioner from a recipe."""

import argparse
import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from limner.apps.shared.arguments import WrongArguments, overrides, refuse_unknown, report_notes
from limner.apps.shared.console import open_console
from limner.apps.shared.runs import read_recipe
from limner.core.plugins import load_entry_points

STATE = "last.safetensors"


def run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.fields is not None:
        return _print_fields(options, rest)
    if not options.recipe:
        raise WrongArguments("which recipe? limner train RECIPE.yaml; limner init DATA writes one for your data")
    changes = overrides(rest)
    if options.seeds and "seed" in dict(changes):
        raise WrongArguments(f"--seeds and --seed are both given: leave out --seed {dict(changes)['seed']}")
    recipe = read_recipe(options.recipe, changes)
    from limner.metrics.report import METRICS
    from limner.training.tracking import Tracking, check_trackers
    from limner.training.train import check_folder, train

    if "validation.metric" in dict(changes) and recipe.validation.metric not in METRICS:
        raise WrongArguments(f"unknown metric '{recipe.validation.metric}'; known are {', '.join(METRICS)}")
    folders = {seed: run_folder(options, seed) for seed in options.seeds or (recipe.seed,)}
    for folder in folders.values():
        check_folder(folder, options.resume)  # all of them before the first one is trained
    check_trackers(options.track)
    watchers: dict[int, Watcher] = {}
    for seed, folder in folders.items():
        options.running = folder  # `interrupted` reads it
        resume = options.resume and (not options.seeds or (folder / STATE).is_file())
        seeded = replace(recipe, seed=seed)
        with Watcher(folder) as watcher, Tracking(options.track, seeded, folder, watcher.warn) as tracking:
            watchers[seed] = watcher
            train(seeded, folder, resume, both(watcher, tracking))
    _leave_process_group()
    if len(watchers) > 1 and is_first_process():
        open_console().print(seeds_table(folders, watchers))
    return 3 if any(watcher.skipped for watcher in watchers.values()) else 0


def both(first: "Watcher", second: Callable[[str, dict[str, Any]], None]) -> Callable[[str, dict[str, Any]], None]:
    """A training callback that calls two."""

    def callback(event: str, facts: dict[str, Any]) -> None:
        second(event, facts)  # before the watcher, which takes facts out of the first event
        first(event, facts)

    return callback


def seeds_table(folders: dict[int, Path], watchers: "dict[int, Watcher]") -> Table:
    """The best validation score of every seed x100, their mean and their standard deviation (n - 1)."""
    best = [100 * watcher.best for watcher in watchers.values()]
    metric = next(iter(watchers.values())).metric
    shown = Table("seed", "run", Column(f"best {metric}", justify="right"), title="best validation scores x100")
    for (seed, folder), value in zip(folders.items(), best, strict=True):
        shown.add_row(str(seed), escape(str(folder)), f"{value:.1f}")
    shown.add_section()
    shown.add_row("", "mean \u00b1 standard deviation", f"{mean(best):.1f} \u00b1 {stdev(best):.1f}")
    return shown


def _print_fields(options: argparse.Namespace, rest: list[str]) -> int:
    """Print the fields of recipes, those of --fields GROUP or all."""
    refuse_unknown([*([options.recipe] if options.recipe else []), *rest])
    from limner.runs.recipe import Recipe
    from limner.runs.recipe_fields import fields_text

    load_entry_points()
    try:
        print(fields_text(Recipe, options.fields, shutil.get_terminal_size((100, 40)).columns))
    except ValueError as error:
        raise WrongArguments(f"--fields: {error}") from error
    return 0


def _leave_process_group() -> None:
    """Close the connections between the processes of torchrun.

    Their threads would otherwise still run while the process ends, which aborts it now and then.  So do those of a
    model that is not yet freed, and of a process that leaves while another one still listens to it.
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def run_folder(options: argparse.Namespace, seed: int | None = None) -> Path:
    """Where a run is written: --out, or runs/ and the name of the recipe; with --seeds "_" and the seed follow."""
    folder = Path(options.out or Path("runs") / Path(options.recipe).stem)
    return folder.with_name(f"{folder.name}_{seed}") if options.seeds and seed is not None else folder


def is_first_process() -> bool:
    """Whether this is the only process, or the first one of torchrun."""
    return int(os.environ.get("RANK", "0")) == 0


def interrupted(options: argparse.Namespace, command: str) -> str:
    """Where the last checkpoint is, and the command that continues from it."""
    state = _state(options)
    if not can_resume(options):
        return f"there is no checkpoint yet; start again with: {command}"
    return f"the last checkpoint is {state} ({_position(state)}); continue with: {command}"


def can_resume(options: argparse.Namespace) -> bool:
    """Whether there is a checkpoint that --resume would continue."""
    return _state(options).is_file()


def _state(options: argparse.Namespace) -> Path:
    """The checkpoint of the run that is being trained; `running` is one of several."""
    return Path(getattr(options, "running", run_folder(options))) / STATE


def _position(state: Path) -> str:
    """The stage, epoch and step of a checkpoint."""
    from safetensors import safe_open

    with safe_open(state, "numpy") as file:
        position = json.loads(file.metadata()["position"])
    return f"stage {position['stage'] + 1}, epoch {position['epoch'] + 1}, step {position['step']}"


class Watcher:
    """Shows a training: a progress bar on a terminal, lines elsewhere, and TensorBoard files in the run folder.

    It is called with the name of an event and its facts.  Of several processes only the first one calls it.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.console = open_console(soft_wrap=True)
        self.live = self.console.is_terminal and is_first_process()
        self.bar = Progress(
            TextColumn("{task.fields[where]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  lr {task.fields[lr]:.1e}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task: Any = None
        self.board: Any = None
        self.stage = -1
        self.last_line = 0.0  # time of the last printed line, in seconds
        self.first_step, self.skipped = 0, 0
        self.metric, self.best = "", float("nan")  # the best validation score, a fraction

    def __enter__(self) -> "Watcher":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        if self.board is not None:
            self.board.close()

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        getattr(self, f"_{event}")(facts)

    def _start(self, facts: dict[str, Any]) -> None:
        problems, self.first_step = facts.pop("problems", []), facts.pop("total_step", 0)
        self.console.print("  ".join(f"{name} {value}" for name, value in facts.items()), markup=False)
        for line in problems[:10]:
            self.console.print(f"  problem in the data: {line}", markup=False)
        if len(problems) > 10:
            self.console.print(f"  ... and {len(problems) - 10} more")

    def _step(self, facts: dict[str, Any]) -> None:
        total = facts["batches"] * facts["epochs"]
        where = f"{_stage(facts)}epoch {facts['epoch'] + 1}/{facts['epochs']}"
        fields = {"where": where, "loss": facts["loss"], "lr": facts["lr"]}
        if self.stage != facts["stage"]:
            self.stage, self.task = facts["stage"], self.bar.add_task("train", total=total, **fields)
        self.bar.update(self.task, completed=facts["epoch"] * facts["batches"] + facts["batch"], **fields)
        if not self.live and time.monotonic() - self.last_line > 30:
            self.last_line = time.monotonic()
            self.console.print(f"{where}  batch {facts['batch']}/{facts['batches']}  loss {facts['loss']:.3f}")
        if facts["step"] % 20 == 0:
            positions = {"step", "total_step", "stage", "stages", "epoch", "epochs", "batch", "batches"}
            self._write_scalars(facts, tuple(name for name in facts if name not in positions), "train")

    def _validation(self, facts: dict[str, Any]) -> None:
        names = dict.fromkeys((facts["metric"], "CIDEr", "BLEU-4"))
        labels = facts.get("data sets", ())
        scores = "  ".join(_scores(facts, name, labels) for name in names)
        self.console.print(
            f"{_stage(facts)}epoch {facts['epoch']}: {scores}  {facts['distinct']} different captions  "
            f'{facts["seconds"]:.0f} s   for example "{facts["example"]}"',
            markup=False,
        )
        of_data_sets = (f"{label}/{name}" for label in labels for name in (*names, "ROUGE-L"))
        self._write_scalars(facts, (*names, "ROUGE-L", "distinct", *of_data_sets), facts["split"])

    def _warning(self, facts: dict[str, Any]) -> None:
        self.warn(facts["text"])

    def warn(self, text: str) -> None:
        """Print a warning above the progress bar."""
        self.console.print(f"[bold yellow]warning:[/] {escape(text)}")

    def _end(self, facts: dict[str, Any]) -> None:
        self.skipped, self.metric, self.best = facts["skipped"], facts["metric"], facts["best"]
        self.console.print(
            f"run folder: {self.folder}   best {facts['metric']} {100 * facts['best']:.1f}", markup=False
        )
        report_notes(facts["notes"])

    def _write_scalars(self, facts: dict[str, Any], names: tuple[str, ...], group: str) -> None:
        """Write facts to TensorBoard, scores as fractions."""
        if self.folder is None:
            return
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            # drops what an interrupted run wrote after its last checkpoint
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first_step + 1)
        for name in dict.fromkeys(names):
            if name in facts:
                self.board.add_scalar(f"{group}/{name}", facts[name], facts["total_step"])


def _scores(facts: dict[str, Any], name: str, labels: Sequence[str]) -> str:
    """A score x100, as `limner evaluate` prints it, and behind it that of each of several data sets."""
    each = ", ".join(f"{label} {100 * facts[f'{label}/{name}']:.1f}" for label in labels)
    return f"{name} {100 * facts[name]:.1f}{f' ({each})' if each else ''}"


def _stage(facts: dict[str, Any]) -> str:
    """ "stage 2/3 ", or "" when there is a single one."""
    return f"stage {facts['stage'] + 1}/{facts['stages']} " if facts["stages"] > 1 else ""
