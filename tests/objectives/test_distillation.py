"""The objective of distillation: each term by its slow twin, what it refuses, and what it remembers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from limner.core.types import BOS, EOS, PAD, Batch, Features, Layout, Pixels
from limner.models.captioner import Captioner, FromPixels
from limner.objectives import CrossEntropy, build_objective
from limner.objectives.context import Context, Teacher
from limner.objectives.distillation import Distil, Distillation
from limner.objectives.levels import SLOT_WIDTH, LevelHeads
from limner.objectives.matching import divergence
from limner.objectives.teacher_cache import TeacherCache, cache_key, select_media
from limner.text.vocabulary import SPECIALS, Vocabulary
from tests.models.captioners import D, Mute, V, random_features, small

WORDS = Vocabulary((*SPECIALS, "dog", "cat", "runs", "sits", "red"))
TOKENS = torch.tensor([[BOS, 4, 6, EOS, PAD], [BOS, 5, 7, 8, EOS], [BOS, 4, EOS, PAD, PAD], [BOS, 5, 5, 5, EOS]])
BATCH = Batch(("a", "b", "c", "d"), random_features(), TOKENS, augmentations=("full",) * 4)
KEEP = TOKENS[:, 1:] != PAD


def teacher_of(model: Captioner, **options: Any) -> Teacher:
    return Teacher("runs/t", model, lambda batch: batch.inputs, **({"word_ids": torch.arange(V)} | options))


def built(student: Captioner, teacher: Teacher | None, batch: Batch = BATCH, **options: Any) -> Distillation:
    config = Distil(teacher="runs/t" if teacher else "", **({"kl": 0.0} | options))
    context = Context(vocabulary=WORDS, student=student, sample=lambda: batch, teacher=teacher)
    objective = build_objective(config, context)
    assert isinstance(objective, Distillation)
    return objective


STUDENTS = ["sa_lstm", "show_attend_tell", "up_down", "xlan", "sft", "spatial_transformer", "first_token"]


@pytest.mark.parametrize("case", STUDENTS)
def test_a_student_learns_words_from_a_teacher_of_another_kind(case: str):
    """xe_weight L_xe + kl tau^2 KL, each as it is alone; every student, one teacher."""
    student, teacher = small(case), small("up_down", seed=5)
    objective = built(student, teacher_of(teacher), kl=0.75, xe_weight=0.25, temperature=3.0)
    found = objective(student, BATCH)
    forced, said = (
        model.forward_teacher_forced(model.encode(BATCH.inputs), TOKENS[:, :-1]) for model in (student, teacher)
    )
    kl = divergence(forced.logits[KEEP], said.logits[KEEP], 3.0)
    xe = CrossEntropy()(student, BATCH).value
    assert found.value.item() == pytest.approx(0.25 * xe.item() + 0.75 * 9 * kl.item(), rel=1e-5)
    assert found.logs["kl"] == pytest.approx(kl.item()) and found.logs["xe"] == pytest.approx(xe.item())
    found.value.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())
    assert not list(objective.parameters())


def test_a_student_that_is_its_teacher_learns_nothing():
    student = small("sa_lstm")
    objective = built(student, teacher_of(small("sa_lstm")), kl=1.0, xe_weight=0.0, attention=1.0, hidden=1.0)
    found = objective(student, BATCH)
    assert found.value.item() == pytest.approx(0, abs=1e-6)
    found.value.backward()
    assert max(p.grad.abs().max() for p in student.parameters() if p.grad is not None) < 1e-5


def test_words_of_two_vocabularies_are_matched_by_their_text():
    """A teacher with the student's words in another order, and one more: it is asked in its own ids."""
    own, order = small("up_down", seed=2), torch.tensor([0, 1, 2, 3, 8, 7, 6, 5, 4])
    other = small("up_down", seed=2)
    with torch.no_grad():  # word `order[i]` of the other is word i of the first
        for module in (other.get_submodule("embed"), other.get_submodule("head")):
            module.weight[order] = module.weight.clone()
        other.head.bias[order] = other.head.bias.clone()
    objective = built(own, teacher_of(other, word_ids=order), kl=1.0, xe_weight=0.0)
    assert objective(own, BATCH).value.item() == pytest.approx(0, abs=1e-6)


