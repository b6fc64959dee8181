"""`limner extract`: encode a data set into a feature store."""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner import shipped
from limner.apps.shared.arguments import (
    Override,
    WrongArguments,
    overrides,
    refuse_unknown,
    report_data_problems,
    report_notes,
    report_unreadable,
)
from limner.apps.shared.console import open_console
from limner.apps.shared.runs import read_recipe
from limner.core.files import check_writable
from limner.data.augmentations import AUGMENTATIONS
from limner.data.datasets import DataConfig, read_dataset
from limner.data.parts import Part, part_of
from limner.data.sftcap import write_frame_features
from limner.data.store import FeatureStore
from limner.encoders import (
    ClipFramesConfig,
    DetectorConfig,
    Encoder,
    EncoderConfig,
    PretrainedConfig,
    ResNet3DConfig,
    build_encoder,
)
from limner.encoders.resnet3d import infer_config, read_weights
from limner.runs.inputs import feature_paths, uses_feature_files
from limner.runs.recipe import Recipe
from limner.runs.resolve import resolve_model
from limner.runs.run import load_run

WEIGHTS = (".pth", ".pt", ".tar")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    from limner.encoders.extract import extract

    augmentations = tuple(options.augmentations.split(",")) if options.augmentations else ()
    if unknown := [name for name in augmentations if name not in AUGMENTATIONS]:
        raise WrongArguments(f"unknown augmentation '{unknown[0]}'; known are {', '.join(AUGMENTATIONS)}")
    if options.verify:
        if options.part:
            raise WrongArguments("--verify checks a whole store: leave out --part")
        return _verify(options, rest)
    recipe, encoder = _recipe_and_encoder(options, rest)
    given = options.out
    out = options.out = given or _store_of(recipe)  # `interrupted` reads it
    part = Part(*options.part) if options.part else None
    if part and not given:
        raise WrongArguments(f"--part {part} needs a store of its own: give --out DIR")
    if not out:
        raise WrongArguments("where should the features go? give --out DIR, or `features` in the recipe")
    if options.frame_features:
        check_writable(options.frame_features)
    dataset = read_dataset(recipe.data)
    console = open_console(soft_wrap=True)
    columns = (TextColumn("extract"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("extract")
        report = extract(
            dataset.media,
            encoder,
            Path(out),
            augmentations or recipe.augmentations,
            batch_size=options.batch_size,
            device=options.device,
            sampling=recipe.sampling.with_frames(options.frames or recipe.frames),
            part=part,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"{out}: {f'part {part}, ' if part else ''}{report}", markup=False)
    if options.frame_features:
        ids = [medium.id for medium in dataset.media]
        ids = part_of(ids, part) if part else ids
        written = write_frame_features(FeatureStore(out), options.frame_features, ids)
        console.print(f"{options.frame_features}: {len(written)} files", markup=False)
    report_unreadable([f"{id}: {reason}" for id, reason in report.failures])
    report_data_problems(dataset.problems)
    report_notes([*dataset.notes, *report.damaged])
    return 3 if report.failures else 0


def interrupted(options: argparse.Namespace, command: str) -> str:
    """What is kept of an interrupted extraction, and the command that continues it."""
    shards = len(list(Path(options.out).glob("shard-*"))) if options.out else 0
    if not shards:
        return f"no complete shard of features was written yet; start again with: {command}"
    return f"{options.out} has {shards} complete shard{'s' if shards > 1 else ''} of features; continue with: {command}"


def _store_of(recipe: Recipe) -> str:
    """The feature store that a recipe names, or ""."""
    if uses_feature_files(recipe):
        raise ValueError(f"the recipe reads the feature files {', '.join(feature_paths(recipe))}: give --out DIR")
    return next(iter(feature_paths(recipe)), "")


def _verify(options: argparse.Namespace, rest: list[str]) -> int:
    """Check the checksums of a store."""
    out = options.out or (_store_of(read_recipe(options.recipe, overrides(rest))) if options.recipe else "")
    if not out:
        raise WrongArguments("which store should be verified? give --out DIR, or a recipe that names `features`")
    store = FeatureStore(out)
    store.verify()
    print(f"{out}: {len(store)} entries, every shard is as it was written")
    if store.version < 3:
        report_notes([f"{out} is of an earlier limner, without checksums of index and entries; extract adds them"])
    return 0


def _recipe_and_encoder(options: argparse.Namespace, rest: list[str]) -> tuple[Recipe, Encoder]:
    """What to encode, and with what, from a recipe, a run, or options alone."""
    if options.recipe and (options.data or options.media or options.annotations):
        raise WrongArguments("give a recipe or run, or --data, --media and --annotations, not both")
    if options.recipe and shipped.folder_of(options.recipe).is_dir():
        if options.window:
            raise WrongArguments(f"--window changes the encoder, which is that of {options.recipe}: leave it out")
        return _of_run(resolve_model(options.recipe), options.encoder or "", overrides(rest))
    if options.recipe:
        recipe = read_recipe(options.recipe, overrides(rest))
    else:
        refuse_unknown(rest)
        if not (options.data and options.media and options.encoder):
            raise WrongArguments("give a recipe or run, or --data, --media and --encoder")
        recipe = Recipe(data=DataConfig(options.data, options.media, options.annotations))
    if options.encoder:
        same_kind = isinstance(recipe.encoder, ClipFramesConfig | DetectorConfig)
        encoder = (
            replace(recipe.encoder, source=options.encoder)
            if same_kind
            else _config_for(options.encoder, bool(options.frame_features))
        )
        recipe = replace(recipe, encoder=encoder)
    if options.window:
        recipe = replace(recipe, encoder=_with_window(recipe.encoder, options.window))
    if not recipe.encoder.source:
        raise ValueError(
            f"{recipe.encoder.name} has no trained weights of its own: train it from pixels, without extract; then "
            "encoder.source may name that run"
        )
    return recipe, build_encoder(recipe.encoder)


def _config_for(source: str, frame_vectors: bool) -> EncoderConfig:
    """The encoder of a file of weights or of a folder.

    A file belongs to a 3-D ResNet, and the weights tell its depth and width.  Vectors of single frames come from CLIP.
    """
    if (Path(source) / "run.json").is_file():
        raise ValueError(f"{source} is a run; its encoder: limner extract {source} --data.name NAME --data.media DIR")
    if Path(source).suffix in WEIGHTS:
        return replace(infer_config(read_weights(source)), source=source)
    if frame_vectors:
        return ClipFramesConfig(source=source)
    return PretrainedConfig(source=source)


def _with_window(config: EncoderConfig, window: int) -> EncoderConfig:
    if not isinstance(config, ResNet3DConfig):
        raise WrongArguments(f"--window {window} is for 3-D ResNets; the encoder is {config.name}")
    return replace(config, window=window)


def _of_run(folder: Path, source: str, changes: list[Override]) -> tuple[Recipe, Encoder]:
    """The recipe of a run with changes, and the run's trained encoder, which may not be changed."""
    run = load_run(folder, source)
    recipe = read_recipe(folder / "recipe.json", changes)
    if recipe.encoder != run.recipe.encoder:
        raise WrongArguments(f"the encoder is that of {folder} and cannot be changed")
    if run.encoder is None:
        raise ValueError(f"{folder} has no encoder: it was trained on features without a known one")
    return recipe, run.encoder
