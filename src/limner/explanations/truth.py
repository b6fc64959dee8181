"""Where a word of a micro-world caption points: the cells on the object that it names, while what it says happens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from limner.core.types import Layout
from limner.data.shapes_words import COLOURS, Box, Scene
from limner.metrics.microworld import LONGEST_PHRASE, PHRASES, parse_caption, resolve_mention

Kind = Literal["object", "colour", "event", "time"]
WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Place:
    """The cells in which the maximum of a word's map should lie.

    object, colour: on the object that is named.  event: on the object that does it, between its beginning and its end.
    time: anywhere in the picture, between that beginning and end.
    """

    word: int  # its place in `caption.split()`
    kind: Kind
    cells: Bool[np.ndarray, " N"]


def places(caption: str, scene: Scene, layout: Layout, boxes: Float[np.ndarray, "N 4"]) -> list[Place]:
    """The places of all words that say something true of the scene; of cells that are the whole picture, only times.

    `boxes` are the cells' relative xyxy boxes in the picture; layout.t equal parts of the clip follow one another.
    """
    claims = parse_caption(caption)
    meant = [resolve_mention(mention, scene) for mention in claims.mentions]
    words = caption.lower().split()
    found: list[Place] = []
    spatial = layout.h * layout.w > 1
    everywhen = np.ones(scene.frames, dtype=bool)
    for mention, k in zip(claims.mentions, meant, strict=True):
        if k is None or not spatial:
            continue
        on = on_object(scene.objects[k].boxes, everywhen, layout, boxes)
        found.append(Place(mention.word, "object", on))
        if mention.colour is not None and words[mention.word - 1] in COLOURS:
            found.append(Place(mention.word - 1, "colour", on))
    for stated_motion in claims.motions:
        subject = None if stated_motion.subject is None else meant[stated_motion.subject]
        event = next((e for e in scene.events if (e.object, e.motion) == (subject, stated_motion.motion)), None)
        if event is None:  # not true, or that something stays still
            continue
        during = np.array([event.start <= frame / scene.fps <= event.end for frame in range(scene.frames)])
        then = np.repeat(_during(during, layout), layout.h * layout.w)
        for word in _phrase(words, stated_motion.word):
            found.append(Place(word, "time", then))
            if spatial:
                found.append(Place(word, "event", on_object(scene.objects[event.object].boxes, during, layout, boxes)))
    return found


def on_object(
    track: tuple[Box, ...], during: Bool[np.ndarray, " F"], layout: Layout, boxes: Float[np.ndarray, "N 4"]
) -> Bool[np.ndarray, " N"]:
    """Cells whose centre lies in the object's box in one of the frames they stand for, or that hold its centre."""
    cells = boxes.reshape(layout.t, -1, 4)
    on = np.zeros(cells.shape[:2], dtype=bool)
    for part, frames in enumerate(_frames(len(track), layout)):
        for frame in frames:
            if during[frame]:
                on[part] |= _overlap(cells[part], track[frame])
    return on.ravel()


def _overlap(cells: Float[np.ndarray, "n 4"], box: Box) -> Bool[np.ndarray, " n"]:
    left, top, right, bottom = cells.T
    x, y, u, v = (left + right) / 2, (top + bottom) / 2, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    centred = (box[0] <= x) & (x <= box[2]) & (box[1] <= y) & (y <= box[3])
    return centred | ((left <= u) & (u < right) & (top <= v) & (v < bottom))


def _during(during: Bool[np.ndarray, " F"], layout: Layout) -> Bool[np.ndarray, " t"]:
    return np.array([any(during[frame] for frame in frames) for frames in _frames(len(during), layout)])


def _frames(count: int, layout: Layout) -> Iterator[list[int]]:
    """The frames of the clip that each of the layout's parts of it stands for, at least one."""
    for part in range(layout.t):
        inside = [frame for frame in range(count) if frame * layout.t // count == part]
        yield inside or [(2 * part + 1) * count // (2 * layout.t)]


def _phrase(words: list[str], begin: int) -> Iterator[int]:
    """The places of the words that say what happens: "moves left", "gets bigger", "goes to the left" without its
    middle."""
    phrases = [words[begin : begin + n] for n in range(LONGEST_PHRASE, 0, -1)]
    said = next(phrase for phrase in phrases if PHRASES.get(tuple(phrase), ("",))[0] == "motion")
    return (begin + k for k, word in enumerate(said) if word not in ("to", "the"))
