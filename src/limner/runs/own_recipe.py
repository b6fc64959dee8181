"""The recipe that `limner init` writes: it goes on from a model that is there, on data of the user's own.

`recipes/own_data.yaml` is the same recipe, written by hand.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from limner import shipped
from limner.core.files import read_json
from limner.core.torch_free import Medium
from limner.core.untrusted import load_yaml
from limner.data.datasets import DataConfig
from limner.data.new_splits import SplitPlan
from limner.runs.recipe_file import build_recipe
from limner.text.load import load_vocabulary
from limner.text.scripts import caption_notes
from limner.text.tokens import get_tokenizer
from limner.text.vocabulary import SPECIALS

# training captions from which on a new word has to occur so often: one that is seldom seen is never said
MIN_COUNTS = {20_000: 5, 5000: 3, 200: 2, 0: 1}
SIDES = 0.002  # share of the words left and right from which on a mirror image would contradict the captions


@dataclass(frozen=True)
class WordReport:
    """The words of training captions.

    counts     how often each word occurs
    min_count  a word that the model does not know is learnt when it occurs at least so often
    known      the words of the model that training starts from
    tokenizer  splits captions into words
    is_fresh   it is not the tokenizer of the model, so that all words are new
    """

    counts: Counter[str]
    min_count: int
    known: frozenset[str]
    tokenizer: str
    is_fresh: bool = False

    @property
    def found(self) -> list[str]:
        """The words that the model knows, the most frequent first."""
        return [word for word, _ in self.counts.most_common() if word in self.known]

    @property
    def new(self) -> list[str]:
        """The words that are learnt, the most frequent first."""
        return [word for word, count in self.counts.most_common() if count >= self.min_count and word not in self.known]

    @property
    def rare(self) -> int:
        """The number of words that are too rare to be learnt."""
        return len(self.counts) - len(self.found) - len(self.new)


def count_words(captions: Sequence[str], start: str | Path) -> WordReport:
    """Count the words of training captions, and compare them with those of the model in the folder `start`.

    The tokenizer is that of the model, so that its words are found again; captions in a script without blanks between
    words are split into characters there.
    """
    vocabulary = load_vocabulary(Path(start) / "vocabulary.json")
    known, tokenizer = frozenset(vocabulary.words) - {*SPECIALS}, vocabulary.tokenizer
    is_fresh = any("no blanks between words" in note for note in caption_notes(captions, tokenizer))
    if is_fresh:
        known, tokenizer = frozenset(), "script-runs"
    counts = Counter(word for text in get_tokenizer(tokenizer)(list(captions)) for word in text.split())
    min_count = next(count for least, count in MIN_COUNTS.items() if len(captions) >= least)
    return WordReport(counts, min_count, known, tokenizer, is_fresh)


@dataclass(frozen=True)
class OwnRecipe:
    """What a new recipe is written from.

    command  the command line that made it
    path     where it will be written
    splits   the folder of split lists that are written with it; "" when the data have splits of their own
    media    the media that can be used
    folder   the run folder; "": the one of `limner train` without `--out`
    """

    command: str
    path: Path
    data: DataConfig
    splits: str
    plan: SplitPlan
    media: Sequence[Medium]
    words: WordReport
    start: str = shipped.DEFAULT
    folder: str = ""

    @property
    def start_folder(self) -> Path:
        """The folder of the model that training starts from."""
        return shipped.model()

    @property
    def run(self) -> Path:
        """The run folder; without `folder` the one into which `limner train` writes without `--out`."""
        return Path(self.folder) if self.folder else Path("runs") / self.path.stem

    @property
    def training_media(self) -> list[Medium]:
        """The usable media of the training split."""
        return [medium for medium in self.media if self.plan.splits[medium.id] == "train"]


def write_own_recipe(own: OwnRecipe) -> str:
    """Write the text of a recipe: YAML with a comment for everything that a user may want to change."""
    text = "\n".join(map(_aligned, (_data(own), _start(own), _stages(own), _end(own))))
    text = f"{_head(own)}\n{text}"
    build_recipe(load_yaml(text))  # a mistake in the lines below would be found here, not in training
    return text


def _aligned(text: str) -> str:
    """Lines `name: value  # comment` with their comments in one column.

    >>> print(_aligned("start: x  # model\\nseed: 1"), end="")
    start: x                                # model
    seed: 1
    """
    parts = [line.partition("  # ") for line in text.splitlines()]
    return "".join(f"{left:39} # {right}\n" if mark else f"{left}\n" for left, mark, right in parts)


def _head(own: OwnRecipe) -> str:
    return f"""\
