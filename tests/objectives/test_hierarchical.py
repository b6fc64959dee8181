"""SFT's losses: by hand, against exhaustive search, and against the plain definitions."""

from dataclasses import replace
from itertools import permutations
from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limner.core.types import EOS, PAD, Batch, Features, Loss, Medium, Pixels
from limner.models.captioner import FromPixels
from limner.models.sft import Sft, SftConfig
from limner.objectives import build_objective
from limner.objectives.assignment import min_cost_assignment
from limner.objectives.context import Context
from limner.objectives.cross_entropy import smoothed_cross_entropy
from limner.objectives.hierarchical import SftLoss, SftTraining, WordLabels, smoothed_target_entropy
from limner.runs.recipe_file import build_recipe
from limner.text.vocabulary import Vocabulary
from limner.text.word_classes import nouns_and_verbs
from tests.models.captioners import D, random_features, small

CAPTIONS = ["a man rides a horse", "the red dog is running", "two cats on a table", "a man is singing"]
VOCABULARY = Vocabulary.build(CAPTIONS, 1)


def batch(captions: list[str] = CAPTIONS) -> Batch:
    rows = [torch.tensor(VOCABULARY.encode(text)) for text in captions]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return Batch(("a", "b", "c", "d"), random_features(), tokens, tuple((text,) for text in CAPTIONS))


def model(**options: object) -> Sft:
    torch.manual_seed(0)
    sizes = {"hidden": 24, "embed": 6, "width": 16, "heads": 2, "dropout": 0.0}
    return Sft(SftConfig(**(sizes | options)), len(VOCABULARY), D)  # type: ignore[arg-type]


def training(**options: object) -> SftTraining:
    media = [Medium(str(k), "", "train", (text,)) for k, text in enumerate(CAPTIONS)]
    return SftLoss(**options).build(Context(media=media, vocabulary=VOCABULARY))  # type: ignore[arg-type]


@given(st.data())
def test_the_assignment_has_the_lowest_cost_of_all(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    numbers = st.lists(st.floats(-9, 9), min_size=columns, max_size=columns)
    cost = data.draw(st.lists(numbers, min_size=rows, max_size=rows))
    found = min_cost_assignment(cost)
    assert len({r for r, _ in found}) == len({c for _, c in found}) == len(found) == min(rows, columns)
    few, many = sorted((rows, columns))
    at = (lambda a, b: cost[a][b]) if rows <= columns else (lambda a, b: cost[b][a])
    best = min(sum(at(a, b) for a, b in enumerate(chosen)) for chosen in permutations(range(many), few))
    assert sum(cost[r][c] for r, c in found) == pytest.approx(best, abs=1e-9)


def test_assignments_by_hand() -> None:
    assert min_cost_assignment([]) == [] and min_cost_assignment([[]]) == []
    assert min_cost_assignment([[1.0, 0.0]]) == [(0, 1)] and min_cost_assignment([[1.0], [0.0]]) == [(1, 0)]
    assert min_cost_assignment([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]]) == [
        (0, 1),
        (1, 0),
        (2, 2),
    ]  # greedy would pay 6


