"""The micro-world: what truth.json says is what is drawn, and the same seed gives the same world."""

import json
from dataclasses import replace
from itertools import combinations

import av
import numpy as np
import pytest
from PIL import Image

from limner.data import shapes
from limner.data.shapes import generate_world, load_world, make_clip, make_image, read_truth, render
from limner.data.shapes_words import (
    CLIPS,
    COLOURS,
    MARGIN,
    MOTIONS,
    ONE,
    SHAPES,
    SIZES,
    THREE,
    TWO,
    Scene,
    SceneObject,
    relation,
)

SIZE = 64
PICTURES = [make_image(0, i, 32)[0] for i in range(200)]
CLIP_SCENES = [make_clip(0, i, 32)[0] for i in range(100)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    generate_world(root, images=12, videos=4, seed=7, size=SIZE)
    return root


def contents(root, pattern):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob(pattern)}


def test_same_seed_same_bytes(world, tmp_path):
    generate_world(tmp_path / "again", images=12, videos=4, seed=7, size=SIZE)
    for pattern in ("truth.json", "images/*"):  # a video encoder owes nobody equal bytes
        assert contents(world, pattern) == contents(tmp_path / "again", pattern)
    generate_world(tmp_path / "other", images=12, seed=8, size=SIZE)
    assert contents(world, "images/000000.png") != contents(tmp_path / "other", "images/000000.png")


def test_a_smaller_world_is_part_of_a_larger_one(world, tmp_path):
    generate_world(tmp_path, images=5, videos=2, seed=7, size=SIZE)
    small, large = contents(tmp_path, "images/*"), contents(world, "images/*")
    assert len(small) == 5 and small.items() <= large.items()
    frames = {medium.id: medium for medium in load_world(world)}
    for medium in load_world(tmp_path):
        twin = frames[medium.id]
        assert (medium.references, medium.split) == (twin.references, twin.split)
    assert read_truth(tmp_path).items() <= read_truth(world).items()


def test_truth_does_not_depend_on_the_pixels(tmp_path, world):
    generate_world(tmp_path, images=12, videos=4, seed=7, size=32)
    assert read_truth(tmp_path) == read_truth(world)


def test_load_gives_media_and_truth_by_id(world):
    media, truth = load_world(world), read_truth(world)
    assert [medium.id for medium in media] == [f"image-{i:06}" for i in range(12)] + [f"video-{i:06}" for i in range(4)]
    assert set(truth) == {medium.id for medium in media}
    assert media[3].path == str(world.resolve() / "images/000003.png")
    assert truth["image-000003"] == make_image(7, 3, SIZE)[0]  # JSON there and back
    assert truth["video-000001"] == make_clip(7, 1, SIZE)[0]
    for medium in media:
        assert len(set(medium.references)) == 5
        assert all(set(reference) <= set("abcdefghijklmnopqrstuvwxyz ") for reference in medium.references)


def test_pictures_hold_what_was_drawn(world):
    for i in range(12):
        scene, _, canvas = make_image(7, i, SIZE)
        assert np.array_equal(np.asarray(Image.open(world / f"images/{i:06}.png")), render(scene, canvas))


def test_videos_hold_what_was_drawn(world):
    for i in range(4):
        scene, _, canvas = make_clip(7, i, SIZE)
        with av.open(str(world / f"videos/{i:06}.mp4")) as container:
            assert container.streams.video[0].average_rate == scene.fps == 8
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == scene.frames == 16
        drawn = np.stack([render(scene, canvas, k) for k in range(16)]).astype(float)
        assert np.abs(np.stack(frames) - drawn).mean() < 6  # of 255: the codec halves the resolution of colour


