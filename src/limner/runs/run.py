"""Run folders: everything that a trained captioner needs, as JSON and safetensors.  No pickles.

recipe.json            the recipe
vocabulary.json        the words
run.json               RunInfo: sizes, the encoder's provenance, plug-ins
model.safetensors      the weights with the best validation score
objective.safetensors  parameters of the objective beside those weights, if it has any
last.safetensors       the checkpoint that training resumes from (`limner.runs.checkpoint`)
tracking.json          ids of the run in experiment trackers (`limner train --track`)
calibration.json       how sure the model's captions are (`limner calibrate`), if it was calibrated
log.jsonl, tensorboard/, captions.json, scores.json
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from limner.core.addresses import refuse_address
from limner.core.files import read_json, write_json
from limner.core.messages import short_repr
from limner.core.migration import migrate_tensors
from limner.core.tensors import load_state_strictly, load_tensors, save_tensors
from limner.core.version import __version__
from limner.data.datasets import data_parts
from limner.data.store import encoder_identity, provenance_differences
from limner.decode.confidence import FILE as CALIBRATION
from limner.encoders import Detector, DetectorConfig, Pretrained, PretrainedConfig, build_encoder
from limner.encoders.encoder import Encoder
from limner.encoders.trained import ENCODER_PREFIX, split_encoder_weights
from limner.models import build_model
from limner.models.captioner import Captioner, FromPixels
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import Overrides, load_recipe, save_recipe
from limner.text.load import load_vocabulary
from limner.text.vocabulary import Vocabulary

IMAGE_DATASETS = {  # data sets without clips
    *("coco", "flickr8k", "flickr30k", "nocaps", "textcaps", "vizwiz", "cocotalk", "show_attend_tell"),
}
CLIP_DATASETS = {"msrvtt", "msvd", "vatex", "sftcap", "frames"}  # data sets without images
FORMAT = 3  # 3: run.json tells what the run was trained on


@dataclass(frozen=True)
class RunInfo:
    """Facts about a run that are not in its recipe; the content of run.json."""

    feature_dim: int  # channels D of a cell
    encoder: dict[str, Any]  # the encoder's provenance; empty when it is not known
    encoder_trained: bool = False  # True: model.safetensors holds the encoder's weights, under "encoder."
    channels: str = "RGB"
    plugins: tuple[str, ...] = ()  # packages that register what the recipe names
    media: str = ""  # what it was trained on: images or clips; "" is not known (see `limner.runs.trained_media`)
    format: int = FORMAT
    version: str = __version__  # version of limner


@dataclass(frozen=True)
class Run:
    """A loaded run: `encoder` turns media into features (None: it is not known), `model` captions them."""

    folder: Path
    recipe: Recipe
    vocabulary: Vocabulary
    info: RunInfo
    model: Captioner
    encoder: Encoder | None


def create_run(folder: str | Path, recipe: Recipe, vocabulary: Vocabulary, info: RunInfo) -> None:
    """Write recipe.json, vocabulary.json and run.json of a run; a calibration of other weights is removed."""
    folder = Path(folder)
    (folder / CALIBRATION).unlink(missing_ok=True)
    save_recipe(recipe, folder / "recipe.json")
    vocabulary.save(folder / "vocabulary.json")
    write_json(folder / "run.json", asdict(info))


def load_run(folder: str | Path, encoder_source: str = "", device: str = "cpu") -> Run:
    """Load a run of any format onto `device`, in evaluation mode.

    `encoder_source` replaces the path or hub id in `encoder.source` of the recipe (a pretrained encoder, a detector or
    a run that has moved).
    Raises FileNotFoundError when it is no run folder, ValueError when a file is damaged, of a newer format, or when the
    encoder's weights are not those that the run was trained with.
    """
    folder = Path(folder)
    info = read_info(folder)
    recipe = _load_recipe(folder, info)
    vocabulary = load_vocabulary(folder / "vocabulary.json")
    recipe = replace(recipe, decoding=recipe.decoding.bind(vocabulary))
    info = replace(info, media=info.media or media_of_data(recipe))
    tensors = load_weights(folder)
    model = build_model(recipe.model, len(vocabulary), info.feature_dim)
    encoder_weights, captioner_weights = split_encoder_weights(tensors)
    load_state_strictly(model, captioner_weights, folder / "model.safetensors")
    encoder = _load_encoder(folder, recipe, info, encoder_weights, encoder_source)
    return Run(folder, recipe, vocabulary, info, model.to(device).eval(), encoder.to(device) if encoder else None)


def media_of_data(recipe: Recipe) -> str:
    """What a run of format 1 or 2 was trained on, by the names of its data sets: images, clips, or "" for others."""
    names = {part.name for part in data_parts(recipe.data).values()}
    return "images" if names <= IMAGE_DATASETS else "clips" if names <= CLIP_DATASETS else ""


def _load_recipe(folder: Path, info: RunInfo) -> Recipe:
    """Read recipe.json.  The error for an unknown name says which plug-in the run was trained with."""
    try:
        return load_recipe(folder / "recipe.json")
    except ValueError as error:
        if not info.plugins:
            raise
        names = ", ".join(info.plugins)
        raise ValueError(
            f"{error}.  The run was trained with the plug-in {names}: install it, or give --plugin {names}"
        ) from error


INPUT_FIELDS = ("data", "features", "feature_rows", "frames", "sampling")  # fields that may change after training


def with_recipe_fields(run: Run, overrides: Overrides) -> Run:
    """Return a run with new values for recipe fields that say where and how media are read, by dotted names.

    Raises ValueError for a field that is not below INPUT_FIELDS, since it would not fit the weights.
    """
    names = [name for name, _ in (overrides.items() if isinstance(overrides, Mapping) else overrides)]
    if wrong := [name for name in names if name.split(".")[0] not in INPUT_FIELDS]:
        raise ValueError(f"{wrong[0]} cannot change after training; only {', '.join(INPUT_FIELDS)} can be given anew")
    if not names:
        return run
    recipe = load_recipe(run.folder / "recipe.json", overrides)
    return replace(run, recipe=replace(recipe, decoding=run.recipe.decoding))  # whose words are token ids already


def load_weights(folder: str | Path) -> dict[str, Tensor]:
    """Read `model.safetensors` of a run folder of any format."""
    tensors, _ = load_tensors(Path(folder) / "model.safetensors")
    return migrate_tensors(tensors)


def load_ensemble_members(
    first: Run, folders: Sequence[str | Path], encoder_source: str = "", device: str = "cpu"
) -> list[Run]:
    """Load the runs that form an ensemble with `first`.

    `encoder_source` is used for the runs that have the same encoder as `first` (the same hash of its weights).
    """
    sha256 = first.info.encoder.get("sha256")
    shared = [bool(sha256) and read_info(Path(folder)).encoder.get("sha256") == sha256 for folder in folders]
    pairs = zip(folders, shared, strict=True)
    return [load_run(folder, encoder_source if is_shared else "", device) for folder, is_shared in pairs]


def read_info(folder: Path) -> RunInfo:
    """Read run.json of a folder.  Raises FileNotFoundError, or ValueError when it is damaged or of a newer format."""
    refuse_address(folder)
    if not (folder / "run.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no run.json")
    saved = read_json(folder / "run.json")
    if not isinstance(saved, dict) or not isinstance(saved.get("format"), int):
        raise ValueError(f"{folder / 'run.json'} does not describe a run: it has no format number")
    if saved["format"] > FORMAT:  # checked first: a newer format may have fields that RunInfo does not have
        raise ValueError(f"{folder} has run format {saved['format']}; this limner reads up to {FORMAT}: update limner")
    try:
        info = RunInfo(**{**saved, "plugins": tuple(saved.get("plugins", ()))})
        check_types(info)
    except TypeError as error:
        raise ValueError(f"{folder / 'run.json'} does not describe a run ({error})") from error
    return info


def check_types(info: RunInfo) -> None:
    """Raise TypeError when a field of run.json has a value of another kind than it is for."""
    kinds = {"feature_dim": int, "encoder": dict, "encoder_trained": bool, "channels": str, "version": str}
    for name, kind in kinds.items():
        if type(value := getattr(info, name)) is not kind:
            raise TypeError(f"{name} is {short_repr(value, 60)}, expected {kind.__name__}")
    if info.feature_dim < 1 or not all(isinstance(plugin, str) for plugin in info.plugins):
        raise TypeError(f"feature_dim is {info.feature_dim}, plugins are {short_repr(info.plugins, 60)}")


def _load_encoder(
    folder: Path, recipe: Recipe, info: RunInfo, weights: dict[str, Tensor], source: str
) -> Encoder | None:
    """Build a run's encoder and compare its provenance with the run's; `weights` are those inside the run, if any."""
    if not info.encoder:
        return None
    config = recipe.encoder
    if isinstance(config, PretrainedConfig | DetectorConfig):
        local = folder / "encoder"
        config = replace(config, source=source or (str(local) if local.is_dir() else config.source))
    elif config.source:  # not read when the run has the weights itself
        config = replace(config, source="" if weights else source or config.source)
    try:
        encoder = build_encoder(config)
    except ValueError as error:
        hint = "; give its present path with --encoder" if config.source else ""
        raise ValueError(f"{error}{hint}") from error
    expected, actual = encoder_identity(info.encoder), encoder_identity(json.loads(json.dumps(encoder.provenance())))
    if weights:  # the hash in the provenance is that of the weights before training
        load_state_strictly(encoder, weights, folder / "model.safetensors")
        expected, actual = {**expected, "sha256": ""}, {**actual, "sha256": ""}
    if lines := provenance_differences(expected, actual, "the run"):
        raise ValueError(
            f"the encoder {config.source or config.name} is not the one that {folder} was trained with "
            f"({info.encoder.get('source')}): {'; '.join(lines)}; give the right folder or hub id with --encoder"
        )
    return encoder.eval()


def run_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of model.safetensors.

    They are the captioner's and, under "encoder.", those of a trained encoder or of limner's own small ones, since they
    are stored nowhere else.
    """
    if not isinstance(model, FromPixels):
        return model.state_dict()
    tensors = dict(model.captioner.state_dict())
    # the config says it: in a stage with `encoder_lr` 0 the parameters of a trained encoder require no gradient
    trained = getattr(model.encoder.config, "trainable_from", None) is not None
    if trained or not isinstance(model.encoder, Pretrained | Detector):
        tensors |= {ENCODER_PREFIX + name: value for name, value in model.encoder.state_dict().items()}
    return tensors


