"""Judging captions of the micro-world: sentences that a reader can check, and the references of many scenes."""

import pytest

from limner.data.shapes import make_clip, make_image
from limner.data.shapes_words import CLIPS, ONE, THREE, TWO, Event, Scene, SceneObject, relations
from limner.metrics.microworld import (
    Judgement,
    Mention,
    StatedMotion,
    StatedRelation,
    accuracy,
    judge,
    parse_caption,
    resolve_mention,
)

RED = SceneObject("circle", "red", "large", ((0.1, 0.3, 0.45, 0.65),))
BLUE = SceneObject("square", "blue", "small", ((0.6, 0.4, 0.8, 0.6),))
PAIR = Scene((RED, BLUE), relations((RED, BLUE)))  # the red circle is left of the blue square
ALONE = Scene((RED,))
CLIP = Scene((RED, BLUE), events=(Event(0, "moves left", 0.0, 0.75), Event(1, "grows", 1.0, 2.0)), fps=8.0)


def right(scene: Scene) -> tuple[bool | None, ...]:
    """object, colour, relation, motion, order, hallucination of a perfect caption; it need not state sizes."""
    clip = bool(scene.events)
    return (
        True,
        True,
        True if scene.relations else None,
        True if clip else None,
        True if len(scene.events) > 1 else None,
        False,
    )


def verdict(judgement: Judgement) -> tuple[bool | None, ...]:
    j = judgement
    return j.object, j.colour, j.relation, j.motion, j.order, j.hallucination


@pytest.mark.parametrize("make", [make_image, make_clip])
def test_every_reference_is_right_of_its_scene_and_wrong_of_the_others(make):
    made = [make(3, i, 32)[:2] for i in range(250)]
    for k, (scene, sentences) in enumerate(made):
        others = [other for other, _ in made[k + 1 : k + 4]]
        for sentence in sentences:
            judgement = judge(sentence, scene)
            assert verdict(judgement) == right(scene), (sentence, scene)
            assert judgement.size in (None, True)
            for other in others:
                same = {(t.colour, t.shape) for t in scene.objects} == {(t.colour, t.shape) for t in other.objects}
                assert same or verdict(judge(sentence, other)) != right(other), (sentence, other)


def test_every_template_is_read():
    """All templates, because the random references above may lack some of them."""
    a, b, c = "a large red circle", "a small blue square", "a green star"
    for template in ONE:
        assert len(parse_caption(template.format(a=a)).mentions) == 1
    for name, templates in TWO.items():
        for template in templates:
            claims = parse_caption(template.format(a=a, b=b))
            assert len(claims.mentions) == 2 and len(claims.relations) == 1, template
            stated = claims.relations[0]
            first = claims.mentions[stated.subject].shape == "circle"
            assert (stated.name == name) == first, template
    for templates in THREE.values():
        for template in templates:
            claims = parse_caption(template.format(a=a, b=b, c=c))
            assert len(claims.mentions) == 3 and len(claims.relations) >= 2, template
    for (_, count), templates in CLIPS.items():
        for template in templates:
            claims = parse_caption(template.format(a=a, b=b, p="slides to the left", q="gets bigger"))
            moves = [h.motion for h in claims.motions if h.motion != "stays still"]
            assert moves == ["moves left", "grows"][:count] and claims.relations == (), template


