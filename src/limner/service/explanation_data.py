"""An explanation as data, for programs that draw it themselves: maps of every word, and the frames below them."""

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import BaseModel, Field

from limner.explanations.explanation_input import DisplayFrames
from limner.explanations.maps import Explanation
from limner.explanations.overlay import above_mean

SIDE = 960  # pixels of the longer side of an image, ...
CLIP_SIDE = 480  # ... and of the frames of a clip


class WordExplanation(BaseModel):
    """A word and what it depends on."""

    word: str
    probability: float = Field(description="Given the words before it")
    map: list[list[list[float]]] = Field(
        description="Weights of the cells (t, h, w), >= 0; those of attention sum to 1"
    )
    shown: list[list[list[float]]] = Field(description="What exceeds the mean, in [0, 1]: how the cells are drawn")


class Frame(BaseModel):
    """A frame of the medium, one per step in time of the maps."""

    seconds: float | None = Field(description="Since the beginning of the file; null of an image")
    image: str = Field(description="JPEG as a data URL")


class ExplanationData(BaseModel):
    """The answer of /v1/explain with format json."""

    caption: str
    method: str
    words: list[WordExplanation]
    frames: list[Frame]
    kept_region: tuple[float, float, float, float] = Field(
        description="The part of the frames that the cells tile: left, top, right, bottom in [0, 1]"
    )
    regions: list[list[float]] | None = Field(
        description="Boxes of a detector's cells, in [0, 1]; null: cells tile a grid"
    )


def explanation_data(explanation: Explanation, shown: DisplayFrames) -> ExplanationData:
    """The data of an explanation; of a clip, the frame in the middle of every step in time."""
    steps = explanation.layout.t
    nearest = [int(np.abs(shown.moments - (step + 0.5) / steps).argmin()) for step in range(steps)]
    side = SIDE if len(shown.frames) == 1 else CLIP_SIDE
    drawn = [above_mean(weights, explanation.real).reshape(explanation.layout) for weights in explanation.maps]
    return ExplanationData(
        caption=explanation.text,
        method=explanation.method,
        words=[
            WordExplanation(word=word, probability=round(float(p), 4), map=_rounded(weights), shown=_rounded(intensity))
            for word, p, weights, intensity in zip(
                explanation.words, explanation.probabilities, explanation.grid, drawn, strict=True
            )
        ],
        frames=[
            Frame(
                seconds=None if shown.seconds is None else round(float(shown.seconds[index]), 3),
                image=_data_url(shown.frames[index], side),
            )
            for index in nearest
        ],
        kept_region=shown.kept_region,
        regions=None if explanation.regions is None else explanation.regions.astype(float).round(4).tolist(),
    )


def _rounded(values: np.ndarray) -> list[list[list[float]]]:
    rounded: list[list[list[float]]] = values.astype(float).round(5).tolist()
    return rounded


def _data_url(frame: UInt8[np.ndarray, "H W 3"], side: int) -> str:
    image, file = Image.fromarray(frame), io.BytesIO()
    image.thumbnail((side, side))
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