@pytest.mark.parametrize("frames", [16, 17, 40])
def test_longer_clips_have_pauses_and_not_longer_events(frames: int):
    """One thing takes 8 to 13 frames, one of two 5 to 7, however long the clip; they fall all over it."""
    scenes = [make_clip(3, i, 32, frames)[0] for i in range(60)]
    for scene in scenes:
        assert scene.frames == frames and scene.events[-1].end <= (frames - 1) / 8
        spans = [(event.end - event.start) * 8 for event in scene.events]
        assert all(8 <= span <= 13 for span in spans) if len(spans) == 1 else all(5 <= span <= 7 for span in spans)
        if len(spans) == 2:
            assert scene.events[0].end < scene.events[1].start
        for k, thing in enumerate(scene.objects):
            changes = {f for f in range(1, frames) if thing.boxes[f] != thing.boxes[f - 1]}
            own = [event for event in scene.events if event.object == k]
            assert changes <= {f for event in own for f in range(frames) if event.start < f / 8 <= event.end}
    begins = [scene.events[0].start for scene in scenes]
    assert (min(begins) < 0.5) and ((max(begins) > 2) == (frames == 40))
    assert scenes[0] == make_clip(3, 0, 64, frames)[0]


def test_boxes_are_where_the_pixels_change():
    """Every object alone, of every shape, on plain grey: the changed pixels span its box to within one pixel."""
    canvas = np.full((SIZE, SIZE, 3), 128, np.uint8)
    things = [thing for scene in PICTURES[:80] for thing in scene.objects]
    things += [thing for scene in CLIP_SCENES[:20] for thing in scene.objects]
    assert {thing.shape for thing in things} == set(SHAPES)
    for thing in things:
        for frame in range(0, len(thing.boxes), 5):
            rows, columns = np.nonzero((render(Scene((thing,)), canvas, frame) != canvas).any(-1))
            changed = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.array(changed) - np.array(thing.boxes[frame]) * SIZE).max() <= 1, thing


def test_a_square_covers_its_box_exactly():
    canvas = np.full((SIZE, SIZE, 3), 128, np.uint8)
    square = SceneObject("square", "white", "small", ((0.25, 0.5, 0.5, 0.75),))  # 16 x 16 pixels from x 16, y 32
    expected = canvas.copy()
    expected[32:48, 16:32] = COLOURS["white"]
    assert np.array_equal(render(Scene((square,)), canvas), expected)


def test_colours_are_far_apart_and_far_from_the_background():
    for a, b in combinations(COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(a, b)) >= 120
    for i in range(30):
        canvas = make_image(0, i, SIZE)[2].reshape(-1, 3).astype(float)
        for colour in COLOURS.values():
            assert np.median(np.linalg.norm(canvas - colour, axis=1)) > 80


def test_objects_lie_inside_and_apart_and_have_the_size_they_say():
    for scene in PICTURES + CLIP_SCENES:
        assert len({(thing.colour, thing.shape) for thing in scene.objects}) == len(scene.objects)
        for thing in scene.objects:
            low, high = SIZES[thing.size]
            assert low - 1e-3 <= thing.box[2] - thing.box[0] <= high + 1e-3
            assert all(min(box) > 0 and max(box) < 1 for box in thing.boxes)
        for a, b in combinations(scene.objects, 2):
            for p, q in zip(a.boxes, b.boxes, strict=True):
                assert max(p[0], q[0]) > min(p[2], q[2]) or max(p[1], q[1]) > min(p[3], q[3])


def test_relations_follow_from_the_boxes():
    for scene in PICTURES:
        count = len(scene.objects)
        assert len(scene.relations) == count * (count - 1)  # every pair, both ways round
        for stated in scene.relations:
            a, b = scene.objects[stated.subject].box, scene.objects[stated.object].box
            gap = {"left of": b[0] - a[2], "right of": a[0] - b[2], "above": b[1] - a[3], "below": a[1] - b[3]}
            assert gap[stated.name] >= MARGIN


def test_relation_by_hand():
    middle = (0.4, 0.4, 0.6, 0.6)
    assert relation((0.1, 0.3, 0.3, 0.5), middle) == "left of"
    assert relation(middle, (0.1, 0.3, 0.3, 0.5)) == "right of"
    assert relation((0.3, 0.0, 0.5, 0.2), middle) == "above"
    assert relation((0.3, 0.7, 0.5, 0.9), middle) == "below"
    assert relation((0.18, 0.4, 0.38, 0.6), middle) is None  # a gap of 0.02 is not clear


