"""How a recipe's media become model inputs: through the encoder from raw files, or from a feature store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limner.data.batches import Reader, from_files, from_store
from limner.data.store import FeatureStore, entry_key
from limner.encoders import build_encoder
from limner.encoders.encoder import Encoder
from limner.recipe import Recipe
from limner.types import Medium

CACHED_SIDE, CACHED_MEDIA = 128, 20_000  # raw pictures up to this size and number are kept decoded: 4 GB at most


@dataclass(frozen=True)
class Inputs:
    """An encoder and a reader; with a store the reader already yields features."""

    encoder: Encoder
    reader: Reader
    store: FeatureStore | None = None

    @property
    def trained(self) -> bool:
        """Are some of the encoder's weights trained along?"""
        return self.store is None and any(parameter.requires_grad for parameter in self.encoder.parameters())

    def usable(self, media: Sequence[Medium], views: Sequence[str] = ("full",)) -> tuple[list[Medium], list[str]]:
        """-> the media that can be read in all of `views`, and a line for each of the others.

        With a store this asks the index; raw files are opened one by one, so ask only for what is read many times.
        """
        kept, problems = self.sort_out(media, views)
        if not kept:
            raise ValueError(
                f"none of {len(media)} media can be read; the first: {problems[0] if problems else 'none given'}"
            )
        return kept, problems

    def sort_out(self, media: Sequence[Medium], views: Sequence[str] = ("full",)) -> tuple[list[Medium], list[str]]:
        """`usable`, which may also be none."""
        kept, problems = [], []
        for medium in media:
            if self.store is not None:
                absent = [view for view in views if entry_key(medium.id, view) not in self.store]
                reason = f"not in the feature store in the views {', '.join(absent)}" if absent else ""
            else:
                reason = _unreadable(self.reader, medium)
            kept += [medium] if not reason else []
            problems += [f"{medium.id}: {reason}"] if reason else []
        return kept, problems


def open_inputs(recipe: Recipe, encoder: Encoder | None = None, cache: int = 0) -> Inputs:
    """Build (or take) the encoder and the reader that a recipe asks for.  Raw media are kept decoded when they are
    small, and the first `cache` of them in any case.

    Raises ValueError when the feature store was made by another encoder or lacks a view of the recipe.
    """
    encoder = build_encoder(recipe.encoder) if encoder is None else encoder
    if not recipe.features:
        size = getattr(recipe.encoder, "size", CACHED_SIDE + 1)
        return Inputs(
            encoder, from_files(encoder.preprocess, recipe.frames, CACHED_MEDIA if size <= CACHED_SIDE else cache)
        )
    if getattr(recipe.encoder, "trainable_from", None) is not None:
        raise ValueError("encoder.trainable_from needs raw media: leave `features` empty, or freeze the encoder")
    store = FeatureStore(Path(recipe.features))
    store.require(encoder.provenance())
    absent = [view for view in recipe.views if view not in store.views]
    if absent:
        raise ValueError(
            f"the store {recipe.features} has the views {', '.join(store.views)} but not {', '.join(absent)}; "
            f"run limner extract with --views {','.join(recipe.views)}"
        )
    return Inputs(encoder, from_store(store), store)


def _unreadable(reader: Reader, medium: Medium) -> str:
    try:
        reader([(medium, "full")])
    except (ValueError, OSError) as error:
        return str(error)
    return ""
