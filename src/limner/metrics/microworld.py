"""Captions of the micro-world judged against exact truth: what a caption claims, and which claims hold.

A caption is read phrase by phrase (`read`), so ungrammatical output of a model still makes claims; words that are not
in the lexicon are passed over.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import combinations, pairwise

from limner.data.shapes_words import COLOURS, OPPOSITE, SHAPES, SIZES, Scene

STILL = "stays still"


@dataclass(frozen=True)
class Mention:
    """A named object.  `word` is the place of its noun in `caption.split()`; what is not said is None."""

    word: int
    shape: str
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Stated:
    """`mentions[subject]` is `name` `mentions[object]`; None where the caption leaves a side out."""

    subject: int | None
    name: str
    object: int | None


@dataclass(frozen=True)
class Happening:
    """`mentions[subject]` does `motion`, said by the words from `word` on; None if nobody is said to do it."""

    word: int
    subject: int | None
    motion: str


@dataclass(frozen=True)
class Claims:
    """All that a caption says.  `happenings` are in the order in time that it states, `ordered` if it states one."""

    mentions: tuple[Mention, ...]
    relations: tuple[Stated, ...]
    happenings: tuple[Happening, ...]
    ordered: bool


@dataclass(frozen=True)
class Judgement:
    """What of a caption is true of a scene; None where there is nothing to judge.

    object         exactly the true shapes are named, each as often as it is there
    colour         so are the (colour, shape) pairs
    size           every stated size is right (None: none is stated, or a clip, where sizes change)
    relation       a relation is stated and all stated ones hold (None: the scene has none)
    motion         exactly the true events are named, each of the right object (None: a picture)
    order          they are, and in the true order, in words that say so (None: fewer than two events)
    hallucination  something is named that is not there, as (colour, shape), or shape if no colour is said
    """

    object: bool
    colour: bool
    size: bool | None
    relation: bool | None
    motion: bool | None
    order: bool | None
    hallucination: bool


def _lexicon() -> dict[tuple[str, ...], tuple[str, str]]:
    """Phrase -> (kind, value).  Nouns and adjectives are phrases of one word."""
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
    for said, name in (("above", "above"), ("over", "above"), ("below", "below"), ("under", "below")):
        phrases |= {said: ("relation", name), f"{said} it": ("mirrored", name)}
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


LEXICON = _lexicon()
LONGEST = max(map(len, LEXICON))
Symbol = tuple[int, str, str]  # place of the first word, kind, value


def read(caption: str) -> Claims:
    """What a caption claims.  Case and punctuation do not matter."""
    mentions: list[Mention] = []
    symbols: list[Symbol] = []  # without adjectives; a mention's value is its number
    adjectives: dict[str, list[str]] = {}
    for word, kind, value in _symbols(caption):
        if kind in ("size", "colour", "count"):
            adjectives.setdefault(kind, []).append(value)
            continue
        if kind == "shape":
            # "a red blue circle" is of the colour "red blue", which is never right
            colour, size = (" ".join(dict.fromkeys(adjectives.get(key, ()))) or None for key in ("colour", "size"))
            for _ in range(int(adjectives.get("count", ["1"])[-1])):
                symbols.append((word, "mention", str(len(mentions))))
                mentions.append(Mention(word, value, colour, size))
        elif kind != "other":
            symbols.append((word, kind, value))
        adjectives = {}
    happenings, ordered = _happenings(symbols)
    return Claims(tuple(mentions), tuple(_relations(symbols, len(mentions))), happenings, ordered)


def find(mention: Mention, scene: Scene) -> int | None:
    """Which of the scene's objects is meant; None if none or several fit the shape and, if said, the colour."""
    fits = [
        k
        for k, thing in enumerate(scene.objects)
        if thing.shape == mention.shape and mention.colour in (None, thing.colour)
    ]
    return fits[0] if len(fits) == 1 else None


def judge(caption: str, scene: Scene) -> Judgement:
    """Hold every claim of a caption against the truth."""
    claims = read(caption)
    meant = [find(mention, scene) for mention in claims.mentions]
    shapes = Counter(thing.shape for thing in scene.objects)
    pairs = Counter((thing.colour, thing.shape) for thing in scene.objects)
    sizes = [
        k is not None and scene.objects[k].size == mention.size
        for mention, k in zip(claims.mentions, meant, strict=True)
        if mention.size is not None
    ]
    return Judgement(
        object=Counter(mention.shape for mention in claims.mentions) == shapes,
        colour=Counter((mention.colour, mention.shape) for mention in claims.mentions) == pairs,
        size=all(sizes) if sizes and not scene.events else None,
        relation=_relation_holds(claims, meant, scene) if scene.relations else None,
        motion=_motion_holds(claims, meant, scene) if scene.events else None,
        order=_order_holds(claims, meant, scene) if len(scene.events) > 1 else None,
        hallucination=any(
            (mention.shape not in shapes) if mention.colour is None else ((mention.colour, mention.shape) not in pairs)
            for mention in claims.mentions
        ),
    )


