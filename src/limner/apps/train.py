"""Train a recipe: limner train RECIPE.yaml [--dotted.field value ...]

Every field of the recipe can be overridden by its dotted name, for example --stages.0.lr 1e-4 or --seed 3.
Several processes: torchrun --nproc_per_node 2 -m limner train RECIPE.yaml
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from limner.apps.shared.arguments import overrides
from limner.runs.recipe import load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="YAML file (or the recipe.json of a run)")
    parser.add_argument("--out", help="run folder (default: runs/<name of the recipe>)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run exactly where it stopped")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    recipe = load_recipe(options.recipe, overrides(rest))
    folder = Path(options.out or Path("runs") / Path(options.recipe).stem)
    from limner.training.train import train

    with Watcher(folder) as watcher:
        train(recipe, folder, options.resume, watcher)
    return 3 if watcher.skipped else 0


class Watcher:
    """Shows training as it goes: a live bar on a terminal, lines elsewhere; TensorBoard beside the log.

    Of several processes only the first one's is told of anything.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.console = Console(soft_wrap=True)
        self.live = self.console.is_terminal and int(os.environ.get("RANK", "0")) == 0
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
        self.stage, self.spoken, self.begun, self.skipped = -1, 0.0, 0, 0

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
        problems, self.begun = facts.pop("problems", []), facts.pop("total_step", 0)
        self.console.print("  ".join(f"{name} {value}" for name, value in facts.items()))
        for line in problems[:10]:
            self.console.print(f"  skipped or mended: {line}")
        if len(problems) > 10:
            self.console.print(f"  ... and {len(problems) - 10} more")

    def _step(self, facts: dict[str, Any]) -> None:
        total = facts["batches"] * facts["epochs"]
        where = f"{_stage(facts)}epoch {facts['epoch'] + 1}/{facts['epochs']}"
        fields = {"where": where, "loss": facts["loss"], "lr": facts["lr"]}
        if self.stage != facts["stage"]:
            self.stage, self.task = facts["stage"], self.bar.add_task("train", total=total, **fields)
        self.bar.update(self.task, completed=facts["epoch"] * facts["batches"] + facts["batch"], **fields)
        if not self.live and time.monotonic() - self.spoken > 30:
            self.spoken = time.monotonic()
            self.console.print(f"{where}  batch {facts['batch']}/{facts['batches']}  loss {facts['loss']:.3f}")
        if facts["step"] % 20 == 0:
            places = {"step", "total_step", "stage", "stages", "epoch", "epochs", "batch", "batches"}
            self._scalars(facts, tuple(name for name in facts if name not in places), "train")

    def _validation(self, facts: dict[str, Any]) -> None:
        names = dict.fromkeys((facts["metric"], "CIDEr", "BLEU-4"))
        self.console.print(
            f"{_stage(facts)}epoch {facts['epoch']}: {'  '.join(f'{name} {facts[name]:.4f}' for name in names)}  "
            f'{facts["distinct"]} different captions  {facts["seconds"]:.0f} s   e.g. "{facts["example"]}"'
        )
        self._scalars(facts, (*names, "ROUGE-L", "distinct"), facts["split"])

    def _warning(self, facts: dict[str, Any]) -> None:
        self.console.print(f"[bold yellow]warning:[/] {facts['text']}")

    def _end(self, facts: dict[str, Any]) -> None:
        self.skipped = facts["skipped"]
        self.console.print(f"run folder: {self.folder}   best {facts['metric']} {facts['best']:.4f}")

    def _scalars(self, facts: dict[str, Any], names: tuple[str, ...], group: str) -> None:
        if self.folder is None:
            return
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            # what an interrupted run wrote after its last checkpoint is forgotten
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.begun + 1)
        for name in dict.fromkeys(names):
            if name in facts:
                self.board.add_scalar(f"{group}/{name}", facts[name], facts["total_step"])


def _stage(facts: dict[str, Any]) -> str:
    """Which stage, when there are several."""
    return f"stage {facts['stage'] + 1}/{facts['stages']} " if facts["stages"] > 1 else ""
