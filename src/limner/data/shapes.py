"""The micro-world: seeded pictures and short clips of coloured shapes, of which everything is known exactly.

    generate("world", images=3000, videos=200)     # world/images/*.png  world/videos/*.mp4  world/truth.json
    media, truth = load("world"), read_truth("world")

Item i depends on (seed, i) alone, so a larger set of the same seed contains the smaller one.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from limner.core.files import read_json, write_json
from limner.core.torch_free import Medium
from limner.data.shapes_words import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Box,
    Event,
    Relation,
    Scene,
    Thing,
    references,
    relations,
)

FORMAT, VERSION = "limner.shapes", 1
FPS, FRAMES = 8, 16  # a clip lasts two seconds, unless it is made longer
EDGE, GAP = 0.02, 0.05  # least distance to the border and between two objects, relative to the picture
STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SUPERSAMPLING = 4


def generate(
    out: str | Path,
    images: int,
    videos: int = 0,
    seed: int = 0,
    *,
    size: int = 64,
    objects: int = 3,
    frames: int = FRAMES,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
) -> None:
    """Write `images` PNG files and `videos` MP4 files of size x size pixels, and truth.json last.

    A picture shows 1 to 3 objects; `objects` bounds them (1 is the easiest world).  In a clip of more than 16 `frames`
    nothing takes longer than in one of 16: there are pauses before, between and after.  `splits` are the shares of
    train, val and test; each holds for every prefix of the set to within a few items.
    The same seed gives the same bytes of PNG and truth, and the same frames before encoding.
    """
    _check(images, videos, seed, size, objects, frames, splits)
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "truth.json").unlink(missing_ok=True)  # an old truth must never lie beside half of the new pictures
    items = []
    for i in range(images):
        scene, sentences, canvas = make_picture(seed, i, size, objects)
        file = f"images/{i:06}.png"
        Image.fromarray(draw(scene, canvas)).save(out / file)
        items.append(_item(f"image-{i:06}", file, _split(i, splits), sentences, scene))
    if videos:
        (out / "videos").mkdir(exist_ok=True)
    for i in range(videos):
        scene, sentences, canvas = make_clip(seed, i, size, frames)
        file = f"videos/{i:06}.mp4"
        write_video(out / file, np.stack([draw(scene, canvas, frame) for frame in range(scene.frames)]), FPS)
        items.append(_item(f"video-{i:06}", file, _split(i, splits), sentences, scene))
    head = {
        "format": FORMAT,
        "version": VERSION,
        "seed": seed,
        "size": size,
        "objects": objects,
        "frames": frames,
        "splits": list(splits),
    }
    write_json(out / "truth.json", {**head, "items": items}, indent=None)


def load(root: str | Path) -> list[Medium]:
    """The pictures and clips below `root`, with absolute paths, split (train, val, test) and references."""
    root = Path(root).resolve()
    return [
        Medium(item["id"], str(root / item["file"]), item["split"], tuple(item["references"]))
        for item in _read(root)["items"]
    ]


def read_truth(root: str | Path) -> dict[str, Scene]:
    """What is exactly in every medium below `root`, by the medium's id."""
    return {item["id"]: _scene(item["truth"]) for item in _read(Path(root))["items"]}


# --- scenes -----------------------------------------------------------------------------------------------------------


def make_picture(seed: int, i: int, size: int, objects: int = 3) -> tuple[Scene, tuple[str, ...], np.ndarray]:
    """Scene, references and empty background (uint8 (size, size, 3) RGB; it alone depends on size) of picture i."""
    rng = np.random.default_rng([seed, 0, i])
    count = min(objects, int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25])))
    sizes = [str(rng.choice(list(SIZES))) for _ in range(count)]
    if count == 3:  # three in a row have room for one large one
        sizes = ["small"] * 3
        if rng.random() < 0.75:
            sizes[int(rng.integers(3))] = "large"
    boxes = _row([rng.uniform(*SIZES[word]) for word in sizes], bool(rng.integers(2)), rng)
    kinds = _kinds(count, rng)
    things = tuple(Thing(*kind, word, (box,)) for kind, word, box in zip(kinds, sizes, boxes, strict=True))
    scene = Scene(things, relations(things))
    return scene, references(scene, rng), backdrop(rng, size)


