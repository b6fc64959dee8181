"""The micro-world: a generated dataset of images and short clips of coloured shapes, with exact ground truth.

    generate_world("world", images=3000, videos=200)     # world/images/*.png  world/videos/*.mp4  world/truth.json
    media, truth = load_world("world"), read_truth("world")

Item i depends on (seed, i) alone, so a larger world of the same seed contains the smaller one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from limner.core.files import atomic_write, read_json, write_json
from limner.core.locks import lock_folder
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
    SceneObject,
    references,
    relations,
)

FORMAT, VERSION = "limner.shapes", 1
FPS, FRAMES = 8, 16  # a clip lasts two seconds unless more frames are asked for
EDGE, GAP = 0.02, 0.05  # least distance to the border and between two objects, relative to the image
STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SUPERSAMPLING = 4


def generate_world(
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
    """Write `images` PNG files and `videos` MP4 files of size x size pixels below `out`, and truth.json last.

    objects  the largest number of objects in an image, 1 to 3
    frames   frames of a clip, at least 16; events of a longer clip last as long, with pauses between them
    splits   fractions of train, val and test; every prefix of the items has them to within a few items
    The same seed gives the same bytes of PNG files and truth.json, and the same frames before video encoding.  Raises
    ValueError for an argument out of its range, LockedError when another process is writing the folder.
    """
    _check_arguments(images, videos, seed, size, objects, frames, splits)
    with lock_folder(out):
        _write_world(Path(out), images, videos, seed, size, objects, frames, splits)


def _write_world(
    out: Path, images: int, videos: int, seed: int, size: int, objects: int, frames: int, splits: Sequence[float]
) -> None:
    """`generate_world`, while the lock of the folder is held."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "truth.json").unlink(missing_ok=True)  # an old truth must never lie beside new images
    items = []
    for i in range(images):
        scene, sentences, canvas = make_image(seed, i, size, objects)
        file = f"images/{i:06}.png"
        with atomic_write(out / file) as temporary:
            Image.fromarray(render(scene, canvas)).save(temporary, "PNG")
        items.append(_item(f"image-{i:06}", file, _split_of(i, splits), sentences, scene))
    if videos:
        (out / "videos").mkdir(exist_ok=True)
    for i in range(videos):
        scene, sentences, canvas = make_clip(seed, i, size, frames)
        file = f"videos/{i:06}.mp4"
        write_video(out / file, np.stack([render(scene, canvas, frame) for frame in range(scene.frames)]), FPS)
        items.append(_item(f"video-{i:06}", file, _split_of(i, splits), sentences, scene))
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


def load_world(root: str | Path) -> list[Medium]:
    """The images and clips of a world, with absolute paths, splits (train, val, test) and references."""
    root = Path(root).resolve()
    truth = _read_truth_file(root)
    with _naming(root):
        return [
            Medium(
                str(item["id"]), str(root / str(item["file"])), str(item["split"]), tuple(map(str, item["references"]))
            )
            for item in truth["items"]
        ]


def read_truth(root: str | Path) -> dict[str, Scene]:
    """The scene of every medium of a world, by its id."""
    truth = _read_truth_file(Path(root))
    with _naming(Path(root)):
        return {item["id"]: _scene_from_json(item["truth"]) for item in truth["items"]}


@contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Turn errors about values of truth.json into a ValueError that names it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{root / 'truth.json'} is damaged ({error!r:.200}); generate the micro-world again"
        ) from error


# --- scenes -----------------------------------------------------------------------------------------------------------


def make_image(seed: int, i: int, size: int, objects: int = 3) -> tuple[Scene, tuple[str, ...], np.ndarray]:
    """Scene, references and background of image i; the background, uint8 (size, size, 3) RGB, alone depends on size."""
    rng = np.random.default_rng([seed, 0, i])
    count = min(objects, int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25])))
    sizes = [str(rng.choice(list(SIZES))) for _ in range(count)]
    if count == 3:  # in a row of three there is room for one large object
        sizes = ["small"] * 3
        if rng.random() < 0.75:
            sizes[int(rng.integers(3))] = "large"
    boxes = _boxes_in_row([rng.uniform(*SIZES[word]) for word in sizes], bool(rng.integers(2)), rng)
    kinds = _distinct_kinds(count, rng)
    shown = tuple(SceneObject(*kind, word, (box,)) for kind, word, box in zip(kinds, sizes, boxes, strict=True))
    scene = Scene(shown, relations(shown))
    return scene, references(scene, rng), make_background(rng, size)


