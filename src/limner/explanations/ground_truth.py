"""Ground truth of the pointing game on the micro-world: the cells on the object that a word names, while it acts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from limner.core.types import Layout
from limner.data.shapes_words import COLOURS, Box, Scene
from limner.metrics.microworld import LONGEST_PHRASE, PHRASES, parse_caption, resolve_mention

Kind = Literal["object", "colour", "event", "time"]


@dataclass(frozen=True)
class PointingTarget:
    """The cells in which the maximum of a word's map should lie.

    The kinds "object" and "colour" mean cells on the object that is named, "event" cells on the object that acts, while
    it acts, and "time" all cells of the times at which it acts.
    """

    word: int  # index in `caption.split()`
    kind: Kind
    cells: Bool[np.ndarray, " N"]


def pointing_targets(
    caption: str, scene: Scene, layout: Layout, boxes: Float[np.ndarray, "N 4"]
) -> list[PointingTarget]:
    """The targets of all words that are true of the scene.

    `boxes` are the relative xyxy boxes of the cells in the image.  The layout's t steps are equal parts of the clip.
    Where there is one cell per step, it covers the whole image, and only targets of kind "time" are given.
    """
    claims = parse_caption(caption)
    object_ids = [resolve_mention(mention, scene) for mention in claims.mentions]
    words = caption.lower().split()
    targets: list[PointingTarget] = []
    spatial = layout.h * layout.w > 1
    always = np.ones(scene.frames, dtype=bool)
    for mention, k in zip(claims.mentions, object_ids, strict=True):
        if k is None or not spatial:
            continue
        cells = cells_on_object(scene.objects[k].boxes, always, layout, boxes)
        targets.append(PointingTarget(mention.word, "object", cells))
        if mention.colour is not None and words[mention.word - 1] in COLOURS:
            targets.append(PointingTarget(mention.word - 1, "colour", cells))
    for happening in claims.motions:
        subject = None if happening.subject is None else object_ids[happening.subject]
        event = next((e for e in scene.events if (e.object, e.motion) == (subject, happening.motion)), None)
        if event is None:  # the claim is not true, or it says that the object stays still
            continue
        active = np.array([event.start <= frame / scene.fps <= event.end for frame in range(scene.frames)])
        times = np.repeat(_active_times(active, layout), layout.h * layout.w)
        for word in _phrase(words, happening.word):
            targets.append(PointingTarget(word, "time", times))
            if spatial:
                cells = cells_on_object(scene.objects[event.object].boxes, active, layout, boxes)
                targets.append(PointingTarget(word, "event", cells))
    return targets


def cells_on_object(
    track: tuple[Box, ...], active: Bool[np.ndarray, " F"], layout: Layout, boxes: Float[np.ndarray, "N 4"]
) -> Bool[np.ndarray, " N"]:
    """Cells whose centre lies in the object's box, or that hold the centre of this box, in an active frame.

    `track` is the box of the object in every frame; `active` says in which frames it counts.
    """
    cells = boxes.reshape(layout.t, -1, 4)
    hits = np.zeros(cells.shape[:2], dtype=bool)
    for part, frames in enumerate(_frames(len(track), layout)):
        for frame in frames:
            if active[frame]:
                hits[part] |= _overlap(cells[part], track[frame])
    return hits.ravel()


def _overlap(cells: Float[np.ndarray, "n 4"], box: Box) -> Bool[np.ndarray, " n"]:
    """Cells (xyxy) with their centre in the box, or with the centre of the box in them."""
    left, top, right, bottom = cells.T
    x, y, u, v = (left + right) / 2, (top + bottom) / 2, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = (box[0] <= x) & (x <= box[2]) & (box[1] <= y) & (y <= box[3])
    return inside | ((left <= u) & (u < right) & (top <= v) & (v < bottom))


def _active_times(active: Bool[np.ndarray, " F"], layout: Layout) -> Bool[np.ndarray, " t"]:
    """The times of the layout in which at least one frame is active."""
    return np.array([any(active[frame] for frame in frames) for frames in _frames(len(active), layout)])


def _frames(count: int, layout: Layout) -> Iterator[list[int]]:
    """The frames of the clip that belong to each time of the layout, at least one."""
    for part in range(layout.t):
        inside = [frame for frame in range(count) if frame * layout.t // count == part]
        yield inside or [(2 * part + 1) * count // (2 * layout.t)]


def _phrase(words: list[str], begin: int) -> Iterator[int]:
    """Indices of the words that name a motion, for example "moves left" or "gets bigger", without "to" and "the"."""
    phrases = [words[begin : begin + n] for n in range(LONGEST_PHRASE, 0, -1)]
    motion = next(phrase for phrase in phrases if PHRASES.get(tuple(phrase), ("",))[0] == "motion")
    return (begin + k for k, word in enumerate(motion) if word not in ("to", "the"))