def make_clip(seed: int, i: int, size: int, frames: int = FRAMES) -> tuple[Scene, tuple[str, ...], np.ndarray]:
    """Scene, references and empty background, uint8 (size, size, 3) RGB, of clip i: one or two events in sequence."""
    rng = np.random.default_rng([seed, 1, i])
    count, happenings = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    movers = list(range(count)) if count == happenings else [0] * happenings
    kinds = _kinds(count, rng)
    alone = len(set(movers)) == 1  # the same object does not do the same thing twice
    motions = [str(motion) for motion in rng.choice(list(MOTIONS), happenings, replace=not alone)]
    times = _times(happenings, frames, rng)
    while True:  # until nothing leaves the picture and nothing touches
        starts, tracks = zip(*(_track(k, movers, motions, times, frames, rng) for k in range(count)), strict=True)
        if all(_inside(box) for track in tracks for box in track) and not any(map(_touch, *_pairs(tracks))):
            break
    objects = tuple(Thing(*kind, word, track) for kind, word, track in zip(kinds, starts, tracks, strict=True))
    events = tuple(
        Event(k, motion, first / FPS, last / FPS)
        for k, motion, (first, last) in zip(movers, motions, times, strict=True)
    )
    scene = Scene(objects, events=events, fps=float(FPS))
    return scene, references(scene, rng), backdrop(rng, size)