def make_clip(seed: int, i: int, size: int, frames: int = FRAMES) -> tuple[Scene, tuple[str, ...], np.ndarray]:
    """Scene, references and background, uint8 (size, size, 3) RGB, of clip i; it has one or two successive events."""
    rng = np.random.default_rng([seed, 1, i])
    count, event_count = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    movers = list(range(count)) if count == event_count else [0] * event_count
    kinds = _distinct_kinds(count, rng)
    one_mover = len(set(movers)) == 1  # it does not repeat a motion
    motions = [str(motion) for motion in rng.choice(list(MOTIONS), event_count, replace=not one_mover)]
    times = _event_times(event_count, frames, rng)
    while True:  # until no object leaves the image and no two touch
        starts, tracks = zip(*(_track(k, movers, motions, times, frames, rng) for k in range(count)), strict=True)
        if all(_inside(box) for track in tracks for box in track) and not any(map(_are_close, *_box_pairs(tracks))):
            break
    objects = tuple(SceneObject(*kind, word, track) for kind, word, track in zip(kinds, starts, tracks, strict=True))
    events = tuple(
        Event(k, motion, first / FPS, last / FPS)
        for k, motion, (first, last) in zip(movers, motions, times, strict=True)
    )
    scene = Scene(objects, events=events, fps=float(FPS))
    return scene, references(scene, rng), make_background(rng, size)


