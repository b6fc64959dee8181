"""`check_data`: everything that limner can find wrong with a data set, before a training does."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from limner import shipped
from limner.core.torch_free import Medium
from limner.data.checks.captions import caption_findings
from limner.data.checks.findings import Finding
from limner.data.checks.media import PictureHashes, media_findings
from limner.data.checks.words import SplitWords, split_words, word_findings
from limner.data.datasets import DataConfig
from limner.data.inspection import DataReport, inspect_data
from limner.data.store import FeatureStore, entry_key
from limner.encoders import build_encoder
from limner.runs.inputs import feature_paths, open_inputs, uses_feature_files
from limner.runs.own_recipe import count_words
from limner.runs.recipe import Recipe
from limner.text.caption_faults import CaptionRules, rules_for
from limner.text.tokens import get_tokenizer
from limner.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class DataCheck:
    """What a check found.

    report    what is in the data set, as `limner init` sees it
    findings  everything that is wrong, most important kinds first
    rules     what captions were expected to be like
    words     by split, train first; empty when there are no training captions
    notes     lines that are no faults: what was not checked, and choices of the reader
    """

    report: DataReport
    findings: tuple[Finding, ...]
    rules: CaptionRules
    words: Mapping[str, SplitWords] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_data(
    data: DataConfig | Recipe,
    store: str = "",
    language: str = "",
    words: tuple[int, int] = (3, 0),
    limit: int = 10_000,
    watch: Callable[[Sequence[Medium]], Iterable[Medium]] = iter,
) -> DataCheck:
    """Check a data set, or that of a recipe with its features.

    store     folder of a feature store that should fit the data; "": that of the recipe, if there is one
    language  of the captions, as in `limner.text.language`; "": that of most of them
    words     least and most words of a caption; a most of 0 is the one at which training cuts
    limit     files that are opened at most; duplicates and damage are looked for among these

    Raises what `inspect_data` raises.
    """
    recipe = data if isinstance(data, Recipe) else None
    hashes = PictureHashes()
    report = inspect_data(data.data if isinstance(data, Recipe) else data, limit, watch, hashes, keep_going=True)
    vocabulary = (recipe or Recipe()).vocabulary
    texts = (text for medium in report.media for text in medium.references)
    rules = rules_for(texts, language, words[0], words[1] or vocabulary.max_words)
    notes = list(report.notes)
    tables = _words(report, recipe, notes)
    findings = [*media_findings(report, hashes), *caption_findings(report.media, rules), *word_findings(tables)]
    findings += _features(report, recipe, store, notes)
    if report.unchecked:
        notes.append(f"{report.unchecked:,} files were not opened: --check N opens more")
    if report.unnamed:
        notes.append(
            f"{len(report.unnamed):,} files in the folder of the media are named by no caption, for example "
            f"{report.unnamed[0]}"
        )
    flat = sum(it.is_flat for it in hashes.hashes)
    if flat:
        notes.append(f"{flat:,} pictures have too little contrast to be compared; of these, only equal files are found")
    return DataCheck(report, tuple(findings), rules, tables, tuple(dict.fromkeys(notes)))


def _words(report: DataReport, recipe: Recipe | None, notes: list[str]) -> dict[str, SplitWords]:
    """The words of each split, with the vocabulary that a training would have."""
    training = [text for medium in report.usable if medium.split == "train" for text in medium.references]
    if not training:
        notes.append("there are no training captions: words that they lack were not looked for")
        return {}
    if recipe is None or recipe.start:
        report_of_words = count_words(training, shipped.model())
        known, tokenizer = {*report_of_words.known, *report_of_words.new}, report_of_words.tokenizer
    elif recipe.vocabulary.byte_pairs:
        notes.append("the vocabulary has byte pairs, and knows every word")
        return {}
    else:
        tokenizer = recipe.vocabulary.tokenizer
        try:
            known = set(Vocabulary.build(training, recipe.vocabulary.min_count, tokenizer).words)
        except ValueError as error:
            notes.append(f"there is no vocabulary: {error}")
            return {}
    return split_words(report.usable, get_tokenizer(tokenizer), known)


def _features(report: DataReport, recipe: Recipe | None, store: str, notes: list[str]) -> Iterator[Finding]:
    """What is wrong with the features of a recipe, or with the store in the folder `store`."""
    if not store and (recipe is None or not feature_paths(recipe)):
        return
    if not store and recipe is not None and uses_feature_files(recipe):
        try:
            _, problems = open_inputs(recipe).split_readable(report.media)
        except (ValueError, OSError, ImportError) as error:
            yield Finding("feature-store", (), str(error))
            return
        yield from (Finding("no-features", (line.partition(": ")[0],), line) for line in problems)
        return
    folder = store or (feature_paths(recipe)[0] if recipe else "")
    try:
        features = FeatureStore(Path(folder))
    except (ValueError, OSError) as error:
        yield Finding("feature-store", (), str(error))
        return
    if recipe is not None:
        yield from _of_another_recipe(features, recipe, notes)
    else:
        notes.append(f"{folder} was made by the encoder {features.provenance.get('name', 'unknown')}")
    augmentations = recipe.augmentations if recipe is not None else ("full",)
    for medium in report.media:
        if medium.id in report.unusable:
            continue
        if absent := [name for name in augmentations if entry_key(medium.id, name) not in features]:
            reason = features.failures.get(medium.id, f"not in {folder} as {', '.join(absent)}")
            yield Finding("no-features", (medium.id,), reason)
    ids = {medium.id for medium in report.media}
    yield from (Finding("extra-features", (id,), f"in {folder} only") for id in features.ids if id not in ids)


def _of_another_recipe(features: FeatureStore, recipe: Recipe, notes: list[str]) -> Iterator[Finding]:
    """A finding when the store was made by another encoder than the recipe's, or lacks an augmentation."""
    if absent := [name for name in recipe.augmentations if name not in features.augmentations]:
        yield Finding("feature-store", (), f"{features.folder} lacks the augmentations {', '.join(absent)}")
    try:
        encoder = build_encoder(recipe.encoder)
    except (ValueError, OSError, ImportError) as error:
        notes.append(f"the encoder of {features.folder} was not compared with that of the recipe: {error}")
        return
    try:
        features.require_encoder(encoder.provenance())
    except ValueError as error:
        yield Finding("feature-store", (), str(error))