def _kinds(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """`count` different (shape, colour) pairs, so that a pair names one object; a shape or a colour may repeat."""
    colours = list(COLOURS)
    picks = rng.choice(len(SHAPES) * len(colours), count, replace=False)
    return [(SHAPES[pick // len(colours)], colours[pick % len(colours)]) for pick in picks]


def _row(sides: list[float], horizontal: bool, rng: np.random.Generator) -> list[Box]:
    """Square boxes of these sides one after the other, at least GAP apart, and loosely aligned on the other axis."""
    count = len(sides)
    slack = 1 - 2 * EDGE - sum(sides) - GAP * (count - 1)
    cuts = np.sort(rng.uniform(0, slack, count))
    along = [EDGE + cuts[k] + sum(sides[:k]) + GAP * k for k in range(count)]
    while True:
        across = [rng.uniform(EDGE, 1 - EDGE - side) for side in sides]
        centres = [(a + side / 2, b + side / 2) for a, b, side in zip(along, across, sides, strict=True)]
        # at most 31 degrees off the axis: what is left of something is not also above it
        if all(abs(q[1] - p[1]) <= 0.6 * (q[0] - p[0]) for p, q in pairwise(centres)):
            break
    corners = zip(along, across, strict=True) if horizontal else zip(across, along, strict=True)
    return [_box(x, y, side) for (x, y), side in zip(corners, sides, strict=True)]


def _times(happenings: int, frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """First and last frame of every event; the second begins after the first has ended."""
    if happenings == 1:
        times = [(int(rng.integers(1, 4)), int(rng.integers(11, 15)))]
    else:
        times = [
            (int(rng.integers(0, 2)), int(rng.integers(6, 8))),
            (int(rng.integers(8, 10)), int(rng.integers(14, 16))),
        ]
    if frames > FRAMES:
        pauses = np.sort(rng.integers(0, frames - FRAMES + 1, happenings)).tolist()
        times = [(first + pause, last + pause) for (first, last), pause in zip(times, pauses, strict=True)]
    return times


def _track(
    thing: int,
    movers: list[int],
    motions: list[str],
    times: list[tuple[int, int]],
    frames: int,
    rng: np.random.Generator,
) -> tuple[str, tuple[Box, ...]]:
    """Size in the first frame, and a box per frame, of one object: still but from first to last frame of its events."""
    own = [(motion, *span) for mover, motion, span in zip(movers, motions, times, strict=True) if mover == thing]
    resized = [motion for motion, _, _ in own if motion in ("grows", "shrinks")]
    start = {"grows": "small", "shrinks": "large"}[resized[0]] if resized else str(rng.choice(list(SIZES)))
    sides = {word: rng.uniform(*bounds) for word, bounds in SIZES.items()}
    x, y = rng.uniform(EDGE + sides[start] / 2, 1 - EDGE - sides[start] / 2, 2)
    path = np.tile([x, y, sides[start]], (frames, 1))  # centre and side
    for motion, first, last in own:
        target = path[first].copy()
        if motion in ("grows", "shrinks"):
            target[2] = sides["large" if motion == "grows" else "small"]
        else:
            target[:2] += np.array(STEP[motion.split()[1]]) * rng.uniform(0.25, 0.45)
        share = np.clip((np.arange(frames) - first) / (last - first), 0, 1)[:, None]
        path = np.where(share > 0, path[first] + share * (target - path[first]), path)
    return start, tuple(_box(cx - side / 2, cy - side / 2, side) for cx, cy, side in path)


def _box(x: float, y: float, side: float) -> Box:
    """Rounded, since what is drawn must be exactly what truth.json says."""
    return round(float(x), 4), round(float(y), 4), round(float(x + side), 4), round(float(y + side), 4)


def _inside(box: Box) -> bool:
    return min(box) >= EDGE and max(box) <= 1 - EDGE


def _pairs(tracks: Sequence[tuple[Box, ...]]) -> tuple[list[Box], list[Box]]:
    """Boxes of two objects in the same frame."""
    pairs = [(a, b) for i, p in enumerate(tracks) for q in tracks[i + 1 :] for a, b in zip(p, q, strict=True)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _touch(a: Box, b: Box) -> bool:
    """Whether two boxes are closer than GAP."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) < GAP


# --- drawing ----------------------------------------------------------------------------------------------------------


def backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background in muted greys with clutter that no caption mentions, uint8 (size, size, 3) RGB."""
    tone = rng.uniform(100, 160) + rng.uniform(-12, 12, 3)
    other = tone + rng.choice([-1, 1]) * rng.uniform(12, 32) + rng.uniform(-6, 6, 3)
    y, x = np.mgrid[:size, :size] / size
    angle, period = rng.uniform(0, pi), rng.uniform(0.12, 0.3)
    along, across = x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)
    kind = rng.integers(5)
    if kind == 0:  # gradient
        texture = (along - along.min()) / np.ptp(along)
    elif kind == 1:  # stripes
        texture = (along / period) % 1 < 0.5
    elif kind == 2:  # checker
        texture = ((along / period) % 1 < 0.5) ^ ((across / period) % 1 < 0.5)
    elif kind == 3:  # blotches
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
        texture = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) / 255
    else:  # coarse noise
        texture = rng.random((size, size))
    plain = tone + (other - tone) * np.asarray(texture, dtype=float)[..., None]
    canvas = Image.fromarray(np.clip(plain, 0, 255).astype(np.uint8))
    _clutter(canvas, tone, rng)
    return np.clip(np.asarray(canvas) + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)


def _clutter(canvas: Image.Image, tone: np.ndarray, rng: np.random.Generator) -> None:
    """Thin lines and dots whose grey is near the background's."""
    pen, size = ImageDraw.Draw(canvas), canvas.width
    for _ in range(rng.integers(3, 9)):
        r, g, b = (int(c) for c in np.clip(tone + rng.choice([-1, 1]) * rng.uniform(20, 45), 0, 255))
        x, y, u, v = rng.uniform(0, size, 4)
        if rng.random() < 0.5:
            pen.line((x, y, x + (u - x) / 2, y + (v - y) / 2), fill=(r, g, b), width=1)
        else:
            radius = rng.uniform(0.01, 0.025) * size
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(r, g, b))


def draw(scene: Scene, canvas: np.ndarray, frame: int = 0) -> np.ndarray:
    """The scene's objects in one frame, over a background uint8 (S, S, 3) RGB that is left as it was."""
    picture = canvas.astype(float)
    for thing in scene.objects:
        cover = _cover(thing.shape, thing.boxes[frame], len(canvas))[..., None]
        picture += cover * (np.array(COLOURS[thing.colour]) - picture)
    return np.rint(picture).astype(np.uint8)


def _cover(shape: str, box: Box, size: int) -> np.ndarray:
    """How much of every pixel the shape covers, (size, size) in [0, 1]: drawn larger, then averaged."""
    large = Image.new("L", (size * SUPERSAMPLING,) * 2)
    pen = ImageDraw.Draw(large)
    # Pillow's coordinates are pixel centres and both ends are painted, so the last one lies a pixel before the edge.
    x, y, right, bottom = (round(value * size * SUPERSAMPLING) for value in box)
    right, bottom = right - 1, bottom - 1
    if shape == "circle":
        pen.ellipse((x, y, right, bottom), fill=255)
    else:
        pen.polygon([(x + u * (right - x), y + v * (bottom - y)) for u, v in _outline(shape)], fill=255)
    return np.asarray(large.reduce(SUPERSAMPLING)) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a polygon that touches all four sides of the unit square, y downward."""
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    if shape == "cross":
        a, b = 0.34, 0.66
        return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
    assert shape == "star", shape
    turns = [(pi * k / 5, 1.0 if k % 2 == 0 else 0.42) for k in range(10)]
    corners = np.array([(radius * sin(turn), -radius * cos(turn)) for turn, radius in turns])
    low, high = corners.min(0), corners.max(0)
    return [(float(u), float(v)) for u, v in (corners - low) / (high - low)]


# --- files ------------------------------------------------------------------------------------------------------------


def _check(images: int, videos: int, seed: int, size: int, objects: int, frames: int, splits: Sequence[float]) -> None:
    if images < 0 or videos < 0 or images + videos == 0:
        raise ValueError(f"images={images}, videos={videos}: ask for at least one picture or clip, and for no negative")
    if seed < 0:
        raise ValueError(f"seed={seed}: a seed is a whole number from 0 on")
    if size < 32 or size % 2:
        raise ValueError(f"size={size}: the side must be an even number of pixels (H.264) and at least 32")
    if not 1 <= objects <= 3:
        raise ValueError(f"objects={objects}: a picture shows at most 1, 2 or 3 of them")
    if frames < FRAMES:
        raise ValueError(f"frames={frames}: two things one after the other need a clip of at least {FRAMES} frames")
    if len(splits) != 3 or min(splits) < 0 or abs(sum(splits) - 1) > 1e-6:
        raise ValueError(f"splits={tuple(splits)}: give the shares of train, val and test, such as 0.8 0.1 0.1 (sum 1)")


def _split(i: int, splits: Sequence[float]) -> str:
    """Split of item i: multiples of the golden ratio are even over [0, 1), so every prefix has the right shares."""
    place = i * 0.6180339887498949 % 1
    if place < splits[0]:
        return "train"
    return "val" if place < splits[0] + splits[1] else "test"


def _item(id: str, file: str, split: str, sentences: tuple[str, ...], scene: Scene) -> dict[str, Any]:
    return {"id": id, "file": file, "split": split, "references": list(sentences), "truth": asdict(scene)}


def _read(root: Path) -> dict[str, Any]:
    path = root / "truth.json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; make the micro-world with: limner shapes --out {root}")
    value = read_json(path)
    found = (value.get("format"), value.get("version")) if isinstance(value, dict) else type(value).__name__
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path} holds {found}, expected {(FORMAT, VERSION)}; generate the micro-world again")
    return value


def _scene(value: dict[str, Any]) -> Scene:
    """The inverse of dataclasses.asdict after a trip through JSON."""
    objects = [{**thing, "boxes": tuple(tuple(box) for box in thing["boxes"])} for thing in value["objects"]]
    return Scene(
        tuple(Thing(**thing) for thing in objects),
        tuple(Relation(**relation) for relation in value["relations"]),
        tuple(Event(**event) for event in value["events"]),
        value["fps"],
    )


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Encode uint8 (T, H, W, 3) RGB as H.264, which browsers play."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "threads": "1", "preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
