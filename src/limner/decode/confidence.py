"""Confidence: the calibrated probability that people's captions would agree with a caption.

A calibration holds a logistic regression from what the model knows about its caption (how likely its words are, how
long it is, how far the picture is from those of the training data) to the probability that the caption's CIDEr exceeds
a bar.  `limner calibrate` fits it on captions that people wrote.  It is a JSON file beside the weights, and needs no
PyTorch.

Platt, "Probabilistic outputs for support vector machines", 1999; distances as in Lee et al., "A simple unified
framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018, with a covariance of low
rank: a diagonal one did not tell noise from photographs (docs/experiments/shipped-model.md).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from pydantic import TypeAdapter, ValidationError

from limner.core.files import read_json, write_json
from limner.core.torch_free import Caption
from limner.decode.options import Decoding

FILE = "calibration.json"
FORMAT = 1
FEATURES = ("log-probability per token", "tokens", "distance")
RANK = 64  # most directions of `Familiarity`
RIDGE = 1.0  # strength of the penalty on the weights of standardised features


@dataclass(frozen=True)
class Logistic:
    """A logistic regression on standardised features: p = sigmoid(bias + weights . (x - mean) / scale)."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __call__(self, features: Float[np.ndarray, "C F"]) -> Float[np.ndarray, " C"]:
        """The probability of each row, in (0, 1)."""
        z = (features - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weights) + self.bias
        return 1 / (1 + np.exp(-np.clip(z, -30, 30)))


def fit_logistic(features: Float[np.ndarray, "C F"], right: Bool[np.ndarray, " C"]) -> Logistic:
    """Fit a logistic regression by Newton's method, with a small quadratic penalty on the weights (not on the bias).

    Raises ValueError when all captions are right, or none is: there is nothing to tell apart.

    One feature that says nothing leaves the base rate.

    >>> model = fit_logistic(np.array([[1.0], [1.0], [1.0], [1.0]]), np.array([True, True, True, False]))
    >>> model(np.array([[1.0]])).round(3).tolist()
    [0.75]
    """
    if right.all() or not right.any():
        raise ValueError(
            f"{'all' if right.all() else 'none'} of {len(right)} captions are above the bar: choose another --bar"
        )
    mean, deviation = features.mean(0), features.std(0)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    x = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    penalty = np.append(np.full(features.shape[1], RIDGE), 0.0)
    w = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (p - right) + penalty * w
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + np.diag(penalty) + 1e-9 * np.eye(len(w)), gradient)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    return Logistic(tuple(mean.tolist()), tuple(scale.tolist()), tuple(w[:-1].tolist()), float(w[-1]))


@dataclass(frozen=True)
class Familiarity:
    """Where the pooled cells of training pictures lie, and which distance from there is unusual.

    The training pictures vary most along `directions`, K orthogonal unit vectors, each with its variance; `rest` is the
    mean variance along all others.  The squared distance of a picture is the mean over the D channels of its squared
    coordinates, each divided by its variance (a Mahalanobis distance with a covariance of low rank): about 1 for a
    picture like those of training.  What lies outside of the directions weighs most, because `rest` is small.
    """

    mean: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    variances: tuple[float, ...]
    rest: float
    limit: float  # the 99th percentile of the distances of validation pictures

    def distance(self, pooled: Float[np.ndarray, "C D"]) -> Float[np.ndarray, " C"]:
        """The distance of each picture from the training pictures.

        Two channels: the first one has the variance 4, the second one 1.

        >>> familiar = Familiarity((0.0, 0.0), ((1.0, 0.0),), (4.0,), 1.0, limit=2.0)
        >>> familiar.distance(np.array([[2.0, 1.0], [0.0, 4.0]])).round(3).tolist()
        [1.0, 2.828]
        """
        centred = pooled - np.array(self.mean)
        along = centred @ np.array(self.directions).reshape(-1, centred.shape[1]).T
        outside = np.maximum(0, (centred**2).sum(1) - (along**2).sum(1))
        return np.sqrt(((along**2 / np.array(self.variances)).sum(1) + outside / self.rest) / centred.shape[1])