def test_hidden_states_are_compared_through_a_projection():
    """Widths 7 and 6: |A h_S - h_T|^2, a mean over words and channels; A learns."""
    student, teacher = small("sa_lstm"), small("up_down")
    objective = built(student, teacher_of(teacher), hidden=1.0, xe_weight=0.0)
    assert isinstance(objective.match_hidden, nn.Linear) and objective.match_hidden.weight.shape == (6, 7)
    found = objective(student, BATCH)
    mine, theirs = (
        m.forward_teacher_forced(m.encode(BATCH.inputs), TOKENS[:, :-1]).hidden[KEEP] for m in (student, teacher)
    )
    gaps = [(objective.match_hidden(h) - t).square() for h, t in zip(mine, theirs, strict=True)]
    assert found.value.item() == pytest.approx(torch.stack(gaps).mean().item(), rel=1e-5)
    found.value.backward()
    assert objective.match_hidden.weight.grad.abs().max() > 0
    assert student.get_parameter("embed.weight").grad.abs().max() > 0


def test_attention_is_compared_over_the_students_cells():
    """A teacher with 2 x 6 cells for our 2 x 3: pairs of its cells lie in each of ours."""
    student, teacher = small("sa_lstm"), small("sa_lstm", seed=3)
    fine = Features(torch.randn(4, 12, D), torch.ones(4, 12, dtype=torch.bool), Layout(1, 2, 6))
    whole = replace(BATCH, inputs=random_features(ragged=False))
    objective = built(
        student,
        Teacher("runs/t", teacher, lambda batch: fine, torch.arange(V)),
        whole,
        attention=1.0,
        xe_weight=0.0,
    )
    mine = student.forward_teacher_forced(student.encode(whole.inputs), TOKENS[:, :-1]).attention[KEEP]
    theirs = (
        teacher.forward_teacher_forced(teacher.encode(fine), TOKENS[:, :-1])
        .attention[KEEP]
        .unflatten(1, (6, 2))
        .sum(-1)
    )
    expected = (theirs * (theirs / mine).log()).sum(-1).mean()
    assert objective(student, whole).value.item() == pytest.approx(expected.item(), rel=1e-4)


class Colours(nn.Module):
    """An encoder: one cell per frame of D channels."""

    def __init__(self, width: int):
        super().__init__()
        self.look = nn.Linear(3, width)

    def forward(self, pixels: Pixels) -> Features:
        grid = self.look(pixels.frames.mean((3, 4)))
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool), Layout(grid.shape[1], 1, 1))


def test_cells_of_the_students_encoder_are_compared_with_the_teachers():
    """Four of the teacher's cells for our two: means of neighbours; |C x_S - x_T|^2."""
    student, teacher = FromPixels(Colours(D), small("sa_lstm")), small("sa_lstm", seed=3)
    four = Features(torch.randn(4, 4, D), torch.ones(4, 4, dtype=torch.bool), Layout(4, 1, 1))
    batch = Batch(BATCH.ids, Pixels(torch.rand(4, 2, 3, 2, 2)), TOKENS)
    objective = built(student, Teacher("runs/t", teacher, lambda batch: four), batch, features=1.0, xe_weight=0.0)
    assert isinstance(objective.match_features, nn.Identity)  # words do not matter, widths are the same
    found = objective(student, batch)
    gap = student.encoder(batch.inputs).grid - four.grid.unflatten(1, (2, 2)).mean(2)
    assert found.value.item() == pytest.approx(gap.square().mean().item(), rel=1e-5)
    found.value.backward()
    assert student.encoder.look.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="features: the student's encoder is not trained"):
        built(small("sa_lstm"), teacher_of(teacher), features=1.0)


def test_a_jointly_trained_teacher_learns_from_the_words_alone():
    student, teacher = small("sa_lstm"), small("sa_lstm", seed=3)
    objective = built(student, teacher_of(teacher), kl=1.0, xe_weight=0.0, joint=0.5)
    assert (
        objective.config.skips_gradients
        and {f"joint.{n}" for n in teacher.state_dict()} == objective.state_dict().keys()
    )
    objective(student, BATCH).value.backward()
    found = {name: p.grad.clone() for name, p in teacher.named_parameters() if p.grad is not None}
    teacher.zero_grad()
    (0.5 * CrossEntropy()(teacher, BATCH).value).backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, teacher.get_parameter(name).grad)
    assert len(found) > 5


def test_levels_by_hand():
    """Two slots and one noun: the slot that is surer names it; the sentence tells each word once; no verb is 0."""
    levels = LevelHeads(("objects", "actions", "sentence"), 3, 2, WORDS)
    state, tokens = torch.randn(1, 3, requires_grad=True), torch.tensor([[BOS, 4, EOS, PAD], [BOS, 8, 4, EOS]])
    found = levels(state, tokens)

    def logp(level: str) -> torch.Tensor:
        slots = torch.tanh(levels.slots[level](state)).view(-1, SLOT_WIDTH)
        return levels.tell(slots).log_softmax(-1)

    assert found["objects"].item() == pytest.approx(-logp("objects")[:, 4].max().item(), rel=1e-5)
    assert found["sentence"].item() == pytest.approx(-(logp("sentence")[0, [4, 8]]).mean().item(), rel=1e-5)
    assert found["actions"].item() == 0
    sum(found.values()).backward()  # every process of several has a gradient of every parameter
    assert all(p.grad is not None and p.grad.isfinite().all() for p in levels.parameters())
    assert levels.slots["actions"].weight.grad.abs().max() == 0 and state.grad.abs().max() > 0


