"""How a recipe's media become inputs: raw files through the encoder, a feature store, or others' feature files."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.types import Medium
from limner.data.batches import Reader, from_files, from_store
from limner.data.feature_files import FeatureFiles, are_feature_files
from limner.data.media import is_clip
from limner.data.regions import REGIONS_PROVENANCE
from limner.data.store import FeatureStore, entry_key
from limner.encoders import build_encoder
from limner.encoders.encoder import Encoder
from limner.models.captioner import Captioner, FromPixels
from limner.runs.recipe import Recipe

SMALL, ROOM = 128, 4 << 30  # raw media that an encoder sees at this side or a smaller one are kept, up to 4 GB


@dataclass(frozen=True)
class RecipeInputs:
    """An encoder and a reader; with a store or files the reader already yields features.  The encoder that made others'
    files is not known."""

    encoder: Encoder | None
    reader: Reader
    store: FeatureStore | None = None
    files: FeatureFiles | None = None
    frames: int = 1  # of a raw clip

    @property
    def uses_stored_features(self) -> bool:
        """Are the features there already?"""
        return self.store is not None or self.files is not None

    @property
    def dim(self) -> int:
        """Channels of a cell."""
        if self.files is not None:
            return self.files.dim
        if self.encoder is None and self.store is not None:
            return self.store.dim
        assert self.encoder is not None
        return self.encoder.dim

    @property
    def encoder_is_trained(self) -> bool:
        """Are some of the encoder's weights trained along?"""
        if self.uses_stored_features or self.encoder is None:
            return False
        return any(parameter.requires_grad for parameter in self.encoder.parameters())

    def provenance(self) -> dict[str, Any]:
        """What is known of the encoder; nothing for others' files."""
        return {} if self.encoder is None else self.encoder.provenance()

    def with_encoder(self, model: Captioner) -> Captioner:
        """`model` as it reads these inputs: behind the encoder when they are pixels."""
        if self.uses_stored_features:
            return model
        assert self.encoder is not None
        return FromPixels(self.encoder, model)

    def media_per_batch(self, media: Sequence[Medium], most: int = 64) -> int:
        """How many of `media` go through a model at a time: raw clips only as many as have `most` frames together."""
        clips = not self.uses_stored_features and any(is_clip(medium.path) for medium in media)
        return max(1, most // self.frames) if clips else most

    def require_readable(
        self, media: Sequence[Medium], augmentations: Sequence[str] = ("full",)
    ) -> tuple[list[Medium], list[str]]:
        """-> the media that can be read in all of `augmentations`, and a line for each of the others.

        With a store this asks the index; feature files and raw media are read one by one.
        """
        kept, problems = self.split_readable(media, augmentations)
        if not kept:
            raise ValueError(
                f"none of {len(media)} media can be read; the first: {problems[0] if problems else 'none given'}"
            )
        return kept, problems

    def split_readable(
        self, media: Sequence[Medium], augmentations: Sequence[str] = ("full",)
    ) -> tuple[list[Medium], list[str]]:
        """`require_readable`, which may also be none."""
        kept, problems = [], []
        for medium in media:
            if self.store is not None:
                absent = [
                    augmentation
                    for augmentation in augmentations
                    if entry_key(medium.id, augmentation) not in self.store
                ]
                reason = f"not in the feature store in the augmentations {', '.join(absent)}" if absent else ""
            else:
                reason = _unreadable(self.reader, medium)
            kept += [medium] if not reason else []
            named = reason.startswith(f"{medium.id}: ")
            problems += [reason if named else f"{medium.id}: {reason}"] if reason else []
        return kept, problems


def open_inputs(recipe: Recipe, encoder: Encoder | None = None, keep: bool = False) -> RecipeInputs:
    """Build (or take) the encoder and the reader that a recipe asks for.  Raw media are kept in memory when they are
    small, and with `keep` in any case.

    Raises ValueError when the feature store was made by another encoder or lacks a view of the recipe, or when there
    are no features where the recipe says.
    """
    if uses_feature_files(recipe):
        return _open_files(recipe)
    if feature_paths(recipe) and getattr(recipe.encoder, "trainable_from", None) is not None:
        raise ValueError("encoder.trainable_from needs raw media: leave `features` empty, or freeze the encoder")
    store = FeatureStore(Path(folder)) if (folder := next(iter(feature_paths(recipe)), "")) else None
    if store is not None and store.provenance == REGIONS_PROVENANCE:
        return RecipeInputs(None, _in_views(recipe, store), store)
    encoder = build_encoder(recipe.encoder) if encoder is None else encoder
    if store is None:
        small = getattr(recipe.encoder, "size", SMALL + 1) <= SMALL
        room = sys.maxsize if keep else ROOM if small else 0
        reader = from_files(encoder.preprocess, recipe.frame_sampling, room)
        return RecipeInputs(encoder, reader, frames=recipe.frames)
    store.require_encoder(encoder.provenance())
    return RecipeInputs(encoder, _in_views(recipe, store), store)


def _in_views(recipe: Recipe, store: FeatureStore) -> Reader:
    """Raises ValueError when the store lacks a view of the recipe."""
    absent = [augmentation for augmentation in recipe.augmentations if augmentation not in store.augmentations]
    if absent:
        raise ValueError(
            f"the store {store.folder} has the augmentations {', '.join(store.augmentations)} but not "
            f"{', '.join(absent)}; "
            f"run limner extract with --augmentations {','.join(recipe.augmentations)}"
        )
    return from_store(store)


def feature_paths(recipe: Recipe) -> tuple[str, ...]:
    """Where the features lie; none when the encoder runs on raw media."""
    features = (recipe.features,) if isinstance(recipe.features, str) else recipe.features
    return tuple(path for path in features if path)


def uses_feature_files(recipe: Recipe) -> bool:
    """Are the features files of others, rather than a store of ours?"""
    paths = feature_paths(recipe)
    return len(paths) > 1 or any(are_feature_files(path) for path in paths)


def _open_files(recipe: Recipe) -> RecipeInputs:
    if recipe.augmentations != ("full",):
        raise ValueError(
            f"feature files hold one view of a medium: augmentations must be [full], not {[*recipe.augmentations]}"
        )
    files = FeatureFiles(feature_paths(recipe), recipe.frame_sampling, recipe.feature_rows)
    return RecipeInputs(None, files.read, None, files)


def _unreadable(reader: Reader, medium: Medium) -> str:
    try:
        reader([(medium, "full")])
    except (ValueError, OSError) as error:
        return str(error)
    return ""