# Your own captioner, from {own.start}.  Written by: {own.command}
#   limner train {own.path}
#   limner evaluate {own.run} --split test
#   limner caption photo.jpg --model {own.run}
# Paths count from the folder where these commands run.  Every field can be changed here, or for one training by its
# name: limner train {own.path} --stages.0.epochs 20.  `limner train --fields` prints all fields and what they are for.
"""


def _data(own: OwnRecipe) -> str:
    counts = ", ".join(f"{split} {own.plan.count(split):,}" for split in ("train", "val", "test"))
    values = {
        "name": own.data.name,
        "annotations": own.data.annotations,
        "media": own.data.media,
        "splits": own.splits,
        "file_column": own.data.file_column,
        "caption_column": own.data.caption_column,
    }
    comments = {
        "annotations": "  # the captions",
        "media": "  # the images or clips",
        "splits": "  # the lists of train, val and test, one id per line; you may edit them",
    }
    lines = [f"  {name}: {_yaml(value)}{comments.get(name, '')}" for name, value in values.items() if value]
    lines += [] if own.data.media else ['  media: ""']
    return "\n".join([f"data:  # {counts}: {own.plan.reason}", *lines, ""])


def _yaml(value: str) -> str:
    """A string as YAML writes it on one line."""
    return yaml.safe_dump(value, width=10**9, allow_unicode=True).removesuffix("...\n").strip()


def _start(own: OwnRecipe) -> str:
    words = own.words
    sides = words.counts["left"] + words.counts["right"]
    views = "[full, crop-tl, crop-br]" if sides > SIDES * words.counts.total() else "[full, flip, crop-tl, crop-br]"
    about = "no flip: the captions say left and right" if "flip" not in views else "flip is the mirror image"
    examples = f": {', '.join(words.new[:5])}" if words.new else ""
    start = f"start: {own.start}  # encoder, captioner and words go on from this model"
    lines = [
        _fresh(own) if words.is_fresh else start,
        f"vocabulary:  # {len(words.found):,} known words, {len(words.new):,} new{examples}",
        f"  min_count: {words.min_count}  # a new word that is rarer is not learnt",
        *([f"  tokenizer: {words.tokenizer}  # splits captions into words"] if words.is_fresh else []),
        f"augmentations: {views}  # one is drawn whenever an image is read; {about}",
    ]
    return "\n".join([*lines, ""])


def _fresh(own: OwnRecipe) -> str:
    """The encoder of the model, and a new captioner as large as its own, for words that are split in another way."""
    saved = read_json(own.start_folder / "recipe.json")
    encoder = yaml.safe_dump({**saved["encoder"], "source": own.start}, default_flow_style=True, width=10**9).strip()
    model = yaml.safe_dump(saved["model"], default_flow_style=True, width=10**9).strip()
    return f"encoder: {encoder}\nmodel: {model}"


def _stages(own: OwnRecipe) -> str:
    media = own.training_media
    captions = round(statistics.median(len(medium.references) for medium in media))
    first, second = stage_settings(len(media), captions, own.words.is_fresh)
    return f"""\
stages:  # of training; each begins with the best weights so far
  - objective: {{name: xe, label_smoothing: 0.1}}
    epochs: {first.epochs}  # passes over the training split
    batch_size: {first.batch_size}  # images in a step ...
    captions_per_medium: {first.captions}  # ... each with so many of its captions, drawn anew in every epoch
    lr: {_rate(first.lr)}  # learning rate of the captioner
    encoder_lr: 0  # the encoder is frozen at first, which is fast
    weight_decay: 0.02
    schedule: {{name: one_cycle, warmup: 0.1}}
    clip_norm: 0.5
    ema_decay: {first.ema_decay}  # an average over the last steps is validated and kept
  - objective: {{name: xe, label_smoothing: 0.1}}
    epochs: {second.epochs}
    batch_size: {second.batch_size}
    captions_per_medium: {second.captions}
    lr: {_rate(second.lr)}
    encoder_lr: {_rate(second.encoder_lr)}  # now the encoder learns too, which helps most with images of another kind
    weight_decay: 0.02
    schedule: {{name: one_cycle, warmup: 0.1}}
    clip_norm: 0.5
    ema_decay: {second.ema_decay}
    patience: {second.patience}  # the stage ends after so many validations without a better score
"""


def _rate(lr: float) -> str:
    """A learning rate as YAML reads a number.

    >>> _rate(0.0003), _rate(2e-5)
    ('3.0e-4', '2.0e-5')
    """
    return f"{lr:.1e}".replace("e-0", "e-")


def _end(own: OwnRecipe) -> str:
    limit = ", limit: 500" if own.plan.count("val") > 500 else ""
    return f"""\
validation: {{metric: CIDEr, every: 1{limit}}}  # captions of the split val decide which weights are kept
decoding: {{size: 3, normalise: avg, rules: {{min_length: 3, max_length: 25}}}}  # a beam of 3
seed: 1
"""


class StageSettings(NamedTuple):
    """The numbers of a training stage that depend on the data."""

    epochs: int
    batch_size: int
    captions: int
    lr: float
    encoder_lr: float
    ema_decay: float
    patience: int | None = None


def stage_settings(media: int, captions: int, is_fresh: bool = False) -> tuple[StageSettings, StageSettings]:
    """The settings of the two stages for a training split with so many media, and captions for each of them.

    A captioner whose words are all new (`is_fresh`) learns longer, and at a higher rate.
    """
    batch_size = 16 if media < 2000 else 32
    lr = 1e-3 if is_fresh else 3e-4
    first = StageSettings(
        _epochs(6000 if is_fresh else 1800, media), batch_size, max(1, min(5, captions)), lr, 0.0, 0.98
    )
    return first, first._replace(epochs=_epochs(2800, media), lr=lr / 2, encoder_lr=2e-4, patience=3)


def _epochs(images: int, media: int) -> int:
    """The number of epochs in which about so many images are seen: 3 to 40."""
    return max(3, min(40, round(images / max(1, media))))
