"""Captions of the micro-world, checked against the exact truth: what a caption claims, and which claims are true.

A caption is parsed phrase by phrase (`parse_caption`), so the ungrammatical output of a model makes claims too.  Words
that are in no known phrase are skipped.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import combinations, pairwise

from limner.data.shapes_words import COLOURS, OPPOSITE, SHAPES, SIZES, Scene

STILL = "stays still"


@dataclass(frozen=True)
class Mention:
    """An object that a caption names.  `word` is the place of its noun in `caption.split()`."""

    word: int
    shape: str
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class StatedRelation:
    """A relation between two mentions, for example "left of"; a side that the caption leaves out is None.

    `subject` and `object` are places in `Claims.mentions`.
    """

    subject: int | None
    name: str
    object: int | None


@dataclass(frozen=True)
class StatedMotion:
    """A motion of a mention, for example "moves left".  `subject` is None when the caption does not say what moves.

    `word` is the place in `caption.split()` of the first word of the motion; `subject` is a place in `Claims.mentions`.
    """

    word: int
    subject: int | None
    motion: str


@dataclass(frozen=True)
class Claims:
    """All that a caption says.

    `motions` are in the order in time that the caption states; `ordered` tells whether it states an order.
    """

    mentions: tuple[Mention, ...]
    relations: tuple[StatedRelation, ...]
    motions: tuple[StatedMotion, ...]
    ordered: bool


@dataclass(frozen=True)
class Judgement:
    """Which claims of a caption are true; None where there is nothing to judge.

    object         exactly the true shapes are named, each as often as the scene has it
    colour         exactly the true (colour, shape) pairs are named
    size           every stated size is right (None: no size is stated, or a video, in which sizes change)
    relation       a relation is stated, and all stated relations are true (None: the scene has no relation)
    motion         exactly the true motions are named, each of the right object (None: an image)
    order          `motion` is true, and the motions are in the true order, with words that state an order (None: fewer
                   than two events)
    hallucination  a (colour, shape) pair is named that the scene lacks, or a shape where no colour is stated
    """

    object: bool
    colour: bool
    size: bool | None
    relation: bool | None
    motion: bool | None
    order: bool | None
    hallucination: bool


def _phrase_table() -> dict[tuple[str, ...], tuple[str, str]]:
    """{words of a phrase: (kind, value)}.  Nouns and adjectives are phrases of one word."""
    phrases = {
        "left of": ("relation", "left of"),
        "right of": ("relation", "right of"),
        "to its left": ("mirrored", "left of"),
        "to its right": ("mirrored", "right of"),
        "on the left": ("place", "left"),
        "on the right": ("place", "right"),
        "at the top": ("place", "top"),
        "at the bottom": ("place", "bottom"),
        "in the middle": ("place", "middle"),
        "between": ("place", "middle"),
        "from left to right": ("row", "left of"),
        "from right to left": ("row", "right of"),
        "from top to bottom": ("row", "above"),
        "from bottom to top": ("row", "below"),
        "stays still": ("motion", STILL),
        "does not move": ("motion", STILL),
        "two": ("count", "2"),
        "three": ("count", "3"),
    }
    for wording, name in (("above", "above"), ("over", "above"), ("below", "below"), ("under", "below")):
        phrases |= {wording: ("relation", name), f"{wording} it": ("mirrored", name)}
    for direction in ("left", "right", "up", "down"):
        for verb in ("moves", "goes", "slides", "moving", "going", "sliding"):
            for link in ("", "to the "):
                phrases[f"{verb} {link}{direction}"] = ("motion", f"moves {direction}")
    phrases |= dict.fromkeys(("grows", "growing", "gets bigger", "gets larger"), ("motion", "grows"))
    phrases |= dict.fromkeys(("shrinks", "shrinking", "gets smaller"), ("motion", "shrinks"))
    phrases |= {word: ("order", word) for word in ("then", "before", "after", "first")}
    phrases |= {word: ("inverted", word) for word in ("is", "there")}
    phrases |= {word: ("size", word) for word in SIZES} | {word: ("colour", word) for word in COLOURS}
    phrases |= {shape + plural: ("shape", shape) for shape in SHAPES for plural in ("", "s", "es")}
    return {tuple(phrase.split()): meaning for phrase, meaning in phrases.items()}


PHRASES = _phrase_table()
LONGEST_PHRASE = max(map(len, PHRASES))
Phrase = tuple[int, str, str]  # (place of its first word, kind, value)


def parse_caption(caption: str) -> Claims:
    """The claims of a caption.  Case and punctuation do not matter.

    >>> claims = parse_caption("A red circle left of a star, then it moves up.")
    >>> claims.mentions[0]
    Mention(word=2, shape='circle', colour='red', size=None)
    >>> claims.relations
    (StatedRelation(subject=0, name='left of', object=1),)
    >>> claims.motions, claims.ordered
    ((StatedMotion(word=9, subject=1, motion='moves up'),), True)
    """
    mentions: list[Mention] = []
    phrases: list[Phrase] = []  # without adjectives; the value of a mention is its number
    adjectives: dict[str, list[str]] = {}
    for word, kind, value in _phrases(caption):
        if kind in ("size", "colour", "count"):
            adjectives.setdefault(kind, []).append(value)
            continue
        if kind == "shape":
            # "a red blue circle" has the colour "red blue", which is never right
            colour, size = (" ".join(dict.fromkeys(adjectives.get(key, ()))) or None for key in ("colour", "size"))
            for _ in range(int(adjectives.get("count", ["1"])[-1])):
                phrases.append((word, "mention", str(len(mentions))))
                mentions.append(Mention(word, value, colour, size))
        elif kind != "other":
            phrases.append((word, kind, value))
        adjectives = {}
    motions, ordered = _motions(phrases)
    return Claims(tuple(mentions), tuple(_relations(phrases, len(mentions))), motions, ordered)


def resolve_mention(mention: Mention, scene: Scene) -> int | None:
    """The number of the scene's object to which a mention refers.

    None when no object, or more than one, has the shape and, where one is stated, the colour.
    """
    fits = [
        k for k, obj in enumerate(scene.objects) if obj.shape == mention.shape and mention.colour in (None, obj.colour)
    ]
    return fits[0] if len(fits) == 1 else None


def judge(caption: str, scene: Scene) -> Judgement:
    """Compare every claim of a caption with the truth."""
    claims = parse_caption(caption)
    referents = [resolve_mention(mention, scene) for mention in claims.mentions]
    shapes = Counter(obj.shape for obj in scene.objects)
    pairs = Counter((obj.colour, obj.shape) for obj in scene.objects)
    sizes = [
        k is not None and scene.objects[k].size == mention.size
        for mention, k in zip(claims.mentions, referents, strict=True)
        if mention.size is not None
    ]
    return Judgement(
        object=Counter(mention.shape for mention in claims.mentions) == shapes,
        colour=Counter((mention.colour, mention.shape) for mention in claims.mentions) == pairs,
        size=all(sizes) if sizes and not scene.events else None,
        relation=_relation_holds(claims, referents, scene) if scene.relations else None,
        motion=_motion_holds(claims, referents, scene) if scene.events else None,
        order=_order_holds(claims, referents, scene) if len(scene.events) > 1 else None,
        hallucination=any(
            (mention.shape not in shapes) if mention.colour is None else ((mention.colour, mention.shape) not in pairs)
            for mention in claims.mentions
        ),
    )


def accuracy(captions: Mapping[str, str], scenes: Mapping[str, Scene]) -> dict[str, float]:
    """For each field of `Judgement` the share of captions for which it is true, in [0, 1].

    captions  {id: caption}
    scenes    {id: scene}, with at least the ids of the captions

    A share counts only the captions to which the field applies; a field that applies to no caption is left out.  Higher
    is better, except for `hallucination`.  Raises ValueError without captions, and for a caption without a scene.
    """
    if not captions:
        raise ValueError("there are no captions to judge; give at least one, by the id of its medium")
    unknown = sorted(set(captions) - set(scenes))
    if unknown:
        raise ValueError(
            f"{len(unknown)} captions have no scene, for example {unknown[0]!r}; "
            "give the truth of the same micro-world (limner.data.shapes.read_truth)"
        )
    judgements = [judge(caption, scenes[id]) for id, caption in captions.items()]
    shares = {}
    for field in fields(Judgement):
        verdicts = [verdict for verdict in (getattr(j, field.name) for j in judgements) if verdict is not None]
        if verdicts:
            shares[field.name] = sum(verdicts) / len(verdicts)
    return shares


def _phrases(caption: str) -> Iterator[Phrase]:
    """The phrases of a caption in their order: at each place the longest that fits.  Articles are skipped."""
    words = [word.strip(".,;:!?\"'()") for word in caption.lower().split()]
    at = 0
    while at < len(words):
        length = next((n for n in range(LONGEST_PHRASE, 0, -1) if tuple(words[at : at + n]) in PHRASES), 1)
        kind, value = PHRASES.get(tuple(words[at : at + length]), ("other", words[at]))
        if words[at] not in ("a", "an", "the", "") or length > 1:
            yield at, kind, value
        at += length


def _relations(phrases: list[Phrase], count: int) -> Iterator[StatedRelation]:
    """The relations between `count` mentions, in all wordings."""
    last: int | None = None  # the last mention before the phrase
    for _, kind, value in phrases:
        if kind == "mention":
            last = int(value)
        elif kind == "relation" and last is None:  # "below a there is b"
            yield StatedRelation(1 if count > 1 else None, value, 0 if count else None)
        elif kind == "relation" and last is not None:  # "a above b"
            yield StatedRelation(last, value, last + 1 if last + 1 < count else None)
        elif kind == "mirrored":  # "a with b above it"
            yield StatedRelation(last, value, last - 1 if last else None)
        elif kind == "row":  # "from left to right a b c"
            yield from (StatedRelation(i, value, i + 1) for i in range(count - 1))
    places = _places(phrases)
    for name, line in (("left of", ("left", "middle", "right")), ("above", ("top", "middle", "bottom"))):
        ranks = [(k, line.index(place)) for k, place in sorted(places.items()) if place in line]
        for (i, rank), (j, other) in combinations(ranks, 2):
            if rank != other:
                yield StatedRelation(i, name if rank < other else OPPOSITE[name], j)


def _places(phrases: list[Phrase]) -> dict[int, str]:
    """{number of a mention: stated place in the image}, from "a on the left" or "on the left is a"."""
    places: dict[int, str] = {}
    last: int | None = None
    pending: str | None = None
    for (_, kind, value), (_, following, _) in pairwise([*phrases, (0, "end", "")]):
        if kind == "mention":
            last = int(value)
            if pending is not None:
                places[last], pending = pending, None
        elif kind == "place" and following == "inverted":
            pending = value
        elif kind == "place" and last is not None:
            places[last] = value
    return places


def _motions(phrases: list[Phrase]) -> tuple[tuple[StatedMotion, ...], bool]:
    """The motions in the stated order in time, and whether a word states an order.

    It is the order of the words, except in "q after p" and "before q, p".
    """
    ordered: list[StatedMotion] = []
    order_words: set[str] = set()
    since_motion: set[str] = set()  # order words since the last motion
    fronted = False  # "before q, p"
    last: int | None = None
    for word, kind, value in phrases:
        if kind == "mention":
            last = int(value)
        elif kind == "order":
            order_words.add(value)
            since_motion.add(value)
            fronted |= value == "before" and not ordered
        elif kind == "motion":
            reversed_order = bool(ordered) and (("after" in since_motion) or fronted)
            ordered.insert(len(ordered) - reversed_order, StatedMotion(word, last, value))
            since_motion, fronted = set(), fronted and not reversed_order
    return tuple(ordered), bool(order_words)


def _relation_holds(claims: Claims, referents: list[int | None], scene: Scene) -> bool:
    true = {(relation.subject, relation.name, relation.object) for relation in scene.relations}
    stated = [
        (None if s.subject is None else referents[s.subject], s.name, None if s.object is None else referents[s.object])
        for s in claims.relations
    ]
    return bool(stated) and all(claim in true for claim in stated)


def _resolved_motions(claims: Claims, referents: list[int | None]) -> list[tuple[int | None, str]]:
    """(number of the scene's object, motion) in the stated order; "stays still" is among the motions."""
    return [(None if m.subject is None else referents[m.subject], m.motion) for m in claims.motions]


def _motion_holds(claims: Claims, referents: list[int | None], scene: Scene) -> bool:
    named = _resolved_motions(claims, referents)
    moving = {event.object for event in scene.events}
    rests = all(k is not None and k not in moving for k, motion in named if motion == STILL)
    moves = Counter((k, motion) for k, motion in named if motion != STILL)
    return rests and moves == Counter((event.object, event.motion) for event in scene.events)


def _order_holds(claims: Claims, referents: list[int | None], scene: Scene) -> bool:
    moves = [(k, motion) for k, motion in _resolved_motions(claims, referents) if motion != STILL]
    true = [(event.object, event.motion) for event in scene.events]
    return claims.ordered and moves == true and _motion_holds(claims, referents, scene)
