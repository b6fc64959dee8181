"""Scenes of the micro-world and their references: what an image or clip shows, and sentences that describe it.

Boxes are relative xyxy in [0, 1], y downward; times are seconds; frame f is shown at f / fps.
"""

from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {  # RGB in [0, 255]; any two are at least 120 apart, and all are far from the greys of the backgrounds
    "red": (215, 25, 30),
    "yellow": (250, 225, 30),
    "green": (20, 150, 50),
    "blue": (30, 60, 225),
    "purple": (165, 40, 200),
    "white": (252, 252, 252),
    "black": (8, 8, 8),
}
SIZES = {"small": (0.19, 0.23), "large": (0.33, 0.38)}  # (lowest, highest) side of the box relative to the image
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
MOTIONS = {  # canonical name -> the phrases of the references
    "moves left": ("moves left", "goes left", "slides left"),
    "moves right": ("moves right", "goes right", "slides right"),
    "moves up": ("moves up", "goes up", "slides up"),
    "moves down": ("moves down", "goes down", "slides down"),
    "grows": ("grows", "gets bigger"),
    "shrinks": ("shrinks", "gets smaller"),
}
MARGIN = 0.04  # least gap between two boxes, relative to the image, at which they have a relation


@dataclass(frozen=True)
class SceneObject:
    """One object.  `size` is its size in the first frame; `boxes` has one box per frame, of an image only one."""

    shape: str
    colour: str
    size: str
    boxes: tuple[Box, ...]

    @property
    def box(self) -> Box:
        """The box in the first frame."""
        return self.boxes[0]


@dataclass(frozen=True)
class Relation:
    """`objects[subject]` is `name` ("left of", "right of", "above", "below") `objects[object]`."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True)
class Event:
    """`objects[object]` does `motion` (a key of MOTIONS) from `start` to `end` seconds.

    The box of an object changes only during its events.
    """

    object: int
    motion: str
    start: float
    end: float


@dataclass(frozen=True)
class Scene:
    """The complete description of an image (fps 0, no events) or a clip (no relations, events in order of time).

    The objects of an image are ordered from left to right or from top to bottom, those of a clip by their first event.
    """

    objects: tuple[SceneObject, ...]
    relations: tuple[Relation, ...] = ()
    events: tuple[Event, ...] = ()
    fps: float = 0.0

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.objects[0].boxes)


def relation(a: Box, b: Box) -> str | None:
    """The relation of box `a` to box `b`, or None when the gap between them is too small.

    It is the one on the axis on which the centres differ most.
    """
    right, down = (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
    if abs(right) > abs(down):
        name, gap = ("left of", b[0] - a[2]) if right > 0 else ("right of", a[0] - b[2])
    else:
        name, gap = ("above", b[1] - a[3]) if down > 0 else ("below", a[1] - b[3])
    return name if gap >= MARGIN else None


def relations(objects: tuple[SceneObject, ...]) -> tuple[Relation, ...]:
    """Every relation between two different objects, in both directions."""
    named = [(i, relation(a.box, b.box), j) for i, a in enumerate(objects) for j, b in enumerate(objects) if i != j]
    return tuple(Relation(i, name, j) for i, name, j in named if name is not None)


# {a} {b} {c} are the objects in the order of the scene, with an article; {p} {q} are the verb phrases of the first and
# the second event.  limner.metrics.microworld must parse every template; tests check it with all references.
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
CLIPS = {  # (number of objects, number of events) -> templates
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
    """`count` different sentences that are true of the scene, in lower case and without punctuation.

    About half of those of an image name the sizes; those of a clip never do, because events may change them.
    """
    templates: tuple[str, ...]
    if scene.events:
        templates = CLIPS[len(scene.objects), len(scene.events)]
    elif len(scene.objects) == 1:
        templates = ONE
    else:
        name = relation(scene.objects[0].box, scene.objects[1].box)
        assert name in TWO, "the objects of an image are ordered from left to right or from top to bottom"
        templates = TWO[name] if len(scene.objects) == 2 else THREE[name]
    assert count <= len(templates)
    sentences = []
    for k in rng.permutation(len(templates))[:count]:
        with_size = not scene.events and rng.random() < 0.5
        names = [f"a {it.size + ' ' if with_size else ''}{it.colour} {it.shape}" for it in scene.objects]
        verbs = [MOTIONS[event.motion][rng.integers(len(MOTIONS[event.motion]))] for event in scene.events]
        sentences.append(
            templates[k].format(**dict(zip("abc", names, strict=False)), **dict(zip("pq", verbs, strict=False)))
        )
    return tuple(sentences)