def fit_familiarity(
    training: Float[np.ndarray, "C D"], validation: Float[np.ndarray, "V D"], percentile: float = 99.0
) -> Familiarity:
    """Mean and directions of the training pictures' pooled cells, and a percentile of the validation's distances.

    There are at most RANK directions, and at most half as many as channels, or a tenth as many as pictures.
    """
    mean = training.mean(0)
    _, singular, vectors = np.linalg.svd((training - mean).astype(np.float64), full_matrices=False)
    variances = singular**2 / len(training)
    rank = max(1, min(RANK, training.shape[1] // 2, len(training) // 10))
    smallest = max(1e-12, 1e-6 * float(variances.sum()))  # of channels that do not vary at all
    rest = max(smallest, float(variances[rank:].sum()) / max(1, training.shape[1] - rank))
    found = Familiarity(
        _numbers(mean),
        tuple(map(_numbers, vectors[:rank])),
        _numbers(np.maximum(variances[:rank], smallest)),
        rest,
        0.0,
    )
    return replace(found, limit=float(np.percentile(found.distance(validation), percentile)))


def _numbers(values: Float[np.ndarray, " K"]) -> tuple[float, ...]:
    """Values with six significant digits, which is enough here and keeps the file small."""
    return tuple(float(f"{value:.6g}") for value in values)


class Reliability(NamedTuple):
    """How well probabilities fit, in ten equal bins of [0, 1]."""

    counts: list[int]  # captions per bin
    confidence: list[float]  # mean probability per bin; 0 where it is empty
    accuracy: list[float]  # share of captions above the bar, per bin
    brier: float  # mean squared error of the probabilities
    base_brier: float  # the same for the base rate as the probability of every caption
    ece: float  # expected calibration error: mean difference of confidence and accuracy, weighted by the counts
    auc: float  # probability that a right caption has a higher probability than a wrong one


def reliability(probability: Float[np.ndarray, " C"], right: Bool[np.ndarray, " C"], bins: int = 10) -> Reliability:
    """Compare probabilities with what came true.

    Two captions at .9 of which one is right, and one wrong one at .1: in the last bin the mean is .9 and the share .5,
    in the second one .1 and 0.

    >>> found = reliability(np.array([0.9, 0.9, 0.1]), np.array([True, False, False]))
    >>> round(found.ece, 3), round(found.brier, 3), found.auc
    (0.3, 0.277, 0.75)
    """
    place = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.maximum(count, 1)
    confidence = np.bincount(place, probability, bins) / filled
    accuracy = np.bincount(place, right, bins) / filled
    ece = float((count * np.abs(confidence - accuracy)).sum() / len(right))
    yes, no = probability[right][:, None], probability[~right][None]
    auc = float(((yes > no) + 0.5 * (yes == no)).mean()) if right.any() and not right.all() else 0.5
    brier, base = ((probability - right) ** 2).mean(), right.mean() * (1 - right.mean())
    return Reliability(count.tolist(), confidence.tolist(), accuracy.tolist(), float(brier), float(base), ece, auc)


def cross_validated(
    features: Float[np.ndarray, "C F"], right: Bool[np.ndarray, " C"], folds: int = 5, seed: int = 0
) -> Float[np.ndarray, " C"]:
    """The probability of every caption from a regression that was fitted without its fold."""
    order = np.random.default_rng(seed).permutation(len(right))
    probability = np.empty(len(right))
    for fold in range(folds):
        held_out = order[fold::folds]
        rest = np.setdiff1d(order, held_out)
        probability[held_out] = fit_logistic(features[rest], right[rest])(features[held_out])
    return probability


@dataclass(frozen=True)
class Calibration:
    """What `limner calibrate` writes into a run; see the top of this file."""

    bar: float  # the CIDEr, in [0, 10], that a caption must exceed to count as right
    decoding: dict[str, Any]  # the search that was calibrated; others have no confidence
    media: str  # images or clips: what was captioned
    frames: int  # of a clip
    regression: Logistic  # on FEATURES
    familiarity: Familiarity
    measured: dict[str, Any] = field(default_factory=dict)  # how it was fitted, and its fit on held-out captions
    features: tuple[str, ...] = FEATURES
    format: int = FORMAT

    def reads(self, frames: int, together: bool) -> bool:
        """Whether media of `frames` frames are those that were calibrated; `together`: a clip's frames are read so."""
        return frames == 1 if self.media == "images" else together and frames == self.frames

    def knows(self, decoding: Decoding) -> bool:
        """Whether this search (with words as ids) is the one that was calibrated, whatever its `n_best`."""
        return comparable(decoding) == self.decoding

    def confidence(self, captions: Sequence[Caption], pooled: Float[np.ndarray, "C D"]) -> Float[np.ndarray, " C"]:
        """The probability of each caption that its CIDEr against people's captions exceeds the bar."""
        return self.regression(caption_features(captions, self.familiarity.distance(pooled)))

    def rate(
        self,
        captions: Sequence[Caption],
        pooled: Float[np.ndarray, "C D"],
        decoding: Decoding,
        frames: int,
        together: bool = True,
    ) -> list[Caption]:
        """The captions with their confidence, and whether their pictures are unfamiliar, where that is known.

        `pooled` are the pooled cells of the pictures; `decoding` has words as ids; `frames` and `together` as in
        `reads`.  The familiarity of a picture does not depend on the search.
        """
        if not self.reads(frames, together):
            return [*captions]
        far = self.familiarity.distance(pooled) > self.familiarity.limit
        confidence = self.confidence(captions, pooled).tolist() if self.knows(decoding) else [None] * len(captions)
        return [
            replace(caption, confidence=p, unfamiliar=bool(unusual))
            for caption, p, unusual in zip(captions, confidence, far, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write `calibration.json` into a folder."""
        write_json(folder / FILE, asdict(self), indent=None)


def load_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of a run, a packed or an exported model; None when it has none.

    Raises ValueError when the file is damaged or of a newer format.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    saved = read_json(path)
    if isinstance(saved, dict) and isinstance(saved.get("format"), int) and saved["format"] > FORMAT:
        raise ValueError(f"{path} has format {saved['format']}; this limner reads up to {FORMAT}: update limner")
    try:
        found = TypeAdapter(Calibration).validate_python(saved)
    except ValidationError as error:
        raise ValueError(f"{path} is no calibration ({error}); make it again with: limner calibrate RUN") from error
    if found.features != FEATURES or len(found.regression.weights) != len(FEATURES):
        raise ValueError(f"{path} has other features than {', '.join(FEATURES)}: make it again with: limner calibrate")
    return found


def comparable(decoding: Decoding) -> dict[str, Any]:
    """A decoding (with words as ids) as JSON values, without the number of captions that are returned."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(decoding)))
    return {name: value for name, value in values.items() if name != "n_best"}


def caption_features(captions: Sequence[Caption], distance: Float[np.ndarray, " C"]) -> Float[np.ndarray, "C F"]:
    """FEATURES of captions: log-probability per token, number of tokens (the end included), distance of the picture."""
    tokens = np.array([max(1, len(caption.words) + caption.finished) for caption in captions], float)
    logprob = np.array([caption.logprob for caption in captions])
    return np.column_stack([logprob / tokens, tokens, distance])