@pytest.mark.parametrize(
    ("caption", "nouns", "verbs"),
    [
        ("a man is riding a red bike", ["man", "bike"], ["riding"]),
        ("a dog runs through the grass", ["dog", "grass"], ["runs"]),
        ("two men are talking", ["men"], ["talking"]),
        ("a ball is thrown", ["ball"], ["thrown"]),
        ("three young dogs on a bus", ["dogs", "bus"], []),
        ("someone sings something", ["someone", "something"], ["sings"]),
        ("a red circle moves left while a blue square grows", ["circle", "left", "square"], ["moves", "grows"]),
        ("", [], []),
    ],
)
def test_nouns_and_verbs_of_plain_captions(caption: str, nouns: list[str], verbs: list[str]) -> None:
    assert nouns_and_verbs(caption.split()) == (nouns, verbs)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(
    "options", [{}, {"mask_special_tokens": False}, {"mask_special_tokens": False, "unknown": False}]
)
def test_token_nll_is_the_smoothed_loss_in_one_pass_over_the_words(epsilon: float, options: dict[str, bool]) -> None:
    head = model(**options).head
    torch.manual_seed(1)
    hidden, targets = torch.randn(7, 24, requires_grad=True), torch.tensor([EOS, 4, 5, 6, 7, EOS, 4])
    fast = head.token_nll(hidden, targets, epsilon)
    logits = head.words(hidden)
    slow = smoothed_cross_entropy(logits, targets, epsilon)
    torch.testing.assert_close(fast[0].mean(), slow[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast[1].mean(), slow[1], rtol=1e-5, atol=1e-6)
    grads = [
        torch.autograd.grad(loss, [hidden, head.words.weight, head.words.bias]) for loss in (fast[0].mean(), slow[0])
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def by_definition(net: Sft, path: str, tokens: Tensor, features: Features, epsilon: float) -> Tensor:
    """Mean over the words of one side's smoothed loss, through `forward_teacher_forced`."""
    net.config = replace(net.config, side=path)  # type: ignore[arg-type]
    logits = net(features, tokens[:, :-1])
    keep = tokens[:, 1:] != PAD
    return smoothed_cross_entropy(logits[keep], tokens[:, 1:][keep], epsilon)[0]


@pytest.mark.parametrize("shared", ["all", "head", "nothing"])
def test_the_losses_of_both_sides_are_weighted(shared: str) -> None:
    net, data = model(shared=shared), batch()
    sides = {name: by_definition(net, name, data.tokens, data.inputs, 0.1) for name in ("teacher", "student")}
    for share in (0.0, 0.3, 1.0):
        loss = training(teacher_weight=share)(net, data)
        torch.testing.assert_close(loss.value, share * sides["teacher"] + (1 - share) * sides["student"])
        seen = {name for name, weight in (("xe_teacher", share), ("xe_student", 1 - share)) if weight}
        assert set(loss.logs) == seen  # a side that does not count is not computed
    assert not torch.equal(sides["teacher"], sides["student"])


def test_weights_out_of_range_are_refused() -> None:
    for name, value in (
        ("teacher_weight", 1.5),
        ("teacher_weight", -0.1),
        ("objects", -1),
        ("kl", 2),
        ("label_smoothing", 1),
    ):
        tree = {"data": {"media": "x"}, "stages": [{"objective": {"name": "sft", name: value}}]}
        with pytest.raises(ValueError, match=rf"stages\.0\.objective\.{name}"):
            build_recipe(tree)
    with pytest.raises(ValueError, match="sentence, kl: not in the published system"):
        SftLoss(sentence=1.0, kl=1.0, published=True)


def words_of(text: str) -> list[int]:
    return [VOCABULARY.ids[word] for word in text.split()]


def test_levels_predict_the_words_of_the_captions() -> None:
    """Each level by hand: of all assignments of words to real slots the one with the highest scores; mean -log p."""
    net, data = model(mask_special_tokens=False), batch()
    nouns = [words_of("man horse"), words_of("dog"), words_of("cats table"), words_of("man")]
    verbs = [words_of("rides"), words_of("running"), [], words_of("singing")]
    loss = training(teacher_weight=0.0, objects=2.0, actions=3.0, sentence=0.5, label_smoothing=0.0)(net, data)
    path = net.encode_side(data.inputs, "student")
    expected = loss.logs["xe_student"]
    for name, weight, semantics, wanted in (
        ("objects_student", 2.0, path.semantics.object_semantics, nouns),
        ("actions_student", 3.0, path.semantics.action_semantics, verbs),
    ):
        logits, told = net.head.words(net.head.transform(semantics)), []
        for row, ids in enumerate(wanted):
            real = data.inputs.mask[row].nonzero().flatten().tolist()
            if ids:
                best = max(
                    permutations(real, len(ids)),
                    key=lambda slots, row=row, ids=ids: sum(
                        logits[row, s, i].item() for s, i in zip(slots, ids, strict=True)
                    ),
                )
                told += [-logits[row, s].log_softmax(-1)[i].item() for s, i in zip(best, ids, strict=True)]
        assert loss.logs[name] == pytest.approx(sum(told) / len(told), rel=1e-5)
        expected += weight * loss.logs[name]
    logp = net.head.words(net.head.transform(net.head.read_frames(path.semantics.vector))).log_softmax(-1)
    said = [-logp[row, i].item() for row, text in enumerate(CAPTIONS) for i in sorted(set(words_of(text)))]
    assert loss.logs["sentence_student"] == pytest.approx(sum(said) / len(said), rel=1e-5)
    assert loss.value.item() == pytest.approx(expected + 0.5 * loss.logs["sentence_student"], rel=1e-5)


def test_captions_of_a_medium_share_their_words() -> None:
    rows = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(VOCABULARY.encode(text)) for text in ("a man rides a horse", "the red dog is running")], True
    )
    nouns, verbs = WordLabels(VOCABULARY).from_tokens(rows)
    assert nouns == words_of("man horse dog") and verbs == words_of("rides running")