def load_run_state_dict(model: nn.Module, tensors: dict[str, Tensor], where: str | Path) -> None:
    """Load the tensors of `run_state_dict` into a model.  Raises ValueError, which names the file `where`, when they
    do not fit."""
    captioner = model.captioner if isinstance(model, FromPixels) else model
    encoder_weights, captioner_weights = split_encoder_weights(tensors)
    load_state_strictly(captioner, captioner_weights, where)
    if encoder_weights and isinstance(model, FromPixels):
        load_state_strictly(model.encoder, encoder_weights, where)


def save_objective(objective: nn.Module, folder: str | Path, name: str) -> None:
    """Write an objective's parameters into a run folder; `name` is the objective's name."""
    save_tensors(Path(folder) / "objective.safetensors", objective.state_dict(), {"name": name})


def load_objective(
    objective: nn.Module,
    folder: str | Path,
    name: str,
    fit: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None = None,
) -> bool:
    """Load an objective's parameters from a run folder -> whether it has parameters of an objective of that name.

    `folder` "" has none.  `fit(tensors, objective)` changes the tensors before they are loaded, for other words.
    """
    path = Path(folder) / "objective.safetensors"
    if not folder or not path.is_file():
        return False
    tensors, metadata = load_tensors(path)
    if metadata.get("name") != name:
        return False
    load_state_strictly(objective, fit(tensors, objective) if fit else tensors, path)
    return True


def append_log(folder: Path, row: dict[str, Any]) -> None:
    """Append one line of JSON to log.jsonl."""
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def start_note(folder: str | Path, recipe: Recipe) -> str:
    """Return a line that says so when no epoch of a run beat the weights that it started from; "" otherwise.

    The log of the run tells: the weights of the start were validated at step 0.
    """
    log = Path(folder) / "log.jsonl"
    if not recipe.start or not log.is_file():
        return ""
    metric = recipe.validation.metric
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "split" in row and metric in row]
    best, later = float("inf"), 0
    for row in rows:
        if row["step"] == 0:  # the best weights so far, at the image size of a new stage
            best = row[metric]
            continue
        later += 1
        if row[metric] > best:
            return ""
    if not later or best == float("inf"):
        return ""
    return (
        f"no epoch beat the start: the weights are those of {recipe.start}, with {metric} {100 * best:.1f} on "
        f"{recipe.validation.split}; the best of {later} validations had "
        f"{100 * max(row[metric] for row in rows if row['step']):.1f}"
    )
