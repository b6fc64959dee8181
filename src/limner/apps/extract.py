"""Encode a data set into a feature store: limner extract RECIPE.yaml

Without a recipe: limner extract --data NAME --media DIR --encoder PATH --out DIR
With the encoder that a run has trained or imported: limner extract RUN --out DIR
A rerun continues an interrupted extraction; --verify reads a finished one again, against its checksums.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner.apps.shared.arguments import WrongArguments, no_more, overrides, positive, report_problems
from limner.data.augmentations import AUGMENTATIONS
from limner.data.datasets import DATASETS, DataConfig, read_dataset
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
from limner.runs.recipe import Recipe, load_recipe
from limner.runs.run import load_run

WEIGHTS = (".pth", ".pt", ".tar")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", help="take data, encoder, augmentations and store folder from this recipe or run"
    )
    parser.add_argument("--data", choices=sorted(DATASETS), help="kind of data set (without a recipe)")
    parser.add_argument("--media", help="folder of pictures or clips")
    parser.add_argument("--annotations", default="", help="caption file")
    parser.add_argument(
        "--encoder", help="transformers backbone (local folder or hub id), or the weights of a 3-D ResNet (.pth)"
    )
    parser.add_argument(
        "--window",
        type=positive,
        help="3-D ResNet: a vector for each frame, of the so many frames that begin with it; published: 16",
    )
    parser.add_argument("--out", help="feature store folder (default: the recipe's `features`)")
    parser.add_argument(
        "--augmentations",
        help=f"comma-separated, of {', '.join(AUGMENTATIONS)}; others than full for training media only",
    )
    parser.add_argument("--batch-size", type=positive, default=32)
    parser.add_argument("--frames", type=positive, help="frames sampled from a clip")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--frame-features",
        metavar="DIR",
        help="write the vectors of CLIP's frames as SFTCap reads them too: DIR/frame_feature/ID.npy, float32 (n, D)",
    )
    parser.add_argument("--verify", action="store_true", help="encode nothing, check every shard of the store's bytes")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    from limner.encoders.extract import extract

    if options.verify:
        return _verify(options, rest)
    recipe, encoder = _recipe_and_encoder(options, rest)
    out = options.out or _store(recipe)
    if not out:
        raise WrongArguments("where should the features go? give --out FOLDER, or `features` in the recipe")
    dataset = read_dataset(recipe.data)
    augmentations = tuple(options.augmentations.split(",")) if options.augmentations else recipe.augmentations
    console = Console(soft_wrap=True)
    columns = (TextColumn("extract"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("extract")
        report = extract(
            dataset.media,
            encoder,
            Path(out),
            augmentations,
            batch_size=options.batch_size,
            device=options.device,
            sampling=recipe.sampling.with_frames(options.frames or recipe.frames),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"{out}: {report}")
    if options.frame_features:
        written = write_frame_features(FeatureStore(out), options.frame_features, [m.id for m in dataset.media])
        console.print(f"{options.frame_features}: {len(written)} files")
    report_problems([*dataset.problems, *report.damaged, *(f"{id}: {reason}" for id, reason in report.failures)])
    return 3 if report.failures else 0


def _store(recipe: Recipe) -> str:
    """The feature store that a recipe names."""
    if uses_feature_files(recipe):
        raise ValueError(f"the recipe reads the feature files {', '.join(feature_paths(recipe))}: give --out FOLDER")
    return next(iter(feature_paths(recipe)), "")


def _verify(options: argparse.Namespace, rest: list[str]) -> int:
    out = options.out or (_store(load_recipe(options.recipe, overrides(rest))) if options.recipe else "")
    if not out:
        raise WrongArguments("which store should be verified? give --out FOLDER, or a recipe that names `features`")
    store = FeatureStore(out)
    store.verify()
    print(f"{out}: {len(store)} entries, every shard is as it was written")
    return 0


def _recipe_and_encoder(options: argparse.Namespace, rest: list[str]) -> tuple[Recipe, Encoder]:
    if options.recipe and (options.data or options.media or options.annotations):
        raise WrongArguments("give a recipe or run, or --data, --media and --annotations, not both")
    if options.recipe and Path(options.recipe).is_dir():
        if options.window:
            raise WrongArguments(f"--window changes the encoder, which is that of {options.recipe}: leave it out")
        return _of_run(Path(options.recipe), options.encoder or "", overrides(rest))
    if options.recipe:
        recipe = load_recipe(options.recipe, overrides(rest))
    else:
        no_more(rest)
        if not (options.data and options.media and options.encoder):
            raise WrongArguments("give a recipe or run, or --data, --media and --encoder")
        recipe = Recipe(data=DataConfig(options.data, options.media, options.annotations))
    if options.encoder:
        moved = isinstance(recipe.encoder, ClipFramesConfig | DetectorConfig)  # stay of their kind
        encoder = (
            replace(recipe.encoder, source=options.encoder)
            if moved
            else _config(options.encoder, bool(options.frame_features))
        )
        recipe = replace(recipe, encoder=encoder)
    if options.window:
        recipe = replace(recipe, encoder=_windowed(recipe.encoder, options.window))
    if not recipe.encoder.source:
        raise ValueError(
            f"{recipe.encoder.name} has no trained weights of its own: train it from pixels, without extract; then "
            "encoder.source may name that run"
        )
    return recipe, build_encoder(recipe.encoder)


def _config(source: str, vectors: bool) -> EncoderConfig:
    """A file of weights is one of a 3-D ResNet, whose depth and width the weights tell; `vectors`, one for each frame,
    are CLIP's."""
    if (Path(source) / "run.json").is_file():
        raise ValueError(f"{source} is a run; its encoder: limner extract {source} --data.name NAME --data.media DIR")
    if Path(source).suffix in WEIGHTS:
        return replace(infer_config(read_weights(source)), source=source)
    if vectors:
        return ClipFramesConfig(source=source)
    return PretrainedConfig(source=source)


def _windowed(config: EncoderConfig, window: int) -> EncoderConfig:
    if not isinstance(config, ResNet3DConfig):
        raise WrongArguments(f"--window {window} is of 3-D ResNets; the encoder is {config.name}")
    return replace(config, window=window)


def _of_run(folder: Path, source: str, changes: list[tuple[str, str]]) -> tuple[Recipe, Encoder]:
    """A run's recipe, in which all but the encoder may be changed, and its encoder with the weights of the run."""
    run = load_run(folder, source)
    recipe = load_recipe(folder / "recipe.json", changes)
    if recipe.encoder != run.recipe.encoder:
        raise ValueError(f"the encoder is that of {folder} and cannot be changed")
    if run.encoder is None:
        raise ValueError(f"{folder} has no encoder: it was trained on features without a known one")
    return recipe, run.encoder