def test_levels_are_read_from_the_state_before_the_first_word():
    """Two captions of a medium: the same state, and the nouns of both."""
    student = small("sa_lstm")
    batch = replace(BATCH, inputs=BATCH.inputs.map(lambda x: x[:2]), ids=("a", "b"))
    objective = built(student, None, batch, objects=0.4, sentence=0.2, xe_weight=0.0, slots=3)
    hidden = student.forward_teacher_forced(
        student.encode(batch.inputs), TOKENS[:, :1].contiguous().expand(-1, 1)
    ).hidden[::2, 0]
    terms = objective.levels(hidden, TOKENS)
    found = objective(student, batch)
    expected = 0.4 * terms["objects"] + 0.2 * terms["sentence"]
    assert found.value.item() == pytest.approx(expected.item(), rel=1e-5)


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_a_teacher_cache_of_all_words_gives_the_loss_without_a_cache(monkeypatch: pytest.MonkeyPatch):
    """The rounding of log-probabilities to float16 is all that differs: 2^-11 of a number up to about 20."""
    student, teacher = small("up_down"), small("up_down", seed=4)
    asked: list[int] = []
    forward_teacher_forced = teacher.forward_teacher_forced
    monkeypatch.setattr(
        teacher,
        "forward_teacher_forced",
        lambda memory, tokens: (asked.append(len(tokens)), forward_teacher_forced(memory, tokens))[1],
    )
    plain = built(student, teacher_of(teacher), kl=1.0, xe_weight=0.0)(student, BATCH)
    objective = built(student, teacher_of(teacher), kl=1.0, xe_weight=0.0, cache=V)
    asked.clear()
    first, again = objective(student, BATCH), objective(student, BATCH)
    assert first.value.item() == pytest.approx(plain.value.item(), rel=2e-3)
    assert first.value.item() == again.value.item() and asked == [4]
    half = replace(BATCH, ids=("a", "x", "c", "d"))  # one medium that is new
    objective(student, half)
    assert asked == [4, 1]
    flipped = replace(BATCH, augmentations=("full", "flip", "full", "flip"))
    objective(student, flipped)
    assert asked == [4, 1, 2]


def test_the_teacher_cache_keeps_the_likeliest_words():
    """Of (.1, .6, .3) two words, and .1 for all others; at temperature 2 roots of them, normalised."""
    logits = torch.tensor([[[0.1, 0.6, 0.3]]]).log()
    teacher_cache = TeacherCache(2, 1.0)
    batch = Batch(("a",), BATCH.inputs.map(lambda x: x[:1]), torch.tensor([[BOS, EOS]]))
    words, logp = teacher_cache.get(batch, lambda part: logits)
    assert words.tolist() == [[1, 2]]
    torch.testing.assert_close(logp, torch.tensor([[0.6, 0.3, 0.1]]).log(), atol=1e-3, rtol=1e-3)
    roots = torch.tensor([[0.6, 0.3, 0.1]]).sqrt()
    _, logp = TeacherCache(2, 2.0).get(batch, lambda part: logits)
    torch.testing.assert_close(logp, (roots / roots.sum()).log(), atol=1e-3, rtol=1e-3)


def test_the_teacher_cache_can_be_saved_and_has_a_limit():
    def ask(part: Batch) -> torch.Tensor:
        return torch.randn(*part.tokens[:, 1:].shape, V, generator=torch.Generator().manual_seed(len(part.ids)))

    teacher_cache = TeacherCache(3, 1.0)
    found = teacher_cache.get(BATCH, ask)
    other = TeacherCache(3, 1.0)
    other.from_tensors(teacher_cache.to_tensors())
    again = other.get(BATCH, ask)
    assert other.computed_captions == 0 and all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert other.free_bytes == teacher_cache.free_bytes and not TeacherCache(3, 1.0).to_tensors()
    full = TeacherCache(
        3, 1.0, max_bytes=3 * (3 * 2 + 4 * 2)
    )  # the first caption: 3 words, with 3 ids and 4 logarithms of 2 bytes each
    full.get(BATCH, ask)
    assert list(full.entries) == [cache_key(BATCH, 0)] and full.free_bytes == 0
    mixed = full.get(BATCH, ask)
    assert mixed[0].shape == found[0].shape and full.computed_captions == 7


