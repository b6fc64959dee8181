"""Where words point: cells worked out by hand."""

import numpy as np

from limner.core.types import Layout
from limner.data.shapes_words import Event, Scene, SceneObject
from limner.explanations.ground_truth import pointing_targets


def cells(found: np.ndarray, layout: Layout) -> list[tuple[int, int, int]]:
    return [tuple(int(i) for i in place) for place in np.argwhere(found.reshape(layout))]


def boxes(layout: Layout) -> np.ndarray:
    return layout.boxes().numpy()


CIRCLE = SceneObject("circle", "red", "large", ((0.0, 0.0, 0.5, 0.5),))
STAR = SceneObject("star", "blue", "small", ((0.55, 0.55, 0.75, 0.75),))


def test_words_of_a_picture_point_to_its_objects():
    """The circle covers the upper left 2 x 2 of 4 x 4 cells; the star holds the centre of cell (2, 2), .625."""
    layout = Layout(1, 4, 4)
    found = pointing_targets("the red circle is left of a star", Scene((CIRCLE, STAR)), layout, boxes(layout))
    assert [(place.word, place.kind) for place in found] == [(2, "object"), (1, "colour"), (7, "object")]
    assert cells(found[0].cells, layout) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert (found[0].cells == found[1].cells).all() and cells(found[2].cells, layout) == [(0, 2, 2)]


def test_an_object_without_a_cell_s_centre_lies_in_one_all_the_same():
    """Centres of 2 x 2 cells are .25 and .75; the star's own centre, .65, lies in the last cell."""
    layout = Layout(1, 2, 2)
    thing = SceneObject("star", "blue", "small", ((0.6, 0.6, 0.7, 0.7),))
    (found,) = pointing_targets("a star", Scene((thing,)), layout, boxes(layout))
    assert cells(found.cells, layout) == [(0, 1, 1)]


def test_wrong_words_have_no_target():
    layout = Layout(1, 4, 4)
    for caption in ("a green circle", "a square", "a red star", "something", ""):
        assert pointing_targets(caption, Scene((CIRCLE, STAR)), layout, boxes(layout)) == []
    twins = (CIRCLE, SceneObject("circle", "blue", "small", STAR.boxes))
    assert pointing_targets("a circle", Scene(twins), layout, boxes(layout)) == []  # which of them?


def test_boxes_of_cells_may_lie_anywhere():
    """Cells that show only the right half of the picture: nothing of the circle on the left is seen."""
    layout = Layout(1, 1, 2)
    found = pointing_targets("a circle", Scene((CIRCLE,)), layout, np.array([[0.5, 0, 0.75, 1], [0.75, 0, 1, 1.0]]))
    assert not found[0].cells.any()


def moving() -> Scene:
    """Eight frames, a second: it moves right from frame 2 to frame 5, from the left half to the right half."""
    xs = [0.0, 0.0, 0.0, 0.2, 0.4, 0.6, 0.6, 0.6]
    track = tuple((x, 0.3, x + 0.2, 0.5) for x in xs)
    return Scene(
        (SceneObject("cross", "black", "small", track),), events=(Event(0, "moves right", 0.25, 0.625),), fps=8.0
    )


def test_words_of_a_clip_point_to_its_objects_and_times():
    """Layout (4, 1, 2): part k stands for frames 2k and 2k + 1.  The cross's centre is x + .1: left of .5 in frames
    0 .. 3, on .5 in frame 4, right of it from frame 5 on; no cell's centre (.25, .75) is inside but for frame 3
    (.2 .. .4) and 5 .. 7 (.6 .. .8)."""
    layout = Layout(4, 1, 2)
    caption = "a black cross moves to the right"
    found = pointing_targets(caption, moving(), layout, boxes(layout))
    kinds = [(place.word, place.kind) for place in found]
    assert kinds == [(2, "object"), (1, "colour"), (3, "time"), (3, "event"), (6, "time"), (6, "event")]
    assert cells(found[0].cells, layout) == [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 0, 1)]
    assert cells(found[2].cells, layout) == [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 0, 1)]
    assert cells(found[3].cells, layout) == [(1, 0, 0), (2, 0, 1)]
    other = pointing_targets("a black cross slides left", moving(), layout, boxes(layout))
    assert [place.kind for place in other] == ["object", "colour"]  # it does not
    still = pointing_targets("a black cross stays still", moving(), layout, boxes(layout))
    assert [place.kind for place in still] == ["object", "colour"]


def test_frame_vectors_have_times_only():
    layout = Layout(8, 1, 1)
    found = pointing_targets("a black cross goes right", moving(), layout, boxes(layout))
    assert [(place.word, place.kind) for place in found] == [(3, "time"), (4, "time")]
    assert cells(found[0].cells, layout) == [(2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0)]


def test_more_parts_than_frames_repeat_them():
    layout = Layout(16, 1, 1)
    found = pointing_targets("a cross moves right", moving(), layout, boxes(layout))
    assert [k for k, *_ in cells(found[0].cells, layout)] == [4, 5, 6, 7, 8, 9, 10, 11]
