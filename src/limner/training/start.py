"""Starting from a trained model: its words and the new ones of the training captions, its weights, its encoder.

The words of the start model keep their ids and their rows: those of the word embedding, of the word head, and of
whatever else has a row per word.  New words are added behind them.  A row of a new word is the mean of the rows of the
known words that stand in the same places in the training captions (`text.substitutes`), weighted by how often they do;
for a word without any, it is the mean of all known words.  So the model takes a new word for one of its substitutes at
first.  With these rows it can read the captions, and says itself what it expects in the places of the new words:
`limner.training.new_words` begins their rows anew with that, and training tells them apart.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limner.core.tensors import load_state_strictly, state_dict_differences
from limner.data.dataset import Dataset
from limner.encoders.trained import split_encoder_weights
from limner.models import build_model
from limner.models.captioner import Captioner, FromPixels
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe
from limner.runs.resolve import resolve_model
from limner.runs.run import RunInfo, load_weights, read_info
from limner.text.clip_bpe import ClipVocabulary
from limner.text.load import load_vocabulary
from limner.text.substitutes import substitutes
from limner.text.vocabulary import SPECIALS, Vocabulary


@dataclass(frozen=True)
class GrownVocabulary:
    """The words of a start model and, behind them, new ones of the training captions.

    `occurrences` has the number of times that each new word occurs there.  `mixing` (new, known) makes the rows of the
    new words from those of the known ones, `rows = mixing @ known_rows`; its rows sum to 1.  `prior` (new) is added to
    the biases of the new words in a word head: how rare they are beside the words that they are made from, as a log.

    >>> grown = grow_vocabulary(Vocabulary((*SPECIALS, "a", "dog", "cat")), ["a dog", "a cat", "a fox"], min_count=1)
    >>> grown.vocabulary.words[-1], grown.mixing.tolist()
    ('fox', [[0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]])
    """

    vocabulary: Vocabulary
    occurrences: dict[str, int]
    mixing: Float[Tensor, "A V"]
    prior: Float[Tensor, " A"] | None = None  # None: zero

    @property
    def known(self) -> int:
        """Number of the start model's words, the special tokens included."""
        return len(self.vocabulary) - len(self.occurrences)

    def fit(self, tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of the start model with rows for the new words, where `module` has such rows.

        A dimension grows where the tensor has the start model's number of words, `module` has that of this vocabulary,
        and all other dimensions are equal.  Other tensors stay as they are.
        """
        own = module.state_dict()
        return {name: self._grow(value, own[name].shape) if name in own else value for name, value in tensors.items()}

    def _grow(self, value: Tensor, shape: torch.Size) -> Tensor:
        changed = [dim for dim in range(value.dim()) if value.dim() == len(shape) and value.shape[dim] != shape[dim]]
        if not self.occurrences or len(changed) != 1 or not value.is_floating_point():
            return value
        (dim,) = changed
        if (value.shape[dim], shape[dim]) != (self.known, len(self.vocabulary)):
            return value
        rows = value.float().movedim(dim, 0)
        new = torch.tensordot(self.mixing, rows, 1)
        if self.prior is not None and value.dim() == 1:
            new += self.prior
        return torch.cat([rows, new]).movedim(0, dim).contiguous()

    def summary(self) -> str:
        """One line about the words: how many are kept, which are added, and how often those occur."""
        kept, added = self.known, len(self.occurrences)
        if not added:
            return f"{kept:,} words kept, none added"
        often = ", ".join([*list(self.occurrences)[:3], *(["..."] if added > 3 else [])])
        return f"{kept:,} words kept, {added:,} added, from {sum(self.occurrences.values()):,} occurrences ({often})"


@dataclass(frozen=True)
class StartModel:
    """The model that `recipe.start` names, without its weights, and the words of a run that starts from it."""

    name: str  # as the recipe writes it
    folder: Path
    recipe: Recipe
    info: RunInfo
    grown: GrownVocabulary


def open_start(recipe: Recipe, dataset: Dataset) -> StartModel:
    """Find the run or the model that a recipe starts from, and add the words of the training captions to its own.

    Words of prepared files are added whatever their number, others by `vocabulary.min_count`.
    Raises FileNotFoundError when there is no such model, ValueError when it is damaged.
    """
    try:
        folder = resolve_model(recipe.start)
        info = read_info(folder)
        theirs, known = load_recipe(folder / "recipe.json"), load_vocabulary(folder / "vocabulary.json")
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"start: {error}") from error
    captions = [text for medium in dataset.split("train") for text in medium.references]
    min_count = 1 if dataset.words else recipe.vocabulary.min_count
    grown = grow_vocabulary(known, captions, min_count, dataset.words)
    return StartModel(recipe.start, folder, theirs, info, grown)


def grow_vocabulary(
    known: Vocabulary, captions: Sequence[str], min_count: int, only: Collection[str] = ()
) -> GrownVocabulary:
    """Add the words of captions to a vocabulary, which splits the captions.

    Added are words that occur at least `min_count` times, by falling count; with `only` these words alone.  CLIP's byte
    pairs have no unknown words: nothing is added to them.
    """
    none = GrownVocabulary(known, {}, torch.zeros(0, len(known)))
    if isinstance(known, ClipVocabulary):
        return none
    tokenized = [known.tokenize(caption) for caption in captions]
    counts = Counter(word for words in tokenized for word in words)
    new = [
        word
        for word in sorted(counts, key=lambda word: (-counts[word], word))
        if counts[word] >= min_count and word not in known.ids and (not only or word in only)
    ]
    if not new:
        return none
    words = known.words[len(SPECIALS) :]
    shares = substitutes(tokenized, frozenset(words), new)
    mixing = torch.zeros(len(new), len(known))
    for row, word in enumerate(new):
        for substitute, share in shares.get(word, dict.fromkeys(words, 1 / max(1, len(words)))).items():
            mixing[row, known.ids[substitute]] = share
    vocabulary = Vocabulary((*known.words, *new), known.tokenizer, min(known.min_count, min_count))
    return GrownVocabulary(vocabulary, {word: counts[word] for word in new}, mixing)


def load_start_weights(model: Captioner, start: StartModel, recipe: Recipe, feature_dim: int) -> list[str]:
    """Load the weights of the start model, with rows for new words, into the model of a recipe -> notes.

    `feature_dim` is the number of channels of the recipe's cells.  The weights of the encoder are loaded where the
    recipe trains from pixels with an encoder of the same kind.
    Raises ValueError that names the fields of the recipe which contradict the start model.
    """
    encoder_weights, captioner_weights = split_encoder_weights(load_weights(start.folder))
    captioner = model.captioner if isinstance(model, FromPixels) else model
    tensors = start.grown.fit(captioner_weights, captioner)
    if any(state_dict_differences(captioner, tensors)) and (reasons := _contradictions(start, recipe, feature_dim)):
        raise ValueError(
            f"start: the model of the recipe does not fit {start.name}: {'; '.join(reasons)}.  Leave these fields out, "
            f"so that they are those of {start.name}, or train without `start`"
        )
    load_state_strictly(captioner, tensors, start.folder / "model.safetensors")
    if not (encoder_weights and isinstance(model, FromPixels)):
        return []
    ours, theirs = recipe.encoder, start.recipe.encoder
    if ours.name != theirs.name:
        return [f"the encoder of {start.name}, {theirs.name}, is left out: the recipe has {ours.name}"]
    if any(state_dict_differences(model.encoder, encoder_weights)) and (changed := _changed_fields(ours, theirs)):
        lines = "; ".join(_contrast("encoder", name, ours, theirs) for name in changed)
        raise ValueError(
            f"start: the encoder of the recipe does not fit that of {start.name}: {lines}.  Leave these fields out, so "
            f"that they are those of {start.name}, or train without `start`"
        )
    load_state_strictly(model.encoder, encoder_weights, start.folder / "model.safetensors")
    return []


def _contradictions(start: StartModel, recipe: Recipe, feature_dim: int) -> list[str]:
    """What about a recipe's model makes its tensors differ from those of the start model; found by building models."""
    ours, theirs = recipe.model, start.recipe.model
    if ours.name != theirs.name:
        return [f"model.name is {ours.name} ({theirs.name} there)"]
    channels = start.info.feature_dim
    expected = _shapes(theirs, channels)
    different = _changed_fields(ours, theirs)
    sizes = [name for name in different if _shapes(theirs, channels, **{name: getattr(ours, name)}) != expected]
    lines = [_contrast("model", name, ours, theirs) for name in sizes]
    if feature_dim != channels:
        lines.append(f"the cells of `encoder` or `features` have {feature_dim} channels ({channels} there)")
    return lines


def _changed_fields(ours: Any, theirs: Any) -> list[str]:
    return [it.name for it in fields(ours) if getattr(ours, it.name) != getattr(theirs, it.name)]


def _contrast(part: str, name: str, ours: Any, theirs: Any) -> str:
    return f"{part}.{name} is {getattr(ours, name)} ({getattr(theirs, name)} there)"


def _shapes(config: Any, feature_dim: int, **changes: Any) -> dict[str, tuple[int, ...]] | None:
    """The shapes of a captioner's tensors, for a few words; None when the config is not possible."""
    try:
        model = build_model(replace(config, **changes), len(SPECIALS) + 1, feature_dim)
    except ValueError:
        return None
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
