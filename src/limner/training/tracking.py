"""Experiment trackers: the events of a training, in wandb, mlflow, trackio or TensorBoard, by `accelerate.tracking`.

    with Tracking(["wandb"], recipe, folder, warn=print) as tracking:
        train(recipe, folder, callback=tracking)

A tracker must not cost a training: one that fails is named in a warning, and is left out from then on.
"""

import importlib.util
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import tracking as trackers

from limner.core.files import read_json, write_json
from limner.runs.recipe import Recipe
from limner.training.session import round_for_log

# tracker -> what pip installs
TRACKERS = {"wandb": "wandb", "mlflow": "mlflow-skinny", "trackio": "trackio", "tensorboard": "tensorboard"}
IDS = "tracking.json"  # in the run folder: tracker -> id of its run, with which --resume continues
EVERY = 50  # steps, as in log.jsonl
POSITIONS = {"step", "total_step", "stage", "stages", "epoch", "epochs", "batch", "batches"}
NOT_SCORES = POSITIONS | {"split", "seconds", "metric", "example", "data sets"}


def check_trackers(names: Sequence[str]) -> None:
    """Raise ImportError, with the line that installs it, for a tracker whose package is missing.

    Raises ValueError, which lists the known ones, for an unknown name.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker '{name}'; known are {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"--track {name} needs {name}: pip install {TRACKERS[name]}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return a tree of dictionaries and lists with dotted names, as the fields of a recipe have on the command line.

    >>> flatten({"seed": 1, "stages": [{"lr": 0.1}], "features": None})
    {'seed': 1, 'stages.0.lr': 0.1, 'features': ''}
    """
    flat: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat |= flatten({str(k): item for k, item in enumerate(value)}, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value or "")
    return flat


class Tracking:
    """A training callback that passes the recipe, losses and scores to trackers.

    Losses are those of log.jsonl: every 50th step and the last one of an epoch, under `train/`; scores are fractions,
    under the name of their split.  The x-axis counts the optimiser steps of all stages.  `warn` gets a line for each
    tracker that failed.  A run that is resumed continues the run of its tracker.
    """

    def __init__(self, names: Sequence[str], recipe: Recipe, folder: Path, warn: Callable[[str], None]):
        self.names, self.recipe, self.folder, self.warn = tuple(dict.fromkeys(names)), recipe, folder, warn
        self.running: dict[str, trackers.GeneralTracker] = {}
        self.started = False

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self.running):
            self._try(name, lambda tracker: tracker.finish())

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        if not self.started and "total_step" in facts:  # the first event of a session that is complete
            self._start(facts["total_step"])
        if event == "step" and (facts["step"] % EVERY == 0 or facts["batch"] == facts["batches"]):
            self._log("train", facts, POSITIONS)
        elif event == "validation":
            self._log(facts["split"], facts, NOT_SCORES)

    def _start(self, step: int) -> None:
        """Start the trackers with the recipe as their configuration; `step` is the one that a run continues from."""
        self.started = True
        ids = self._run_ids()
        config = flatten(asdict(self.recipe))
        for name in self.names:
            try:
                self.running[name] = tracker = _make(name, self.folder, ids[name], step)
                tracker.start()
                if not ids[name]:
                    ids[name] = getattr(getattr(tracker.tracker, "info", None), "run_id", "")  # mlflow's own
                    write_json(self.folder / IDS, ids)
                tracker.store_init_configuration(config)
            except Exception as error:
                self._stop(name, error)

    def _run_ids(self) -> dict[str, str]:
        """Return the id of each tracker's run: that of the run folder, else a new one ("": the tracker makes it)."""
        path = self.folder / IDS
        saved: Any = {}
        try:
            saved = read_json(path) if path.is_file() else {}
        except (OSError, ValueError) as error:
            self.warn(f"{error}: the trackers begin new runs")
        made = {name: "" if name == "mlflow" else uuid.uuid4().hex[:12] for name in self.names}
        ids = made | {name: id for name, id in dict(saved).items() if isinstance(id, str)}
        if self.names:
            write_json(path, ids)
        return ids

    def _log(self, group: str, facts: Mapping[str, Any], left_out: set[str]) -> None:
        """Pass the numbers among the facts of an event to all trackers."""
        values = {
            f"{group}/{name}": round_for_log(value)
            for name, value in facts.items()
            if name not in left_out and isinstance(value, int | float)
        }
        values |= {"epoch": facts["epoch"], "stage": facts["stage"]}
        for name in list(self.running):
            self._try(name, lambda tracker: tracker.log(values, step=facts["total_step"]))

    def _try(self, name: str, action: Callable[[trackers.GeneralTracker], None]) -> None:
        try:
            action(self.running[name])
        except Exception as error:  # of any kind: networks, disks, databases, changed interfaces
            self._stop(name, error)

    def _stop(self, name: str, error: Exception) -> None:
        """Leave a tracker out from now on, and say why."""
        self.running.pop(name, None)
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        self.warn(f"{name} failed and gets nothing more ({reason}); training goes on, and log.jsonl has everything")


def _make(name: str, folder: Path, id: str, step: int) -> trackers.GeneralTracker:
    """Build a tracker that has not been started; its run has the name of the run folder, in the project limner."""
    title, project = folder.resolve().name, os.environ.get(f"{name.upper()}_PROJECT", "limner")
    if name == "wandb":
        return trackers.WandBTracker(
            project, name=title, id=id, resume="allow", dir=str(folder), settings={"console": "off"}
        )
    if name == "mlflow":
        return trackers.MLflowTracker(project, run_name=title, run_id=id or None)
    if name == "trackio":
        return trackers.TrackioTracker(project, name=f"{title}-{id}", resume="allow")
    # drops what an interrupted run wrote after its last checkpoint
    return trackers.TensorBoardTracker("tracked", logging_dir=str(folder / "tensorboard"), purge_step=step + 1)
