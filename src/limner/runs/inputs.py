"""`RecipeInputs`: reads media as a recipe asks: raw files for an encoder, a feature store, or feature files."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from limner.core.types import Medium
from limner.data.batches import Reader, from_files, from_store
from limner.data.datasets import data_parts
from limner.data.feature_files import FeatureFiles, are_feature_files
from limner.data.loader import Loading, ReadAhead
from limner.data.media import is_clip
from limner.data.regions import REGIONS_PROVENANCE
from limner.data.store import FeatureStore, entry_key
from limner.encoders import build_encoder
from limner.encoders.encoder import Encoder
from limner.models.captioner import Captioner, FromPixels
from limner.runs.recipe import Recipe

CACHED_SIZE = 128  # raw media that the encoder reads at this size (pixels) or a smaller one are cached in memory ...
CACHE_BYTES = 4 << 30  # ... up to 4 GiB


@dataclass(frozen=True)
class RecipeInputs:
    """An encoder, and a reader of media: it yields features from a store or from feature files, else pixels."""

    encoder: Encoder | None  # None for feature files, and for a store of detector regions: theirs is not known
    reader: Reader
    store: FeatureStore | None = None
    files: FeatureFiles | None = None
    frames: int = 1  # frames per clip when raw media are read
    cached: bool = False  # raw media are kept in memory once they were read
    notes: dict[str, str] = field(default_factory=dict)  # id of a raw medium that was read -> what is wrong with it

    @property
    def uses_stored_features(self) -> bool:
        """Whether features were computed before: they are in a store or in feature files."""
        return self.store is not None or self.files is not None

    @property
    def dim(self) -> int:
        """Number of channels D of a cell."""
        if self.files is not None:
            return self.files.dim
        if self.encoder is None and self.store is not None:
            return self.store.dim
        assert self.encoder is not None
        return self.encoder.dim

    @property
    def encoder_is_trained(self) -> bool:
        """Whether some of the encoder's weights are trained together with the captioner."""
        if self.uses_stored_features or self.encoder is None:
            return False
        return any(parameter.requires_grad for parameter in self.encoder.parameters())

    def provenance(self) -> dict[str, Any]:
        """Return the encoder's provenance; empty when the encoder is not known."""
        return {} if self.encoder is None else self.encoder.provenance()

    def with_encoder(self, model: Captioner) -> Captioner:
        """Return a model that reads these inputs: `model` itself for features, `FromPixels` for pixels."""
        if self.uses_stored_features:
            return model
        assert self.encoder is not None
        return FromPixels(self.encoder, model)

    def media_per_batch(self, media: Sequence[Medium], most: int = 64) -> int:
        """Return how many of `media` to put in a batch: `most`, or raw clips with at most `most` frames in total."""
        clips = not self.uses_stored_features and any(is_clip(medium.path) for medium in media)
        return max(1, most // self.frames) if clips else most

    def require_readable(
        self, media: Sequence[Medium], augmentations: Sequence[str] = ("full",), workers: int = 0
    ) -> tuple[list[Medium], list[str]]:
        """As `split_readable`.  Raises ValueError when no medium can be read."""
        readable, problems = self.split_readable(media, augmentations, workers)
        if not readable:
            raise ValueError(
                f"none of {len(media)} media can be read; the first: {problems[0] if problems else 'none given'}"
            )
        return readable, problems

    def split_readable(
        self, media: Sequence[Medium], augmentations: Sequence[str] = ("full",), workers: int = 0
    ) -> tuple[list[Medium], list[str]]:
        """Return the media that can be read in all `augmentations`, and a line for each of the others.

        A store's index answers this; feature files and raw media are read one by one, by so many worker processes.
        """
        readable, problems = [], []
        for medium, reason in zip(media, self._reasons(media, augmentations, workers), strict=True):
            readable += [medium] if not reason else []
            has_id = reason.startswith(f"{medium.id}: ")
            problems += [reason if has_id else f"{medium.id}: {reason}"] if reason else []
        return readable, problems

    def _reasons(self, media: Sequence[Medium], augmentations: Sequence[str], workers: int) -> Iterator[str]:
        """Why each medium cannot be read; "" for one that can."""
        if self.store is None:
            ahead = ReadAhead(partial(_read_error, self.reader), Loading(workers), (self.notes,))
            yield from ahead(media)
            ahead.close()
            return
        for medium in media:
            absent = [name for name in augmentations if entry_key(medium.id, name) not in self.store]
            yield f"not in the feature store in the augmentations {', '.join(absent)}" if absent else ""


def open_inputs(recipe: Recipe, encoder: Encoder | None = None, keep: bool = False) -> RecipeInputs:
    """Build the encoder (None: from the recipe) and the reader that a recipe asks for.

    Raw media are cached in memory when the encoder reads them at a small size; with `keep` they always are.
    Raises ValueError when a feature store was made by another encoder or lacks an augmentation of the recipe, or when
    there are no features at the recipe's path.
    """
    if uses_feature_files(recipe):
        return _open_files(recipe)
    if feature_paths(recipe) and getattr(recipe.encoder, "trainable_from", None) is not None:
        raise ValueError("encoder.trainable_from needs raw media: leave `features` empty, or freeze the encoder")
    store = FeatureStore(Path(folder)) if (folder := next(iter(feature_paths(recipe)), "")) else None
    if store is not None and store.provenance == REGIONS_PROVENANCE:
        return RecipeInputs(None, _store_reader(recipe, store), store)
    encoder = build_encoder(recipe.encoder) if encoder is None else encoder
    if store is None:
        small = getattr(recipe.encoder, "size", CACHED_SIZE + 1) <= CACHED_SIZE
        shared = CACHE_BYTES // max(1, recipe.workers or 0)  # every worker has a cache of its own
        cache_bytes = sys.maxsize if keep else shared if small else 0
        cached = cache_bytes > 0
        notes: dict[str, str] = {}
        reader = from_files(encoder.preprocess, recipe.frame_sampling, cache_bytes, encoder.reading_side(), notes)
        return RecipeInputs(encoder, reader, frames=recipe.frames, cached=cached, notes=notes)
    store.require_encoder(encoder.provenance())
    return RecipeInputs(encoder, _store_reader(recipe, store), store)


def _store_reader(recipe: Recipe, store: FeatureStore) -> Reader:
    """Return a reader of the store.  Raises ValueError when the store lacks an augmentation of the recipe."""
    absent = [augmentation for augmentation in recipe.augmentations if augmentation not in store.augmentations]
    if absent:
        raise ValueError(
            f"the store {store.folder} has the augmentations {', '.join(store.augmentations)} but not "
            f"{', '.join(absent)}; run limner extract with --augmentations {','.join(recipe.augmentations)}"
        )
    return from_store(store)


def feature_paths(recipe: Recipe) -> tuple[str, ...]:
    """Return the paths of a recipe's features; empty when the encoder runs on raw media."""
    features = (recipe.features,) if isinstance(recipe.features, str) else recipe.features
    return tuple(path for path in features if path)


def uses_feature_files(recipe: Recipe) -> bool:
    """Whether a recipe's features are feature files of other tools, rather than a feature store of limner."""
    paths = feature_paths(recipe)
    return len(paths) > 1 or any(are_feature_files(path) for path in paths)


def _open_files(recipe: Recipe) -> RecipeInputs:
    if recipe.augmentations != ("full",):
        raise ValueError(
            f"feature files hold a medium without augmentation: augmentations must be [full], not "
            f"{[*recipe.augmentations]}"
        )
    if label := next(iter(data_parts(recipe.data))):
        raise ValueError(
            f"feature files hold the ids of one data set, and in this recipe ids begin with a label ({label}/ID): make "
            "one feature store of all data sets with limner extract, or give a single data set without a label"
        )
    files = FeatureFiles(feature_paths(recipe), recipe.frame_sampling, recipe.feature_rows)
    return RecipeInputs(None, files.read, None, files)


def _read_error(reader: Reader, medium: Medium) -> str:
    """Read a medium -> the error message, or "" when it can be read."""
    try:
        reader([(medium, "full")])
    except (ValueError, OSError) as error:
        return str(error)
    return ""