def test_every_weight_is_trained() -> None:
    net, data = model(shared="nothing"), batch()
    loss = training(objects=0.3, actions=0.2, sentence=0.1)(net, data)
    loss.value.backward()
    idle = {name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum()}
    assert idle <= {name for name, _ in net.named_parameters() if name.endswith(("key.bias", "score.bias"))}, idle


@pytest.mark.parametrize("shared", ["all", "head", "nothing"])
def test_what_passes_from_teacher_to_student(shared: str) -> None:
    """Each term by its definition, from both sides' captions and slots; times its weight it joins the loss."""
    net, data = model(shared=shared), batch()
    weights = {"kl": 0.7, "match_objects": 0.3, "match_actions": 0.2, "match_sentence": 0.1}
    plain = training()(net, data)
    loss = training(**weights, temperature=2.0)(net, data)
    said = {}
    for name in ("teacher", "student"):
        net.config = replace(net.config, side=name)  # type: ignore[arg-type]
        said[name] = (net(data.inputs, data.tokens[:, :-1])[data.tokens[:, 1:] != PAD] / 2).softmax(-1)
    there, here = (net.encode_side(data.inputs, name).semantics for name in ("teacher", "student"))
    real = there.present
    expected = {
        "kl": (said["teacher"] * (said["teacher"] / said["student"]).log().nan_to_num()).sum(-1).mean(),
        "match_objects": 1 - cosine(here.object_semantics, there.object_semantics)[real].mean(),
        "match_actions": 1 - cosine(here.action_semantics, there.action_semantics)[real].mean(),
        "match_sentence": 1 - cosine(here.vector, there.vector).mean(),
    }
    for name, value in expected.items():
        assert loss.logs[name] == pytest.approx(value.item(), abs=1e-6)
    total = sum(weight * loss.logs[name] * (4 if name == "kl" else 1) for name, weight in weights.items())
    assert (loss.value - plain.value).item() == pytest.approx(total, rel=1e-5)
    assert (shared == "all") == (abs(loss.logs["match_objects"]) < 1e-6)  # whose objects are then the same


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def test_the_teacher_learns_nothing_from_its_student() -> None:
    net, data = model(shared="nothing"), batch()
    grads = []
    for weights in ({}, {"kl": 1.0, "match_objects": 1.0, "match_actions": 1.0, "match_sentence": 1.0}):
        net.zero_grad()
        training(**weights)(net, data).value.backward()
        grads.append({name: w.grad.clone() for name, w in net.named_parameters() if w.grad is not None})
    moved = {name for name, grad in grads[1].items() if not torch.equal(grad, grads[0][name])}
    assert moved and not [name for name in moved if name.startswith("teacher")]


def test_the_teacher_learns_the_rarest_caption() -> None:
    """Each side's loss is that of a training in which all clips have its caption alone."""
    net, data = model(), batch()
    references = (*[("a man", text) for text in CAPTIONS[:3]], (CAPTIONS[3],))
    rare = training(rarest=True, teacher_weight=0.5)(net, replace(data, references=references))
    chosen = [training().labels.rarest_caption(texts) for texts in references]
    assert chosen == ["a man rides a horse", "the red dog is running", "two cats on a table", "a man is singing"]
    common = training(rarest=True)(net, replace(batch(["a man"] * 4), references=references))
    assert common.logs["xe_teacher"] == pytest.approx(rare.logs["xe_teacher"], rel=1e-6)
    assert common.logs["xe_student"] != pytest.approx(rare.logs["xe_student"], rel=1e-2)
    assert rare.logs["xe_student"] == pytest.approx(training()(net, data).logs["xe_student"], rel=1e-6)
    plain = training(kl=0.5)(net, data).logs["kl"]  # along the student's captions, whatever the teacher learns
    again = training(kl=0.5, rarest=True)(net, replace(data, references=tuple(("a man",) for _ in references)))
    assert again.logs["kl"] == pytest.approx(plain, rel=1e-5)


