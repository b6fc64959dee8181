"""The micro-world's truth and its wording: what is in a scene, and sentences that say so.

Boxes are relative xyxy in [0, 1], y downward; times are seconds; a frame f is shown at f / fps.
"""

from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {  # RGB [0, 255]; every two are at least 120 apart, and all are far from the greys of the backgrounds
    "red": (215, 25, 30),
    "yellow": (250, 225, 30),
    "green": (20, 150, 50),
    "blue": (30, 60, 225),
    "purple": (165, 40, 200),
    "white": (252, 252, 252),
    "black": (8, 8, 8),
}
SIZES = {"small": (0.19, 0.23), "large": (0.33, 0.38)}  # side of the box relative to the picture, low to high
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
MOTIONS = {  # canonical name -> how references say it
    "moves left": ("moves left", "goes left", "slides left"),
    "moves right": ("moves right", "goes right", "slides right"),
    "moves up": ("moves up", "goes up", "slides up"),
    "moves down": ("moves down", "goes down", "slides down"),
    "grows": ("grows", "gets bigger"),
    "shrinks": ("shrinks", "gets smaller"),
}
MARGIN = 0.04  # least gap between two boxes, relative to the picture, for a relation to be clear


@dataclass(frozen=True)
class Thing:
    """One object.  `size` is its size in the first frame; `boxes` has one box per frame (a picture has one frame)."""

    shape: str
    colour: str
    size: str
    boxes: tuple[Box, ...]

    @property
    def box(self) -> Box:
        """Where it is in the first frame."""
        return self.boxes[0]


@dataclass(frozen=True)
class Relation:
    """`objects[subject]` is `name` ("left of", "right of", "above", "below") `objects[object]`."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True)
class Event:
    """`objects[object]` does `motion` (a key of MOTIONS) from `start` to `end` seconds; its box changes only then."""

    object: int
    motion: str
    start: float
    end: float


@dataclass(frozen=True)
class Scene:
    """Everything there is to say about a picture (fps 0, no events) or a clip (no relations, events in order).

    Objects of a picture are ordered from left to right or from top to bottom; those of a clip by when they first move.
    """

    objects: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()
    events: tuple[Event, ...] = ()
    fps: float = 0.0

    @property
    def frames(self) -> int:
        return len(self.objects[0].boxes)


def relation(a: Box, b: Box) -> str | None:
    """How box `a` stands to box `b` along the axis on which their centres differ most; None if the gap is not clear."""
    right, down = (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
    if abs(right) > abs(down):
        name, gap = ("left of", b[0] - a[2]) if right > 0 else ("right of", a[0] - b[2])
    else:
        name, gap = ("above", b[1] - a[3]) if down > 0 else ("below", a[1] - b[3])
    return name if gap >= MARGIN else None


def relations(objects: tuple[Thing, ...]) -> tuple[Relation, ...]:
    """Every clear relation between two different objects, both ways round."""
    named = [(i, relation(a.box, b.box), j) for i, a in enumerate(objects) for j, b in enumerate(objects) if i != j]
    return tuple(Relation(i, name, j) for i, name, j in named if name is not None)


# {a} {b} {c}: the objects in the scene's order, with article; {p} {q}: the first and the second event's verb phrase.
# Every template must be understood by limner.metrics.microworld; tests hold every reference against it.
ONE = (
    "{a}",
    "there is {a}",
    "a picture of {a}",
    "the picture shows {a}",
    "only {a} can be seen",
    "{a} and nothing else",
)
TWO = {
    "left of": (
        "{a} to the left of {b}",
        "{a} is left of {b}",
        "{b} is right of {a}",
        "{b} to the right of {a}",
        "{a} on the left and {b} on the right",
        "there is {a} on the left and {b} on the right",
        "on the left is {a} and on the right is {b}",
        "{a} with {b} to its right",
    ),
    "above": (
        "{a} above {b}",
        "{a} is above {b}",
        "{b} is below {a}",
        "{b} under {a}",
        "{a} at the top and {b} at the bottom",
        "there is {a} at the top and {b} at the bottom",
        "below {a} there is {b}",
        "{a} with {b} below it",
    ),
}
THREE = {
    "left of": (
        "from left to right {a} {b} and {c}",
        "{a} {b} and {c} from left to right",
        "{a} then {b} then {c} from left to right",
        "{a} is left of {b} which is left of {c}",
        "{c} is right of {b} which is right of {a}",
        "{b} between {a} on the left and {c} on the right",
    ),
    "above": (
        "from top to bottom {a} {b} and {c}",
        "{a} {b} and {c} from top to bottom",
        "{a} then {b} then {c} from top to bottom",
        "{a} is above {b} which is above {c}",
        "{c} is below {b} which is below {a}",
        "{b} between {a} at the top and {c} at the bottom",
    ),
}
CLIPS = {  # (objects, events)
    (1, 1): (
        "{a} {p}",
        "{a} that {p}",
        "there is {a} that {p}",
        "the video shows {a} that {p}",
        "in the video {a} {p}",
        "only {a} can be seen and it {p}",
    ),
    (2, 1): (
        "{a} {p} while {b} stays still",
        "{b} stays still while {a} {p}",
        "there is {a} that {p} and {b} that stays still",
        "{a} {p} and {b} stays still",
        "the video shows {b} that stays still and {a} that {p}",
        "{b} does not move while {a} {p}",
    ),
    (1, 2): (
        "{a} {p} and then {q}",
        "{a} {p} then it {q}",
        "first {a} {p} and then it {q}",
        "{a} {p} before it {q}",
        "{a} {q} after it {p}",
        "the video shows {a} that first {p} and then {q}",
    ),
    (2, 2): (
        "{a} {p} and then {b} {q}",
        "first {a} {p} then {b} {q}",
        "{a} {p} before {b} {q}",
        "{b} {q} after {a} {p}",
        "after {a} {p} {b} {q}",
        "{a} that {p} and then {b} that {q}",
    ),
}


def references(scene: Scene, rng: np.random.Generator, count: int = 5) -> tuple[str, ...]:
    """`count` different sentences that are true of the scene: lower case, no punctuation; about half name the sizes.

    Sizes of clips are left out, since growing and shrinking change them.
    """
    templates: tuple[str, ...]
    if scene.events:
        templates = CLIPS[len(scene.objects), len(scene.events)]
    elif len(scene.objects) == 1:
        templates = ONE
    else:
        name = relation(scene.objects[0].box, scene.objects[1].box)
        assert name in TWO, "a picture's objects are laid out from left to right or from top to bottom"
        templates = TWO[name] if len(scene.objects) == 2 else THREE[name]
    assert count <= len(templates)
    sentences = []
    for k in rng.permutation(len(templates))[:count]:
        sized = not scene.events and rng.random() < 0.5
        names = [f"a {thing.size + ' ' if sized else ''}{thing.colour} {thing.shape}" for thing in scene.objects]
        verbs = [MOTIONS[event.motion][rng.integers(len(MOTIONS[event.motion]))] for event in scene.events]
        sentences.append(
            templates[k].format(**dict(zip("abc", names, strict=False)), **dict(zip("pq", verbs, strict=False)))
        )
    return tuple(sentences)