def accuracy(captions: Mapping[str, str], scenes: Mapping[str, Scene]) -> dict[str, float]:
    """Share in [0, 1] of the captions (by id) that are right, by the names of Judgement, each where it applies.

    What applies to no caption is left out.  `hallucination` is the one that should be low.
    """
    if not captions:
        raise ValueError("there are no captions to judge; give at least one, by the id of its picture or clip")
    unknown = sorted(set(captions) - set(scenes))
    if unknown:
        raise ValueError(
            f"{len(unknown)} captions have no scene, such as {unknown[0]!r}; "
            "give the truth of the same micro-world (limner.data.shapes.read_truth)"
        )
    judgements = [judge(caption, scenes[id]) for id, caption in captions.items()]
    shares = {}
    for field in fields(Judgement):
        verdicts = [verdict for verdict in (getattr(j, field.name) for j in judgements) if verdict is not None]
        if verdicts:
            shares[field.name] = sum(verdicts) / len(verdicts)
    return shares


def _symbols(caption: str) -> Iterator[Symbol]:
    """The phrases of a caption in order, the longest that fits at every place; articles are passed over."""
    words = [word.strip(".,;:!?\"'()") for word in caption.lower().split()]
    at = 0
    while at < len(words):
        length = next((n for n in range(LONGEST, 0, -1) if tuple(words[at : at + n]) in LEXICON), 1)
        kind, value = LEXICON.get(tuple(words[at : at + length]), ("other", words[at]))
        if words[at] not in ("a", "an", "the", "") or length > 1:
            yield at, kind, value
        at += length


def _relations(symbols: list[Symbol], count: int) -> Iterator[Stated]:
    """Relations between two of `count` mentions, however they are said."""
    last: int | None = None  # the latest mention
    for _, kind, value in symbols:
        if kind == "mention":
            last = int(value)
        elif kind == "relation" and last is None:  # "below a there is b"
            yield Stated(1 if count > 1 else None, value, 0 if count else None)
        elif kind == "relation" and last is not None:  # "a above b"
            yield Stated(last, value, last + 1 if last + 1 < count else None)
        elif kind == "mirrored":  # "a with b above it"
            yield Stated(last, value, last - 1 if last else None)
        elif kind == "row":  # "from left to right a b c"
            yield from (Stated(i, value, i + 1) for i in range(count - 1))
    places = _places(symbols)
    for name, line in (("left of", ("left", "middle", "right")), ("above", ("top", "middle", "bottom"))):
        ranks = [(k, line.index(place)) for k, place in sorted(places.items()) if place in line]
        for (i, rank), (j, other) in combinations(ranks, 2):
            if rank != other:
                yield Stated(i, name if rank < other else OPPOSITE[name], j)


def _places(symbols: list[Symbol]) -> dict[int, str]:
    """Mention -> where in the picture it is said to be: "a on the left", or "on the left is a"."""
    places: dict[int, str] = {}
    last: int | None = None
    pending: str | None = None
    for (_, kind, value), (_, following, _) in pairwise([*symbols, (0, "end", "")]):
        if kind == "mention":
            last = int(value)
            if pending is not None:
                places[last], pending = pending, None
        elif kind == "place" and following == "inverted":
            pending = value
        elif kind == "place" and last is not None:
            places[last] = value
    return places


def _happenings(symbols: list[Symbol]) -> tuple[tuple[Happening, ...], bool]:
    """Motions in the order in time that is stated, and whether a word states one.

    The order is that of the words, except for "q after p" and "before q p".
    """
    ordered: list[Happening] = []
    said: set[str] = set()
    since: set[str] = set()  # order words since the latest motion
    fronted = False  # "before q p"
    last: int | None = None
    for word, kind, value in symbols:
        if kind == "mention":
            last = int(value)
        elif kind == "order":
            said.add(value)
            since.add(value)
            fronted |= value == "before" and not ordered
        elif kind == "motion":
            turned = bool(ordered) and (("after" in since) or fronted)
            ordered.insert(len(ordered) - turned, Happening(word, last, value))
            since, fronted = set(), fronted and not turned
    return tuple(ordered), bool(said)


def _relation_holds(claims: Claims, meant: list[int | None], scene: Scene) -> bool:
    true = {(relation.subject, relation.name, relation.object) for relation in scene.relations}
    stated = [
        (None if s.subject is None else meant[s.subject], s.name, None if s.object is None else meant[s.object])
        for s in claims.relations
    ]
    return bool(stated) and all(claim in true for claim in stated)


def _named(claims: Claims, meant: list[int | None]) -> list[tuple[int | None, str]]:
    """(object, motion) in the order stated, stillness included."""
    return [(None if h.subject is None else meant[h.subject], h.motion) for h in claims.happenings]


def _motion_holds(claims: Claims, meant: list[int | None], scene: Scene) -> bool:
    named = _named(claims, meant)
    moving = {event.object for event in scene.events}
    rests = all(k is not None and k not in moving for k, motion in named if motion == STILL)
    moves = Counter((k, motion) for k, motion in named if motion != STILL)
    return rests and moves == Counter((event.object, event.motion) for event in scene.events)


def _order_holds(claims: Claims, meant: list[int | None], scene: Scene) -> bool:
    moves = [(k, motion) for k, motion in _named(claims, meant) if motion != STILL]
    true = [(event.object, event.motion) for event in scene.events]
    return claims.ordered and moves == true and _motion_holds(claims, meant, scene)