@pytest.mark.parametrize(
    ("caption", "verdicts"),  # object, colour, size, relation, hallucination
    [
        ("A red circle to the left of a blue square.", (True, True, None, True, False)),
        ("a small red circle left of a small blue square", (True, True, False, True, False)),
        ("a red circle is right of a blue square", (True, True, None, False, False)),
        ("a red circle above a blue square", (True, True, None, False, False)),
        ("a red circle and a blue square", (True, True, None, False, False)),  # states no relation
        ("a blue circle left of a red square", (True, False, None, False, True)),  # swapped colours
        ("a circle left of a square", (True, False, None, True, False)),
        ("a red circle", (False, False, None, False, False)),
        ("a red circle left of a blue square and a green star", (False, False, None, True, True)),
        ("red red circle left of of blue square square", (False, False, None, True, False)),
        ("a red circle left of a red circle", (False, False, None, False, False)),
        ("two red circles", (False, False, None, False, False)),
        ("a red circle left of", (False, False, None, False, False)),
        ("a red blue circle left of a blue square", (True, False, None, False, True)),
        ("", (False, False, None, False, False)),
        ("of the a with", (False, False, None, False, False)),
    ],
)
def test_captions_of_a_pair(caption, verdicts):
    object, colour, size, relation, hallucination = verdicts
    assert judge(caption, PAIR) == Judgement(object, colour, size, relation, None, None, hallucination)


@pytest.mark.parametrize(
    ("caption", "motion", "order"),
    [
        ("a red circle moves left and then a blue square grows", True, True),
        ("a blue square gets bigger after a red circle goes left", True, True),
        ("after a red circle moves left a blue square grows", True, True),
        ("before a blue square grows a red circle moves left", True, True),
        ("a red circle moves left before a blue square grows", True, True),
        ("a blue square grows and then a red circle moves left", True, False),
        ("a red circle moves left after a blue square grows", True, False),
        ("a red circle moves left while a blue square grows", True, False),  # no word states an order
        ("a red circle moves right and then a blue square grows", False, False),
        ("a blue square moves left and then a red circle grows", False, False),  # the wrong ones
        ("a red circle moves left and a blue square stays still", False, False),
        ("a red circle moves left and then grows and a blue square", False, False),
        ("moves left then a red circle and a blue square grows", False, False),
        ("a red circle and a blue square", False, False),
    ],
)
def test_motions_and_their_order(caption, motion, order):
    judgement = judge(caption, CLIP)
    assert (judgement.motion, judgement.order) == (motion, order)
    assert judgement.relation is None and judgement.size is None


def test_claims_know_their_words():
    claims = parse_caption("a large red circle left of a star that moves to the right")
    assert claims.mentions == (Mention(3, "circle", "red", "large"), Mention(7, "star"))
    assert claims.relations == (StatedRelation(0, "left of", 1),)
    assert claims.motions == (StatedMotion(9, 1, "moves right"),)
    assert not claims.ordered


def test_a_mention_means_one_object_or_none():
    green = SceneObject("circle", "green", "small", ((0.6, 0.4, 0.8, 0.6),))
    scene = Scene((RED, green, BLUE))
    assert resolve_mention(Mention(0, "circle", "green"), scene) == 1
    assert resolve_mention(Mention(0, "circle"), scene) is None  # two fit
    assert resolve_mention(Mention(0, "square"), scene) == 2
    assert resolve_mention(Mention(0, "star", "red"), scene) is None


def test_accuracy_counts_only_where_it_applies():
    scenes = {"pair": PAIR, "pair2": PAIR, "alone": ALONE, "clip": CLIP}
    captions = {
        "pair": "a large red circle left of a blue square",
        "pair2": "a small red circle right of a blue star",
        "alone": "a red circle",
        "clip": "a blue square grows and then a red circle moves left",
    }
    assert accuracy(captions, scenes) == {
        "object": 3 / 4,
        "colour": 3 / 4,
        "size": 1 / 2,
        "relation": 1 / 2,
        "motion": 1.0,
        "order": 0.0,
        "hallucination": 1 / 4,
    }
    assert set(accuracy({"alone": "a red circle"}, scenes)) == {"object", "colour", "hallucination"}


def test_accuracy_names_what_is_missing():
    with pytest.raises(ValueError, match="2 captions have no scene, for example 'x'"):
        accuracy({"x": "a", "y": "b", "pair": "c"}, {"pair": PAIR})
    with pytest.raises(ValueError, match="no captions"):
        accuracy({}, {"pair": PAIR})
