"""Train a recipe: limner train RECIPE.yaml [--dotted.field value ...]

Every field of the recipe can be overridden by its dotted name, for example --stages.0.lr 1e-4 or --seed 3.
Several processes: torchrun --nproc_per_node 2 -m limner train RECIPE.yaml
"""

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from limner.apps.arguments import overrides
from limner.recipe import load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="YAML file (or the recipe.json of a run)")
    parser.add_argument("--out", help="run folder (default: runs/<name of the recipe>)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run exactly where it stopped")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    recipe = load_recipe(options.recipe, overrides(rest))
    folder = Path(options.out or Path("runs") / Path(options.recipe).stem)
    from limner.train.training import train

    with Watcher(folder) as watcher:
        train(recipe, folder, options.resume, watcher)
    watcher.console.print(f"run folder: {folder}   best {recipe.validation.metric} {watcher.best:.4f}")
    return 0


class Watcher:
    """Shows training as it goes: a live bar on a terminal, lines elsewhere; TensorBoard beside the log."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.console = Console(soft_wrap=True)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
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
        self.best, self.spoken = float("-inf"), 0.0

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
        problems = facts.pop("problems", [])
        self.console.print("  ".join(f"{name} {value}" for name, value in facts.items()))
        for line in problems[:10]:
            self.console.print(f"  skipped or mended: {line}")
        if len(problems) > 10:
            self.console.print(f"  ... and {len(problems) - 10} more")

    def _step(self, facts: dict[str, Any]) -> None:
        total = facts["batches"] * facts["epochs"]
        fields = {"epoch": f"{facts['epoch'] + 1}/{facts['epochs']}", "loss": facts["loss"], "lr": facts["lr"]}
        if self.task is None or self.bar.tasks[self.task].total != total:
            self.task = self.bar.add_task("train", total=total, **fields)
        self.bar.update(self.task, completed=facts["epoch"] * facts["batches"] + facts["batch"], **fields)
        if not self.live and time.monotonic() - self.spoken > 30:
            self.spoken = time.monotonic()
            self.console.print(
                f"epoch {fields['epoch']}  batch {facts['batch']}/{facts['batches']}  loss {facts['loss']:.3f}"
            )
        if facts["step"] % 20 == 0:
            self._scalars(facts, ("loss", "xe", "doubly_stochastic", "lr", "grad_norm"), "train")

    def _validation(self, facts: dict[str, Any]) -> None:
        self.best = max(self.best, facts["CIDEr"])
        self.console.print(
            f"epoch {facts['epoch']}: CIDEr {facts['CIDEr']:.4f}  BLEU-4 {facts['BLEU-4']:.4f}  "
            f'{facts["distinct"]} different captions  {facts["seconds"]:.0f} s   e.g. "{facts["example"]}"'
        )
        self._scalars(facts, ("CIDEr", "BLEU-4", "ROUGE-L", "distinct"), facts["split"])

    def _warning(self, facts: dict[str, Any]) -> None:
        self.console.print(f"[bold yellow]warning:[/] {facts['text']}")

    def _scalars(self, facts: dict[str, Any], names: tuple[str, ...], group: str) -> None:
        if self.folder is None:
            return
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder / "tensorboard"))
        for name in names:
            if name in facts:
                self.board.add_scalar(f"{group}/{name}", facts[name], facts["step"])