def test_boxes_change_only_and_always_within_events():
    seen = set()
    for scene in CLIP_SCENES:
        assert scene.events and not scene.relations
        assert all(p.end < q.start for p, q in zip(scene.events, scene.events[1:], strict=False))
        for k, thing in enumerate(scene.objects):
            for frame in range(1, scene.frames):
                before, after = (frame - 1) / scene.fps, frame / scene.fps
                running = [e for e in scene.events if e.object == k and e.start <= before and after <= e.end]
                assert (thing.boxes[frame - 1] != thing.boxes[frame]) == bool(running)
        for event in scene.events:
            assert 0 <= event.start < event.end <= (scene.frames - 1) / scene.fps
            boxes = scene.objects[event.object].boxes
            first, last = (np.array(boxes[round(t * scene.fps)]) for t in (event.start, event.end))
            right, down = (last[:2] + last[2:] - first[:2] - first[2:]) / 2
            growth = (last[2] - last[0]) - (first[2] - first[0])
            shift = {"right": right, "left": -right, "down": down, "up": -down}
            if event.motion in ("grows", "shrinks"):
                assert (growth if event.motion == "grows" else -growth) > 0.09
                assert max(abs(right), abs(down)) < 1e-3
            else:
                assert shift.pop(event.motion.split()[1]) > 0.24 and abs(growth) < 1e-3
                assert sorted(abs(value) < 1e-3 for value in shift.values()) == [False, True, True]
            seen.add(event.motion)
    assert seen == set(MOTIONS)


def test_the_world_holds_every_number_colour_and_relation():
    assert {len(scene.objects) for scene in PICTURES} == {1, 2, 3}
    assert {(len(scene.objects), len(scene.events)) for scene in CLIP_SCENES} == set(CLIPS)
    assert {thing.colour for scene in PICTURES for thing in scene.objects} == set(COLOURS)
    assert {scene.relations[0].name for scene in PICTURES if scene.relations} == {"left of", "above"}


def test_the_vocabulary_has_67_words():
    words = {word for template in (*ONE, *sum([*TWO.values(), *THREE.values()], ())) for word in template.split()}
    words |= {word for templates in CLIPS.values() for template in templates for word in template.split()}
    words |= {word for verbs in MOTIONS.values() for verb in verbs for word in verb.split()}
    words |= {*SHAPES, *COLOURS, *SIZES}
    assert len({word for word in words if not word.startswith("{")}) == 67


def test_splits_hold_for_every_prefix():
    names = [shapes._split_of(i, (0.8, 0.1, 0.1)) for i in range(1000)]
    assert [names[:10].count(name) for name in ("train", "val", "test")] == [8, 1, 1]
    for count in range(1, 1001):
        for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
            assert abs(names[:count].count(name) - share * count) < 3
    assert {shapes._split_of(i, (1, 0, 0)) for i in range(1000)} == {"train"}


def test_truth_is_written_last(tmp_path, monkeypatch):
    generate_world(tmp_path, images=3)
    written = []

    def fail_at_the_third(scene, canvas, frame=0):
        assert not (tmp_path / "truth.json").exists()
        written.append(scene)
        if len(written) == 3:
            raise OSError("disk full")
        return render(scene, canvas, frame)

    monkeypatch.setattr(shapes, "render", fail_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        generate_world(tmp_path, images=3, seed=1)
    with pytest.raises(ValueError, match=r"truth\.json does not exist; make .*: limner shapes --out "):
        load_world(tmp_path)


def test_drawing_leaves_the_background_alone():
    scene, _, canvas = make_image(0, 0, SIZE)
    copy = canvas.copy()
    render(replace(scene, relations=()), canvas)
    assert np.array_equal(canvas, copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "at least one"),
        ({"images": -1, "videos": 3}, "at least one"),
        ({"images": 1, "seed": -1}, "seed=-1"),
        ({"images": 1, "size": 33}, "even number"),
        ({"images": 1, "size": 16}, "at least 32"),
        ({"images": 1, "splits": (0.5, 0.5)}, "train, val and test"),
        ({"images": 1, "splits": (0.5, 0.2, 0.2)}, "sum 1"),
    ],
)
def test_invalid_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_world(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_another_file_is_not_taken_for_the_truth(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps({"format": "coco"}))
    with pytest.raises(ValueError, match=r"holds \('coco', None\), expected"):
        read_truth(tmp_path)
