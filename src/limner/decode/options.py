"""How captions are searched or drawn: the options of a beam and of sampling."""

from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from limner.decode.rules import Rules, RuleWords, spell_words, word_ids
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
        """The same with words as ids."""
        ...


MAX_REQUIRED_WORDS = 6  # words that a caption can be made to hold; a search has 2^MAX_REQUIRED_WORDS beams


@dataclass(frozen=True)
class Beam:
    """`size` hypotheses per medium; one that ends is set aside and the beam shrinks by one (Xu et al.'s own search).

    The best ended hypothesis wins by logprob / `divisor`; when none has ended at `rules.max_length` the best unfinished
    one is returned.  With `finished_compete` it is SA-LSTM's search, for parity: an ended hypothesis keeps its
    place only until better ones take all places, and in the end the unfinished ones compete.  With `keep_beam_full`
    it is that of ruotianluo/self-critical.pytorch and its descendants: the place of an ended hypothesis goes to the
    next best one, so that the beam never shrinks, and in the end the unfinished ones compete.

    With `groups` it is diverse beam search (see `decode.diverse`), with `must` constrained (see `decode.constrained`).
    """

    size: int = 5  # hypotheses per medium; 1 is greedy
    length_penalty: float = 0.0  # the power of the length that a log-probability is divided by; 0: none
    rules: Rules = field(default_factory=Rules)  # about words and lengths
    finished_compete: bool = False  # ended hypotheses keep places in the beam, as in SA-LSTM
    keep_beam_full: bool = False  # an ended hypothesis' place goes to the next best, as in self-critical.pytorch
    # power: length ** length_penalty.  wu: ((5 + length) / 6) ** length_penalty (Wu et al. 2016, arXiv:1609.08144, eq.
    # 14).  avg: length, whatever the length_penalty
    normalise: Literal["power", "wu", "avg"] = "power"
    n_best: int = 1  # captions per medium that are returned, best first
    groups: int = 1  # of size / groups hypotheses each, which avoid each other's words ...
    diversity: float = 0.5  # ... by so much log-probability
    must: RuleWords = ()  # words that the caption has to hold
    name: Literal["beam"] = "beam"

    def __post_init__(self) -> None:
        if not isfinite(self.length_penalty):
            raise ValueError(f"length_penalty is a number, got {self.length_penalty}")
        if self.size < 1:
            raise ValueError(f"a beam has at least one hypothesis, got size {self.size}")
        if self.finished_compete and (self.length_penalty or self.normalise != "power"):
            raise ValueError("finished_compete compares plain log-probabilities: set length_penalty to 0")
        if self.finished_compete and (self.groups > 1 or self.n_best > 1 or self.must):
            raise ValueError(
                "finished_compete is one beam with one caption: groups, n_best and must are of other searches"
            )
        if self.keep_beam_full and (self.finished_compete or self.groups > 1 or self.must):
            raise ValueError("keep_beam_full is one beam: finished_compete, groups and must are of other searches")
        if not 1 <= self.n_best <= self.size:
            raise ValueError(
                f"a beam of {self.size} cannot give the {self.n_best} best captions: n_best is 1 to the size"
            )
        if self.groups < 1 or self.size % self.groups:
            raise ValueError(f"{self.size} hypotheses cannot be parted into {self.groups} equal groups")
        if self.must and self.groups > 1:
            raise ValueError("must and groups are two searches: give one of them")
        if len(self.must) > MAX_REQUIRED_WORDS:
            raise ValueError(f"{len(self.must)} words that must appear; at most {MAX_REQUIRED_WORDS}")

    def divisor(self, length: int) -> float:
        """What the log-probability of a caption of `length` tokens, EOS counted, is divided by."""
        if self.normalise == "avg":
            return float(length)
        return float((length if self.normalise == "power" else (5 + length) / 6) ** self.length_penalty)

    def bind(self, vocabulary: Vocabulary) -> "Beam":
        """The same with words as ids.  Raises ValueError for words that must appear but cannot, and for those that can
        be neither made to appear nor forbidden."""
        rules = self.rules.bind(vocabulary)
        spoken = [word for entry in self.must if isinstance(entry, str) for word in spell_words(entry, vocabulary)]
        if unknown := [word for word in dict.fromkeys(spoken) if word not in vocabulary.ids]:
            raise ValueError(f"the vocabulary has no {', '.join(map(repr, unknown))}, which must appear")
        known = (entry for entry in self.must if isinstance(entry, int))
        ids = tuple(dict.fromkeys((*word_ids(spoken, vocabulary), *known)))
        if both := set(ids) & set(rules.never):
            raise ValueError(f"{', '.join(repr(vocabulary.words[i]) for i in both)} must appear and must never appear")
        return replace(self, rules=rules, must=ids)


@dataclass(frozen=True)
class Sample:
    """`count` captions per medium drawn from softmax(logits / temperature), of the likeliest words only when `top_k`
    or `top_p` say so."""

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
                "for the likeliest words use greedy()"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is a number of words, 1 or more; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0; got {self.top_p}")

    @property
    def n_best(self) -> int:
        """Captions per medium that are returned, in the order drawn."""
        return self.count

    def bind(self, vocabulary: Vocabulary) -> "Sample":
        """The same with words as ids."""
        return replace(self, rules=self.rules.bind(vocabulary))


@dataclass(frozen=True)
class Averaging:
    """How the predictions of an ensemble's members are averaged.

    `weights`, one per member, are made to sum to 1 (None: equal).  A mean of log-probabilities is a product of experts.
    """

    weights: tuple[float, ...] | None = None
    of: Literal["probabilities", "log_probabilities"] = "probabilities"


EQUAL_WEIGHTS = Averaging()

Decoding = SearchOptions  # `Beam`, `Sample`, or those of a registered search


def media_per_search(options: Decoding, media: int) -> int:
    """How many of `media` are searched at a time: a constrained search has a beam for every set of its words, so that
    it takes as much memory on one medium as a beam on 2^words."""
    return max(1, media >> len(options.must)) if isinstance(options, Beam) else media


def with_options(decoding: SearchOptions, beam: int | None = None, **options: Any) -> SearchOptions:
    """`decoding` with other options: `beam` hypotheses, or fields of `Beam` and of `Rules` by their names.

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

    A length_penalty that is given counts: `avg`, which has none, becomes `power`.
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
