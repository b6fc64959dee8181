"""Options of the searches: `Beam`, `Sample`, and how an ensemble averages its members."""

from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from limner.decode.required_words import RequiredWords, bind_required
from limner.decode.rules import Rules
from limner.text.vocabulary import Vocabulary


@runtime_checkable
class SearchOptions(Protocol):
    """The options of a search: a frozen dataclass whose `name` is a literal that no other search has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def rules(self) -> Rules: ...

    @property
    def n_best(self) -> int: ...  # captions per medium that are returned

    def bind(self, vocabulary: Vocabulary) -> "SearchOptions":
        """The same options with words as ids."""
        ...


MAX_REQUIRED_WORDS = 6  # of `Beam.must`; n required words make 2^n beams


@dataclass(frozen=True)
class Beam:
    """Options of beam search with `size` hypotheses per medium.

    A hypothesis that ends leaves the beam, and the beam shrinks by one (the search of Xu et al.'s code).  The ended
    hypothesis with the highest logprob / `divisor` wins; when none has ended at `rules.max_length`, the best unfinished
    one is returned.  Hypotheses that can no longer beat the ended ones are dropped, and leave their places to others.

    Options reproduce other published searches:

    - `finished_compete` (SA-LSTM): an ended hypothesis stays in the beam until better ones fill all slots, and in the
      end unfinished hypotheses compete with ended ones.
    - `keep_beam_full` (ruotianluo/self-critical.pytorch and its descendants): the next best hypothesis fills the slot
      of an ended one, so the beam never shrinks, and in the end unfinished hypotheses compete with ended ones.
    - `drop_hopeless` false (Show, Attend and Tell in PyTorch): a hypothesis keeps its place until it ends, and then its
      end uses up a place, also when it cannot win any more.
    - `predict_start` (VideoCaptioning): the model predicts the first token too, from the medium alone, in a step of
      its own before the `rules.max_length` others.

    `groups` above 1 selects diverse beam search (`decode.diverse`); `must` selects constrained beam search
    (`decode.constrained`).
    """

    size: int = 5  # hypotheses per medium; 1 is greedy
    length_penalty: float = 0.0  # the power of the length that a log-probability is divided by; 0: none
    rules: Rules = field(default_factory=Rules)  # about words and lengths
    finished_compete: bool = False  # ended hypotheses keep places in the beam, as in SA-LSTM
    keep_beam_full: bool = False  # an ended hypothesis' place goes to the next best, as in self-critical.pytorch
    drop_hopeless: bool = True  # hypotheses that cannot win any more leave the beam; false: as in Show, Attend and Tell
    predict_start: bool = False  # the first token is predicted from the medium alone, as in VideoCaptioning
    # power: length ** length_penalty.  wu: ((5 + length) / 6) ** length_penalty (Wu et al. 2016, arXiv:1609.08144, eq.
    # 14).  avg: length, whatever the length_penalty
    normalise: Literal["power", "wu", "avg"] = "power"
    n_best: int = 1  # captions per medium that are returned, best first
    groups: int = 1  # groups of size / groups hypotheses that avoid each other's words
    diversity: float = 0.5  # log-probability that a word loses for each time an earlier group has chosen it
    must: RequiredWords = ()  # words that the caption must contain; "orange|white" is one of them or both
    name: Literal["beam"] = "beam"

    def __post_init__(self) -> None:
        if not isfinite(self.length_penalty):
            raise ValueError(f"length_penalty is a number, got {self.length_penalty}; give a finite one")
        if self.size < 1:
            raise ValueError(f"a beam has at least one hypothesis, got size {self.size}; give 1 or more")
        if self.finished_compete and (self.length_penalty or self.normalise != "power"):
            raise ValueError(
                "finished_compete does not normalise log-probabilities: set length_penalty to 0 and normalise to power"
            )
        if self.finished_compete and (self.groups > 1 or self.n_best > 1 or self.must):
            raise ValueError("finished_compete is one beam with one caption: leave out groups, n_best and must")
        if self.keep_beam_full and (self.finished_compete or self.groups > 1 or self.must):
            raise ValueError("keep_beam_full is one beam: leave out finished_compete, groups and must")
        if not self.drop_hopeless and (self.groups > 1 or self.must):
            raise ValueError("drop_hopeless false is one beam: leave out groups and must")
        if not 1 <= self.n_best <= self.size:
            raise ValueError(
                f"a beam of {self.size} cannot give the {self.n_best} best captions: n_best must lie between 1 and size"
            )
        if self.groups < 1 or self.size % self.groups:
            raise ValueError(
                f"{self.size} hypotheses cannot be parted into {self.groups} equal groups: give a multiple of groups"
            )
        if self.must and self.groups > 1:
            raise ValueError("must and groups are two searches (constrained and diverse): give one of them")
        if len(self.must) > MAX_REQUIRED_WORDS:
            raise ValueError(f"{len(self.must)} words that must appear; at most {MAX_REQUIRED_WORDS} are possible")

    def divisor(self, length: int) -> float:
        """The number that divides the log-probability of a caption of `length` tokens, EOS included.

        >>> Beam(length_penalty=0.5).divisor(4), Beam(length_penalty=1.0, normalise="wu").divisor(7)
        (2.0, 2.0)
        """
        if self.normalise == "avg":
            return float(length)
        return float((length if self.normalise == "power" else (5 + length) / 6) ** self.length_penalty)

    def bind(self, vocabulary: Vocabulary) -> "Beam":
        """The same options with words as ids.

        Raises ValueError for a required word that the vocabulary lacks or that is also forbidden, and for a word of
        several pieces, which can be neither required nor forbidden (`decode.required_words`).
        """
        rules = self.rules.bind(vocabulary)
        never = [word for word in rules.never if isinstance(word, int)]
        return replace(self, rules=rules, must=bind_required(self.must, vocabulary, never))


@dataclass(frozen=True)
class Sample:
    """Options of sampling: `count` captions per medium are drawn word by word from softmax(logits / temperature).

    `top_k` and `top_p` restrict every draw to the likeliest words.
    """

    count: int = 1  # captions per medium
    temperature: float = 1.0  # below 1: likelier words
    rules: Rules = field(default_factory=Rules)  # about words and lengths
    top_k: int | None = None  # only the k likeliest words (Fan et al. 2018, arXiv:1805.04833)
    top_p: float | None = None  # only the fewest words that sum to p (Holtzman et al. 2020, arXiv:1904.09751)
    name: Literal["sample"] = "sample"

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.count < 1:
            raise ValueError(
                f"expected temperature > 0 and count >= 1, got {self.temperature} and {self.count}; "
                "for the likeliest words use a beam of size 1"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is a number of words, 1 or more; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0; got {self.top_p}")

    @property
    def n_best(self) -> int:
        """Captions per medium that are returned, in the order they were sampled."""
        return self.count

    def bind(self, vocabulary: Vocabulary) -> "Sample":
        """The same options with words as ids.  Raises ValueError for a forbidden word of several pieces."""
        return replace(self, rules=self.rules.bind(vocabulary))


@dataclass(frozen=True)
class Averaging:
    """How an ensemble averages the predictions of its members.

    `weights`, one per member, are scaled to sum to 1 (None: equal weights).  `of` selects the mean of probabilities,
    or the mean of log-probabilities, which is a product of experts.
    """

    weights: tuple[float, ...] | None = None
    of: Literal["probabilities", "log_probabilities"] = "probabilities"


EQUAL_WEIGHTS = Averaging()

Decoding = SearchOptions  # `Beam`, `Sample`, or the options of a registered search


def media_per_search(options: Decoding, media: int) -> int:
    """How many media one search takes, where a search without required words takes `media`.

    A constrained search has a beam for every subset of its words, so one medium needs as much memory as 2^words media
    in a search without them.

    >>> media_per_search(Beam(), 64), media_per_search(Beam(must=("dog", "red")), 64)
    (64, 16)
    """
    return max(1, media >> len(options.must)) if isinstance(options, Beam) else media


def with_options(decoding: SearchOptions, beam: int | None = None, **options: Any) -> SearchOptions:
    """`decoding` with some options replaced: `beam` is its size, all others are fields of `Beam` or `Rules`.

    Raises TypeError for an option that does not exist, ValueError for a value that is not allowed.

    >>> with_options(Beam(size=5), beam=3, max_length=12).rules.max_length
    12
    """
    given = {name: value for name, value in {"size": beam, **options}.items() if value is not None}
    if not given:
        return decoding
    base = decoding if isinstance(decoding, Beam) else Beam(rules=decoding.rules)
    of_rules = {field.name for field in fields(Rules)}
    of_beam = {field.name for field in fields(Beam)} - {"rules", "name"}
    if unknown := [name for name in given if name not in of_rules | of_beam]:
        known = ", ".join(sorted({"beam"} | of_beam - {"size"} | of_rules))
        raise TypeError(f"unknown option {unknown[0]!r} of a caption; known are {known}")
    rules = replace(base.rules, **{name: value for name, value in given.items() if name in of_rules})
    return replace(base, rules=rules, **{name: value for name, value in given.items() if name in of_beam})


def with_beam(decoding: Beam, size: int | None = None, length_penalty: float | None = None, **rules: object) -> Beam:
    """`decoding` with the given values replaced; None leaves a value as it is.

    A `length_penalty` changes `normalise` from `avg`, which ignores the penalty, to `power`.
    """
    if length_penalty is not None and decoding.normalise == "avg":
        decoding = replace(decoding, normalise="power")
    given = {name: value for name, value in rules.items() if value is not None}
    return replace(
        decoding,
        size=decoding.size if size is None else size,
        length_penalty=decoding.length_penalty if length_penalty is None else length_penalty,
        rules=replace(decoding.rules, **given) if given else decoding.rules,  # type: ignore[arg-type]
    )