def _distinct_kinds(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """`count` different (shape, colour) pairs, so each pair names one object; a shape or a colour alone may repeat."""
    colours = list(COLOURS)
    codes = rng.choice(len(SHAPES) * len(colours), count, replace=False)
    return [(SHAPES[code // len(colours)], colours[code % len(colours)]) for code in codes]


def _boxes_in_row(sides: list[float], horizontal: bool, rng: np.random.Generator) -> list[Box]:
    """Square boxes of these sides in a row or column, at least GAP apart and roughly aligned on the other axis."""
    count = len(sides)
    slack = 1 - 2 * EDGE - sum(sides) - GAP * (count - 1)
    cuts = np.sort(rng.uniform(0, slack, count))
    along = [EDGE + cuts[k] + sum(sides[:k]) + GAP * k for k in range(count)]
    while True:
        across = [rng.uniform(EDGE, 1 - EDGE - side) for side in sides]
        centres = [(a + side / 2, b + side / 2) for a, b, side in zip(along, across, sides, strict=True)]
        # at most 31 degrees off the axis, so an object to the left of another is not also above it
        if all(abs(q[1] - p[1]) <= 0.6 * (q[0] - p[0]) for p, q in pairwise(centres)):
            break
    corners = zip(along, across, strict=True) if horizontal else zip(across, along, strict=True)
    return [_box(x, y, side) for (x, y), side in zip(corners, sides, strict=True)]


def _event_times(event_count: int, frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """First and last frame of every event; the second event begins after the first one has ended."""
    if event_count == 1:
        times = [(int(rng.integers(1, 4)), int(rng.integers(11, 15)))]
    else:
        times = [
            (int(rng.integers(0, 2)), int(rng.integers(6, 8))),
            (int(rng.integers(8, 10)), int(rng.integers(14, 16))),
        ]
    if frames > FRAMES:
        pauses = np.sort(rng.integers(0, frames - FRAMES + 1, event_count)).tolist()
        times = [(first + pause, last + pause) for (first, last), pause in zip(times, pauses, strict=True)]
    return times


def _track(
    index: int,
    movers: list[int],
    motions: list[str],
    times: list[tuple[int, int]],
    frames: int,
    rng: np.random.Generator,
) -> tuple[str, tuple[Box, ...]]:
    """Size in the first frame, and the box in every frame, of object `index`; it changes only during its own events."""
    own = [(motion, *span) for mover, motion, span in zip(movers, motions, times, strict=True) if mover == index]
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
    """A box with rounded coordinates, because the image must show exactly what truth.json says."""
    return round(float(x), 4), round(float(y), 4), round(float(x + side), 4), round(float(y + side), 4)


def _inside(box: Box) -> bool:
    """Whether a box is at least EDGE away from the border."""
    return min(box) >= EDGE and max(box) <= 1 - EDGE


def _box_pairs(tracks: Sequence[tuple[Box, ...]]) -> tuple[list[Box], list[Box]]:
    """The boxes of every two objects in the same frame, as two lists."""
    pairs = [(a, b) for i, p in enumerate(tracks) for q in tracks[i + 1 :] for a, b in zip(p, q, strict=True)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _are_close(a: Box, b: Box) -> bool:
    """Whether two boxes are closer than GAP."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) < GAP


# --- drawing ----------------------------------------------------------------------------------------------------------


def make_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background in muted greys, uint8 (size, size, 3) RGB, with clutter that no caption mentions."""
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
    textured = tone + (other - tone) * np.asarray(texture, dtype=float)[..., None]
    canvas = Image.fromarray(np.clip(textured, 0, 255).astype(np.uint8))
    _draw_clutter(canvas, tone, rng)
    return np.clip(np.asarray(canvas) + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)


def _draw_clutter(canvas: Image.Image, tone: np.ndarray, rng: np.random.Generator) -> None:
    """Draw thin lines and dots in greys near that of the background."""
    pen, size = ImageDraw.Draw(canvas), canvas.width
    for _ in range(rng.integers(3, 9)):
        r, g, b = (int(c) for c in np.clip(tone + rng.choice([-1, 1]) * rng.uniform(20, 45), 0, 255))
        x, y, u, v = rng.uniform(0, size, 4)
        if rng.random() < 0.5:
            pen.line((x, y, x + (u - x) / 2, y + (v - y) / 2), fill=(r, g, b), width=1)
        else:
            radius = rng.uniform(0.01, 0.025) * size
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(r, g, b))


def render(scene: Scene, canvas: np.ndarray, frame: int = 0) -> np.ndarray:
    """One frame of a scene, over a background uint8 (S, S, 3) RGB, which is not changed."""
    image = canvas.astype(float)
    for it in scene.objects:
        coverage = _coverage(it.shape, it.boxes[frame], len(canvas))[..., None]
        image += coverage * (np.array(COLOURS[it.colour]) - image)
    return np.rint(image).astype(np.uint8)


def _coverage(shape: str, box: Box, size: int) -> np.ndarray:
    """The fraction of every pixel that a shape covers, (size, size) in [0, 1]; it is drawn larger and averaged."""
    large = Image.new("L", (size * SUPERSAMPLING,) * 2)
    pen = ImageDraw.Draw(large)
    # Pillow's coordinates are pixel centres and both ends are painted, so the last one is a pixel before the edge
    x, y, right, bottom = (round(value * size * SUPERSAMPLING) for value in box)
    right, bottom = right - 1, bottom - 1
    if shape == "circle":
        pen.ellipse((x, y, right, bottom), fill=255)
    else:
        pen.polygon([(x + u * (right - x), y + v * (bottom - y)) for u, v in _outline(shape)], fill=255)
    return np.asarray(large.reduce(SUPERSAMPLING)) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of the polygon, which touches all four sides of the unit square, y downward."""
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


def _check_arguments(
    images: int, videos: int, seed: int, size: int, objects: int, frames: int, splits: Sequence[float]
) -> None:
    if images < 0 or videos < 0 or images + videos == 0:
        raise ValueError(
            f"images={images}, videos={videos}: there must be at least one image or clip, and none negative"
        )
    if seed < 0:
        raise ValueError(f"seed={seed}: the seed must be 0 or more")
    if size < 32 or size % 2:
        raise ValueError(f"size={size}: the side must be an even number of pixels (H.264) and at least 32")
    if not 1 <= objects <= 3:
        raise ValueError(f"objects={objects}: the most objects in an image must be 1, 2 or 3")
    if frames < FRAMES:
        raise ValueError(f"frames={frames}: a clip needs at least {FRAMES} frames for two successive events")
    if len(splits) != 3 or min(splits) < 0 or abs(sum(splits) - 1) > 1e-6:
        raise ValueError(
            f"splits={tuple(splits)}: give the fractions of train, val and test, for example 0.8 0.1 0.1 (sum 1)"
        )


def _split_of(i: int, splits: Sequence[float]) -> str:
    """Split of item i.  Multiples of the golden ratio are even over [0, 1), so every prefix has the right fractions."""
    place = i * 0.6180339887498949 % 1
    if place < splits[0]:
        return "train"
    return "val" if place < splits[0] + splits[1] else "test"


def _item(id: str, file: str, split: str, sentences: tuple[str, ...], scene: Scene) -> dict[str, Any]:
    return {"id": id, "file": file, "split": split, "references": list(sentences), "truth": asdict(scene)}


def _read_truth_file(root: Path) -> dict[str, Any]:
    path = root / "truth.json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; make the micro-world with: limner shapes --out {root}")
    value = read_json(path)
    kind = (value.get("format"), value.get("version")) if isinstance(value, dict) else type(value).__name__
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{path} holds {kind}, expected {(FORMAT, VERSION)}; generate the micro-world again")
    return value


def _scene_from_json(value: dict[str, Any]) -> Scene:
    """The scene of a JSON object, the inverse of `dataclasses.asdict`."""
    objects = [{**fields, "boxes": tuple(tuple(box) for box in fields["boxes"])} for fields in value["objects"]]
    return Scene(
        tuple(SceneObject(**fields) for fields in objects),
        tuple(Relation(**fields) for fields in value["relations"]),
        tuple(Event(**fields) for fields in value["events"]),
        value["fps"],
    )


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Encode frames, uint8 (T, H, W, 3) RGB, as an H.264 file, which browsers can play."""
    import av

    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "threads": "1", "preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
