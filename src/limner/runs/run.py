"""A run folder: everything a trained captioner needs, and the state to go on training.

recipe.json, vocabulary.json, run.json (sizes, encoder's provenance, best score), model.safetensors (best weights),
last.safetensors (resumable state), log.jsonl, tensorboard/, captions.json, scores.json, and of an objective with
parameters of its own objective.safetensors (what they were beside the best weights).  No pickles.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.files import read_json, write_json
from limner.core.migration import migrate_tensors
from limner.core.tensors import load_state_strictly, load_tensors, save_tensors
from limner.core.version import __version__
from limner.data.store import encoder_identity, provenance_differences
from limner.encoders import Detector, DetectorConfig, Pretrained, PretrainedConfig, build_encoder
from limner.encoders.encoder import Encoder
from limner.encoders.learnt import WHERE, split_encoder_weights
from limner.models import build_model
from limner.models.captioner import Captioner, FromPixels
from limner.runs.recipe import Overrides, Recipe, load_recipe, save_recipe
from limner.text.load import load_vocabulary
from limner.text.vocabulary import Vocabulary

FORMAT = 2


@dataclass(frozen=True)
class RunInfo:
    """What a run knows beyond its recipe."""

    feature_dim: int
    encoder: dict[str, Any]  # provenance
    encoder_trained: bool = False  # its weights are in model.safetensors under "encoder."
    channels: str = "RGB"
    plugins: tuple[str, ...] = ()  # packages whose captioner, encoder ... the recipe names
    format: int = FORMAT
    version: str = __version__


@dataclass(frozen=True)
class Run:
    """A loaded run: `model` captions features of `encoder`."""

    folder: Path
    recipe: Recipe
    vocabulary: Vocabulary
    info: RunInfo
    model: Captioner
    encoder: Encoder | None


def create_run(folder: str | Path, recipe: Recipe, vocabulary: Vocabulary, info: RunInfo) -> None:
    """Write the descriptive files of a run."""
    folder = Path(folder)
    save_recipe(recipe, folder / "recipe.json")
    vocabulary.save(folder / "vocabulary.json")
    write_json(folder / "run.json", asdict(info))


def load_run(folder: str | Path, encoder_source: str = "", device: str = "cpu") -> Run:
    """Load a run for use on `device`.

    `encoder_source` replaces the folder or hub id of a pretrained encoder, a detector or a run that has moved.  Raises
    ValueError when the encoder's weights are not the ones the run was trained with, FileNotFoundError when it is no run
    folder.
    """
    folder = Path(folder)
    info = _read_info(folder)
    recipe = _load_recipe(folder, info)
    vocabulary = load_vocabulary(folder / "vocabulary.json")
    recipe = replace(recipe, decoding=recipe.decoding.bind(vocabulary))
    tensors = load_weights(folder)
    model = build_model(recipe.model, len(vocabulary), info.feature_dim)
    trained, captioners = split_encoder_weights(tensors)
    load_state_strictly(model, captioners, folder / "model.safetensors")
    encoder = _load_encoder(folder, recipe, info, trained, encoder_source)
    return Run(folder, recipe, vocabulary, info, model.to(device).eval(), encoder.to(device) if encoder else None)


def _load_recipe(folder: Path, info: RunInfo) -> Recipe:
    try:
        return load_recipe(folder / "recipe.json")
    except ValueError as error:
        if not info.plugins:
            raise
        names = ", ".join(info.plugins)
        raise ValueError(
            f"{error}.  The run was trained with the plug-in {names}: install it, or give --plugin {names}"
        ) from error


INPUT_FIELDS = ("data", "features", "feature_rows", "frames", "sampling")  # may differ after training


def with_recipe_fields(run: Run, changes: Overrides) -> Run:
    """A run whose data lie elsewhere by now: fields of its recipe below INPUT_FIELDS by their dotted names.

    Raises ValueError for any other field, since it would not fit the weights.
    """
    names = [name for name, _ in (changes.items() if isinstance(changes, Mapping) else changes)]
    if wrong := [name for name in names if name.split(".")[0] not in INPUT_FIELDS]:
        raise ValueError(f"{wrong[0]} cannot change after training; only {', '.join(INPUT_FIELDS)} can be given anew")
    if not names:
        return run
    recipe = load_recipe(run.folder / "recipe.json", changes)
    return replace(run, recipe=replace(recipe, decoding=run.recipe.decoding))  # its words are bound already


def load_weights(folder: str | Path) -> dict[str, Tensor]:
    """`model.safetensors` of a run folder of any format."""
    tensors, _ = load_tensors(Path(folder) / "model.safetensors")
    return migrate_tensors(tensors)


def load_ensemble_members(first: Run, folders: Sequence[str | Path], encoder_source: str = "", device: str = "cpu") -> list[Run]:
    """Load the further members of an ensemble with `first`; `encoder_source` is for those whose encoder is `first`'s
    too."""
    shared = first.info.encoder.get("sha256")
    same = [bool(shared) and _read_info(Path(folder)).encoder.get("sha256") == shared for folder in folders]
    return [load_run(folder, encoder_source if its else "", device) for folder, its in zip(folders, same, strict=True)]


def _read_info(folder: Path) -> RunInfo:
    if not (folder / "run.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no run.json")
    saved = read_json(folder / "run.json")
    if not isinstance(saved, dict) or not isinstance(saved.get("format"), int):
        raise ValueError(f"{folder / 'run.json'} does not describe a run: it has no format number")
    if saved["format"] > FORMAT:  # asked first: a newer format may have fields that RunInfo does not know
        raise ValueError(f"{folder} has run format {saved['format']}; this limner reads up to {FORMAT}: update limner")
    try:
        return RunInfo(**{**saved, "plugins": tuple(saved.get("plugins", ()))})
    except TypeError as error:
        raise ValueError(f"{folder / 'run.json'} does not describe a run ({error})") from error


def _load_encoder(
    folder: Path, recipe: Recipe, info: RunInfo, trained: dict[str, Tensor], source: str
) -> Encoder | None:
    if not info.encoder:
        return None
    config = recipe.encoder
    if isinstance(config, PretrainedConfig | DetectorConfig):
        local = folder / "encoder"
        chosen = source or (str(local) if local.is_dir() else config.source)
        config = replace(config, source=chosen)
    elif config.source:  # needed only where the run has no copy
        config = replace(config, source="" if trained else source or config.source)
    try:
        encoder = build_encoder(config)
    except ValueError as error:
        hint = "; --encoder says where it lies now" if config.source else ""
        raise ValueError(f"{error}{hint}") from error
    stored, found = encoder_identity(info.encoder), encoder_identity(json.loads(json.dumps(encoder.provenance())))
    if trained:  # the hash is that of the weights it began with
        load_state_strictly(encoder, trained, folder / "model.safetensors")
        stored, found = {**stored, "sha256": ""}, {**found, "sha256": ""}
    if lines := provenance_differences(stored, found, "the run"):
        raise ValueError(
            f"the encoder {config.source or config.name} is not the one that {folder} was trained with "
            f"({info.encoder.get('source')}): {'; '.join(lines)}; give the right folder or hub id with --encoder"
        )
    return encoder.eval()


def run_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """What model.safetensors holds: the captioner's tensors, and under "encoder." those of an encoder whose weights
    are nowhere else: a trained one, or one of our own."""
    if not isinstance(model, FromPixels):
        return model.state_dict()
    tensors = dict(model.captioner.state_dict())
    trained = any(parameter.requires_grad for parameter in model.encoder.parameters())
    if trained or not isinstance(model.encoder, Pretrained | Detector):
        tensors |= {WHERE + name: value for name, value in model.encoder.state_dict().items()}
    return tensors


def load_run_state_dict(model: nn.Module, tensors: dict[str, Tensor], where: str | Path) -> None:
    """The inverse of `run_state_dict`."""
    captioner = model.captioner if isinstance(model, FromPixels) else model
    theirs, own = split_encoder_weights(tensors)
    load_state_strictly(captioner, own, where)
    if theirs and isinstance(model, FromPixels):
        load_state_strictly(model.encoder, theirs, where)


def save_objective(objective: nn.Module, folder: str | Path, name: str) -> None:
    """Beside the weights of the captioner that it was trained with; `name` is its name in a recipe."""
    save_tensors(Path(folder) / "objective.safetensors", objective.state_dict(), {"name": name})


def load_objective(objective: nn.Module, folder: str | Path, name: str) -> bool:
    """Take over what a run has kept; False when `folder` keeps nothing by that name (or is "")."""
    path = Path(folder) / "objective.safetensors"
    if not folder or not path.is_file():
        return False
    tensors, metadata = load_tensors(path)
    if metadata.get("name") != name:
        return False
    load_state_strictly(objective, tensors, path)
    return True


def checkpoint_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, objective: object = None) -> dict[str, Tensor]:
    """Weights, optimiser moments and this process's random state as one flat dict of tensors; with the parameters of
    an objective that has some."""
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    if isinstance(objective, nn.Module):
        tensors |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return tensors | rng_state()


def rng_state(rank: int = 0) -> dict[str, Tensor]:
    """This process's random state; that of the first process has the plain names."""
    ending = f".{rank}" if rank else ""
    state = {f"rng.cpu{ending}": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"rng.cuda{ending}"] = torch.cuda.get_rng_state()
    return state


def restore_checkpoint(
    tensors: dict[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int = 0,
    objective: object = None,
) -> None:
    """The inverse of `checkpoint_tensors`.  A process that was not there when the state was saved takes the first one's
    random state."""
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    load_state_strictly(module, weights, "last.safetensors")
    if isinstance(objective, nn.Module):
        own = {key.removeprefix("objective."): value for key, value in tensors.items() if key.startswith("objective.")}
        load_state_strictly(objective, own, "last.safetensors")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    ending = f".{rank}" if f"rng.cpu.{rank}" in tensors else ""
    torch.set_rng_state(tensors[f"rng.cpu{ending}"])
    if f"rng.cuda{ending}" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"rng.cuda{ending}"])


def append_log(folder: Path, row: dict[str, Any]) -> None:
    """One JSON object per line in log.jsonl."""
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