def test_a_student_of_a_teacher_that_does_not_learn_is_refused() -> None:
    for share in (0, 1):
        with pytest.raises(ValueError, match=f"kl, match_actions: .* between 0 and 1, not be {share}"):
            SftLoss(teacher_weight=share, kl=0.5, match_actions=0.1)


def test_published_total_is_a_sum_of_divergences() -> None:
    """Twice the batch, twice the loss; a uniform prediction over V words has the divergence log V - entropy of the
    target from each word."""
    net, data = model(shared="all", published=True, mask_special_tokens=False), batch()
    objective = training(teacher_weight=0.5, objects=0.3, actions=0.2, label_smoothing=0.3, published=True)
    with torch.no_grad():
        net.head.words.weight.zero_()
        net.head.words.bias.zero_()
    loss = objective(net, data)
    each = log(len(VOCABULARY)) - smoothed_target_entropy(0.3, len(VOCABULARY))
    words = int((data.tokens[:, 1:] != PAD).sum())
    assert loss.logs["xe_teacher"] == pytest.approx(words * each, rel=1e-5)
    labels = 4 * 2  # the first noun, one word each here, and EOS
    assert loss.logs["objects"] == loss.logs["actions"] == pytest.approx(labels * each, rel=1e-5)
    assert loss.value.item() == pytest.approx((words + 0.5 * labels) * each, rel=1e-5)


def test_divergence_of_a_perfect_prediction_is_0() -> None:
    """-log p of the smoothed target itself is its entropy: (1 - e) log(1 - e) + e log(e / (V - 1)), negated."""
    V, epsilon = 7, 0.3
    target = torch.full((V,), epsilon / (V - 1))
    target[4] = 1 - epsilon
    logits = target.log()[None]
    assert smoothed_cross_entropy(logits, torch.tensor([4]), epsilon)[0].item() == pytest.approx(
        smoothed_target_entropy(epsilon, V), rel=1e-6
    )
    assert smoothed_target_entropy(0.0, V) == 0


def test_published_labels_are_the_first_noun_of_the_rarest_caption() -> None:
    labels = WordLabels(VOCABULARY, [Medium("x", "", "train", (*CAPTIONS, "a man rides", "a man sits"))])
    assert labels.rarest_caption(("a man", "the red dog is running")) == "the red dog is running"
    assert labels.published_labels(("a man", "the red dog is running"), 4) == [*words_of("dog"), EOS, PAD, PAD]
    assert labels.published_labels(("running",), 1) == words_of("man")  # no noun: `man`, as published; cut to the slots


def test_pixels_go_through_the_encoder() -> None:
    class Encoder(torch.nn.Module):
        def forward(self, pixels: Pixels) -> Features:
            return random_features(len(pixels))

    net, data = model(), batch()
    there = training()(FromPixels(Encoder(), net), replace(data, inputs=Pixels(torch.zeros(4, 1, 3, 2, 2))))
    assert isinstance(there, Loss) and torch.equal(there.value, training()(net, data).value)


def test_another_captioner_is_refused() -> None:
    with pytest.raises(ValueError, match="objective sft trains model sft, not SaLstm"):
        training()(small("sa_lstm"), batch())


def test_a_recipe_builds_the_objective() -> None:
    """With the media's captions it counts words, and it is the loss of its fields."""
    config = SftLoss(objects=0.3, actions=0.2)
    media = [Medium("x", "", "train", ("a man", "a dog")), Medium("y", "", "train", ("a dog runs",))]
    objective = build_objective(config, Context(media=media, vocabulary=VOCABULARY))
    assert isinstance(objective, SftTraining) and objective.config == config
    assert objective.labels.count == 3 and objective.labels.frequency == {"a": 3, "dog": 2, "man": 1, "runs": 1}
    net, data = model(), batch()
    assert torch.equal(objective(net, data).value, training(objects=0.3, actions=0.2)(net, data).value)