def test_neighbouring_captions_of_a_medium_stay_together():
    batch = replace(BATCH, ids=("a", "b"), inputs=BATCH.inputs.map(lambda x: x[:2]), augmentations=("full", "flip"))
    part = select_media(batch, [1], [2, 3])
    assert part.ids == ("b",) and part.augmentations == ("flip",) and torch.equal(part.tokens, TOKENS[2:])
    assert cache_key(part, 0) == cache_key(batch, 2) != cache_key(batch, 0)
    assert len({cache_key(batch, row) for row in range(4)}) == 4


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": 0.5}, "kl need a teacher"),
        ({"kl": 0.0, "teacher": "x"}, "the teacher is not used"),
        ({"kl": 0.0, "xe_weight": 0.0}, "all weights are 0"),
        ({"teacher": "x", "cache": 8, "hidden": 0.1}, "cache stores what kl needs; hidden runs the teacher each time"),
        ({"teacher": "x", "xe": {"sampling": {"initial_prob": 0.5}}}, r"xe\.sampling reads words of the student's own"),
        ({"teacher": "x", "temperature": 0.0}, "temperature: Input should be greater than 0"),
        ({"teacher": "x", "temperature": -1.0}, "temperature: Input should be greater than 0"),
        ({"teacher": "x", "kl": 1.5}, "kl: Input should be less than or equal to 1"),
        ({"teacher": "x", "attention": -0.1}, "attention: Input should be greater than or equal to 0"),
        ({"teacher": "x", "xe_weight": float("nan")}, "xe_weight: Input should be"),
    ],
)
def test_invalid_recipes_are_refused(options: dict[str, Any], message: str):
    from limner.runs.recipe_file import build_recipe

    with pytest.raises(ValueError, match=message):
        build_recipe({"features": "x", "stages": [{"objective": {"name": "distil", **options}}]})


def test_other_words_are_refused_where_words_are_compared():
    student, strange = small("sa_lstm"), teacher_of(small("sa_lstm"), word_ids=None)
    for term in ("kl", "attention", "hidden"):
        with pytest.raises(ValueError, match=r"runs/t has other words than the student.*let it write captions"):
            built(student, strange, **{term: 0.5})


def test_captioners_without_hidden_states_are_refused():
    plain, other = Mute(small("sa_lstm")), small("sa_lstm")
    with pytest.raises(ValueError, match="hidden: the student is a captioner without hidden states"):
        built(plain, teacher_of(other), hidden=0.5)
    with pytest.raises(ValueError, match="hidden: runs/t is a captioner without hidden states"):
        built(other, teacher_of(plain), hidden=0.5)
    with pytest.raises(ValueError, match="objects: the student is a captioner without hidden states"):
        built(plain, None, objects=0.5)


def test_a_captioner_without_attention_is_refused():
    """A captioner that looks at all cells alike would teach its student to look nowhere."""
    plain, other = small("first_token"), small("sa_lstm")
    with pytest.raises(ValueError, match="attention: runs/t looks at all cells alike"):
        built(other, teacher_of(FromPixels(nn.Identity(), plain)), attention=0.5)
    with pytest.raises(ValueError, match="attention: the student looks at all cells alike"):
        built(plain, teacher_of(other), attention=0.5)
    built(plain, teacher_of(other), kl=0.5)


def test_augmentations_that_the_teachers_store_lacks_are_refused():
    student = small("sa_lstm")
    config = Distil(teacher="runs/t", attention=0.5)
    context = Context(
        student=student,
        sample=lambda: BATCH,
        augmentations=("full", "flip"),
        teacher=teacher_of(student, augmentations=("full",)),
    )
    with pytest.raises(
        ValueError, match="runs/t has no features in the augmentations flip, and attention compares cells"
    ):
        config.build(context)
    replace(config, attention=0.0).build(context)


def test_a_teacher_of_random_frames_is_not_cached():
    with pytest.raises(ValueError, match="cache: runs/t sees other frames"):
        built(small("sa_lstm"), teacher_of(small("sa_lstm"), fixed=False), kl=0.5, cache=4)


@pytest.mark.parametrize("cache", [0, 4])
def test_nan_in_a_teachers_scores_names_the_media(cache: int):
    """In the features of c: the words of the others are sound."""
    student, teacher = small("up_down"), small("up_down", seed=1)
    objective = built(student, teacher_of(teacher), kl=0.5, cache=cache)
    grid = BATCH.inputs.grid.clone()
    grid[2, 0] = torch.nan
    bad = replace(BATCH, inputs=replace(BATCH.inputs, grid=grid))
    with pytest.raises(FloatingPointError, match=r"the scores of runs/t are nan .*1 of 4 media, for example \['c'\]"):
        objective.teacher_terms(
            bad.inputs, student.forward_teacher_forced(student.encode(BATCH.inputs), TOKENS[:, :-1]), bad
        )
