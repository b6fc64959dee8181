"""Self-critical training: the distribution, the gradient, the baselines, and training that learns nothing."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limner.core.tensors import load_tensors
from limner.core.types import BOS, EOS, PAD, UNK, Batch, Features, Medium
from limner.decode.rules import Rules
from limner.decode.search import Sample, rollout, sample
from limner.models.captioner import Captioner, TeacherForced
from limner.objectives import self_critical
from limner.objectives.context import Context
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.rewards import Rewards
from limner.objectives.self_critical import SelfCritical, SelfCriticalTraining, log_probabilities
from limner.text.vocabulary import Vocabulary
from limner.training.train import train
from tests.convert.published import goldens
from tests.decode.tables import Table, chain, media, tables
from tests.models.captioners import V, features, model, small
from tests.training.test_resume import same
from tests.training.world import Watched, log_of, pictures, recipe

__all__ = ["features", "model"]

STRICT = Rules(min_length=2, max_length=6)
WORDS = Vocabulary(("<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(V - 4))))
NAMES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))


class Fixed(Rewards):
    """Worth by a function of a row's words."""

    def __init__(self, worth: Any) -> None:
        self.worth = worth

    def score(self, hypotheses: np.ndarray, ids: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        found = np.array([self.worth([i for i in row if i != PAD]) for row in hypotheses.tolist()], float)
        return found, {"worth": found}


def training(config: SelfCritical, worth: Any, told: list[str] | None = None) -> SelfCriticalTraining:
    return SelfCriticalTraining(config, Fixed(worth), (told if told is not None else []).append)


def of(features: Features) -> Batch:
    return Batch(NAMES[: len(features)], features, torch.tensor([[BOS, 4, 5, EOS]] * len(features)))


@pytest.mark.parametrize(
    "options",
    [
        Sample(3, 1.0, STRICT),
        Sample(3, 0.7, STRICT),
        Sample(2, 1.0, STRICT, top_k=2),
        Sample(2, 1.3, STRICT, top_p=0.6),
        Sample(2, 1.0, Rules(0, 5, False, True)),
    ],
)
def test_the_differentiated_distribution_is_the_one_that_was_drawn_from(
    model: Captioner, features: Features, options: Sample
):
    """`rollout` and `forward_teacher_forced` are two programs: the same log-probability for each sample of every
    model."""
    torch.manual_seed(0)
    drawn = sample(model, features, options)
    logp, keep = log_probabilities(model, model.encode(features), drawn.tokens, options)
    total = torch.zeros(keep.shape).masked_scatter(keep, logp.detach()).sum(1)
    torch.testing.assert_close(total, drawn.logprob, rtol=1e-4, atol=1e-4)
    assert logp.requires_grad and torch.equal(keep, drawn.tokens != PAD)


def test_forbidden_words_get_no_gradient():
    """UNK, a word after itself, and EOS too early: exactly 0, while the drawn words' rows move."""
    world = tables(4, 4)
    torch.manual_seed(0)
    draw = iter(torch.rand(1000).tolist())
    objective = training(SelfCritical(sample=Sample(6, 1.0, STRICT)), lambda row: next(draw))
    objective(world, of(media(0, 1, 2, 3))).value.backward()
    grad = world.tables.grad
    assert grad is not None and (grad != 0).sum() > 50
    assert (grad[..., UNK] == 0).all() and (grad[:, BOS, BOS, EOS] == 0).all()
    assert all((grad[:, :, word, word] == 0).all() for word in range(4, 8))
    assert grad.sum(-1).abs().max() < 1e-6  # what one word gains the other allowed ones lose


def test_loss_and_baseline_by_hand():
    """One medium, two samples of two tokens; rewards 3 and 1, so that leave-one-out gives +2 and -2.

    (4 EOS) has p = .5 * 1, (5 EOS) .25 * 1 of .75 allowed: log(2/3) and log(1/3) over 4 words.
    """
    world = chain(6, {(BOS, BOS): {4: 0.5, 5: 0.25, UNK: 0.25}})
    config = SelfCritical(sample=Sample(2, 1.0, Rules(1, 4)))
    objective = training(config, lambda row: {4: 3.0, 5: 1.0}[row[0]])
    tokens = torch.tensor([[4, EOS], [5, EOS]])
    objective.sample_captions = lambda model, features: (tokens, None)  # type: ignore[method-assign]
    loss = objective(world, of(media(0)))
    expected = -(2 * np.log(2 / 3) - 2 * np.log(1 / 3)) / 4
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    assert loss.logs == pytest.approx(
        {"reward": 2, "reward_spread": 2, "constant": 0, "policy": expected, "words": 2}, rel=1e-5
    )
    loss.value.backward()
    assert world.tables.grad is not None
    # d/dz of -(2 log p4 - 2 log p5) / 4 = -1/2 (z4 - z5)
    assert world.tables.grad[0, BOS, BOS].tolist() == pytest.approx([0, 0, 0, 0, -0.5, 0.5], abs=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("folder", goldens("spatial_transformer"), ids=lambda path: path.name)
def test_the_loss_equals_the_published_numbers(folder: Path):
    """`scst_*` of the golden data: the mean over words and first end tokens of -log p times the reward above baseline.

    Every drawn word has its golden log-probability here, one more word the rest.
    """
    with np.load(folder / "dot.npz", allow_pickle=False) as saved:
        logp, ids, reward, expected = (
            torch.from_numpy(saved[f"scst_{name}"]) for name in ("logprobs", "seq", "reward", "loss")
        )
    ended = (ids == 0).cumsum(1)
    tokens = torch.where(ended == 0, ids + 3, torch.where(ended == 1, EOS, PAD))

    class PseudoCaptions(Table):
        def forward_teacher_forced(self, memory: tuple[Tensor], tokens_in: Tensor) -> TeacherForced:
            logits = torch.full((*ids.shape, int(tokens.max()) + 2), -torch.inf)
            logits[..., -1] = (1 - logp.exp()).log()
            return TeacherForced(logits.scatter(2, tokens[..., None], logp[..., None]), logits)

    rules = Rules(0, ids.shape[1], no_repeat_word=False)
    objective = training(SelfCritical(sample=Sample(1, 1.0, rules), baseline="greedy"), lambda row: 0.0)
    objective.sample_captions = lambda model, features: (tokens, None)  # type: ignore[method-assign]
    objective.advantages = lambda ids, tokens, greedy: (reward[:, 0], {})  # type: ignore[method-assign]
    loss = objective(PseudoCaptions(torch.zeros(4, 1, 1, 1)), of(media(0, 1, 2, 3)))
    assert loss.value.item() == pytest.approx(expected.item(), abs=2e-5)


@pytest.mark.parametrize("baseline", ["greedy", "leave_one_out"])
def test_the_mean_gradient_is_that_of_the_expected_reward(baseline: str):
    """All captions are three words long; their worth is a random table.  E[r] by enumeration, the gradient from 6 x
    4,000 samples, each entry within 5 standard errors (largest of 100)."""
    world = tables(1, 3, seed=3, end=-torch.inf)
    rules = Rules(1, 3)
    worth = dict(np.ndenumerate(np.random.default_rng(0).normal(size=(7, 7, 7))))
    total = torch.zeros(())
    for row, value in worth.items():
        if min(row) > UNK and row[0] != row[1] != row[2]:
            shares, before, last = [], BOS, BOS
            for word in row:
                scores = world.tables[0, before, last].clone()
                scores[[UNK, last]] = -torch.inf
                shares.append(scores.softmax(0)[word])
                before, last = last, word
            total = total + torch.stack(shares).prod() * value
    (expected,) = torch.autograd.grad(total, world.tables)
    config = SelfCritical(sample=Sample(4000, 1.0, rules), baseline=baseline)
    objective = training(config, lambda row: worth[tuple(row)])
    torch.manual_seed(0)
    found = []
    for _ in range(6):
        (grad,) = torch.autograd.grad(objective(world, of(media(0))).value, world.tables)
        found.append(-3 * grad)
    mean = torch.stack(found).mean(0)
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.02)


def test_leave_one_out_sums_to_nothing_over_a_medium():
    draw = iter(np.random.default_rng(0).normal(size=100))
    objective = training(SelfCritical(sample=Sample(5)), lambda row: next(draw))
    advantage, logs = objective.advantages(["a", "b"], torch.full((10, 2), 4), None)
    assert advantage.view(2, 5).sum(1).tolist() == pytest.approx([0, 0], abs=1e-12) and "reward_greedy" not in logs


def test_the_greedy_reward_is_logged_on_the_first_call_and_every_fiftieth():
    """The greedy caption is (4 EOS), worth 1; what is learnt is the samples', worth 4 or 1, against each other."""
    world = chain(6, {(BOS, BOS): {4: 0.6, 5: 0.4}})
    objective = training(SelfCritical(sample=Sample(2)), lambda row: {4: 1.0, 5: 4.0}[row[0]])
    torch.manual_seed(0)
    found = {}
    for call in range(1, 102):
        logs = objective(world, of(media(0))).logs
        if "reward_greedy" in logs:
            found[call] = logs["reward_greedy"]
    assert found == {1: 1.0, 50: 1.0, 100: 1.0}


def test_logging_the_greedy_reward_changes_nothing(model: Captioner, features: Features):
    """A first call beside a second one: the same loss, gradients and random numbers, to the bit."""
    told = []
    for called in (0, 1):
        captioner = deepcopy(model)  # in training, a BatchNorm's statistics move
        torch.manual_seed(0)
        objective = training(SelfCritical(sample=Sample(3, 1.0, STRICT)), lambda row: sum(row) % 5)
        objective.calls = called
        loss = objective(captioner.train(), of(features))
        assert ("reward_greedy" in loss.logs) == (called == 0) and captioner.training
        loss.value.backward()
        grads = [parameter.grad for parameter in captioner.parameters() if parameter.grad is not None]
        told.append([loss.value.detach(), torch.get_rng_state(), *grads, *captioner.buffers()])
    assert len(told[0]) > 5 and all(torch.equal(a, b) for a, b in zip(*told, strict=True))


def test_the_greedy_baseline_is_the_greedy_captions_reward():
    """.5 for (4 EOS), the greedy one, worth 1; the sample (5 EOS) is worth 4 and gets 3; a sample 4 gets 0."""
    world = chain(6, {(BOS, BOS): {4: 0.6, 5: 0.4}})
    objective = training(SelfCritical(baseline="greedy", sample=Sample(8)), lambda row: {4: 1.0, 5: 4.0}[row[0]])
    torch.manual_seed(0)
    tokens, greedy = objective.sample_captions(world, media(0))
    assert greedy is not None and greedy.tolist() == [[4, EOS]]
    advantage, logs = objective.advantages(["a"], tokens, greedy)
    assert advantage.tolist() == [3.0 if row[0] == 5 else 0.0 for row in tokens.tolist()]
    assert 0 < advantage.sum() < 24 and logs["reward_greedy"] == 1 and logs["reward"] == 1 + logs["reward_spread"]


def test_a_constant_reward_is_counted_and_reported():
    told: list[str] = []
    objective = training(SelfCritical(sample=Sample(3)), lambda row: 0.1, told)
    world = tables(2, 3)
    for _ in range(8):
        loss = objective(world, of(media(0, 1)))
        assert loss.value.item() == 0 and loss.logs["constant"] == 1
    assert [text.split(" in ")[1].split(":")[0] for text in told] == [f"{n} of {n} steps" for n in (1, 2, 4, 8)]
    loss.value.backward()  # exactly nothing
    assert world.tables.grad is not None and (world.tables.grad == 0).all()
    half = iter([1.0, 2.0, 3.0, 7.0, 7.0, 7.0])
    objective.rewards = Fixed(lambda row: next(half))
    assert objective(world, of(media(0, 1))).logs["constant"] == 0.5 and len(told) == 4


def test_samples_that_are_the_greedy_caption_teach_nothing():
    told: list[str] = []
    sure = chain(6, {(BOS, BOS): {4: 1.0}})
    objective = training(SelfCritical(baseline="greedy", sample=Sample(2)), len, told)
    assert objective(sure, of(media(0))).value.item() == 0 and len(told) == 1


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_every_model_learns_and_keeps_its_training_mode(model: Captioner, features: Features, weight: float):
    references = [Medium(name, "", "train", ("w1 w2 w3", "w1 w4")) for name in NAMES]
    config = SelfCritical(sample=Sample(4, 1.0, STRICT), xe_weight=weight, reward={"cider_d": 1.0, "bleu_4": 1.0})
    objective = config.build(Context(media=references, vocabulary=WORDS, warn=lambda text: None))
    model.train()
    torch.manual_seed(0)
    loss = objective(model, of(features))
    assert model.training and np.isfinite(loss.value.item())
    assert {"reward", "cider_d", "bleu_4", "constant"} <= loss.logs.keys() and ("xe" in loss.logs) == bool(weight)
    loss.value.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in grads) > 0 and all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("case", ["show_attend_tell", "sa_lstm", "spatial_transformer"])
def test_half_precision_keeps_all_gradients(case: str, features: Features):
    """autocast keeps the weights that it has cast, and those cast while drawing know no gradient."""
    captioner, seen = small(case), []
    for half in (False, True):
        captioner.zero_grad()
        torch.manual_seed(0)
        draw = iter(np.random.default_rng(0).normal(size=100))
        objective = training(SelfCritical(sample=Sample(3)), lambda row, draw=draw: next(draw))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = objective(captioner, of(features)).value
        loss.backward()
        seen.append({n for n, p in captioner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0})
    assert seen[0] == seen[1] and len(seen[0]) > 5


def test_the_loss_is_the_sum_of_self_critical_and_cross_entropy(features: Features):
    captioner = small("sa_lstm")
    batch, values = of(features), []
    for weight in (0.0, 2.0):
        torch.manual_seed(1)
        config = SelfCritical(sample=Sample(2), xe_weight=weight, dropout=False)
        worth = np.random.default_rng(0).normal(size=100).tolist()
        values.append(training(config, lambda row, worth=worth: worth.pop())(captioner, batch).value.item())
    assert values[1] - values[0] == pytest.approx(2 * CrossEntropy()(captioner, batch).value.item(), rel=1e-4)


def test_captions_are_drawn_without_dropout(features: Features):
    """Drawn in training mode is the same as drawn in evaluation mode; the gradient's pass has dropout unless told."""
    captioner = small("show_attend_tell", dropout=0.9)
    for mode in (True, False):
        captioner.train(mode)
        seen: list[list[int]] = []
        objective = training(SelfCritical(sample=Sample(2)), lambda row, seen=seen: seen.append(row) or sum(row))
        torch.manual_seed(0)
        objective(captioner, of(features))
        torch.manual_seed(0)
        captioner.eval()
        drawn = rollout(captioner, captioner.encode(features), Sample(2)).tokens
        assert seen[: len(drawn)] == [[i for i in row if i != PAD] for row in drawn.tolist()]  # then the greedy ones
    losses = {}
    for dropout in (True, False):
        captioner.train()
        objective = training(SelfCritical(sample=Sample(2), dropout=dropout), sum)
        objective.sample_captions = lambda model, features: (drawn, None)  # type: ignore[method-assign]
        losses[dropout] = {objective(captioner, of(features)).value.item() for _ in range(3)}
    assert len(losses[True]) == 3 and len(losses[False]) == 1


SCST = {"name": "scst", "sample": {"count": 4, "rules": {"max_length": 8}}}


def test_cross_entropy_and_then_self_critical_in_one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From pixels, encoder along; the second stage begins with the first one's best weights, and resumes exactly, the
    log with the greedy rewards of every other call included."""
    monkeypatch.setattr(self_critical, "LOG_GREEDY_EVERY", 2)
    first = recipe(pictures(tmp_path / "data", 10), epochs=2).stages[0]
    whole = recipe(tmp_path / "data", objective=SCST, epochs=2, captions_per_medium=1, lr=0.001)
    whole = type(whole)(**{**vars(whole), "stages": (first, *whole.stages)})
    watched = Watched()
    run = train(whole, tmp_path / "run", callback=watched)
    rewards = [facts["reward"] for facts in watched.of("step") if "reward" in facts]
    assert len(rewards) == 6 and all(np.isfinite(rewards))
    assert [row["step"] for row in log_of(run) if "reward_greedy" in row] == [6]  # of rows 3 and 6
    for stop in (("step", 8), ("step", 11)):
        folder = tmp_path / f"stopped{stop[1]}"
        with pytest.raises(KeyboardInterrupt):
            train(whole, folder, callback=Watched(stop))
        train(whole, folder, resume=True)
        same(run, folder)


def test_the_greedy_reward_is_the_mean_over_the_batches_that_report_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of three batches in a step the first asks for it: 2, not 2/3."""
    monkeypatch.setattr(Rewards, "score", lambda self, rows, ids: (np.full(len(rows), 2.0), {}))
    watched = Watched()
    whole = recipe(pictures(tmp_path / "data", 6), objective=SCST, captions_per_medium=1, batch_size=2, accumulate=3)
    train(whole, tmp_path / "run", callback=watched)
    (facts,) = watched.of("step")
    assert facts["reward_greedy"] == 2.0 and facts["reward"] == 2.0


def test_training_raises_the_reward_and_starts_from_any_run(tmp_path: Path):
    """Five pictures with one caption each, after a little cross entropy: samples become worth more."""
    data = pictures(tmp_path / "data", 5)
    train(recipe(data, epochs=12, lr=0.01), tmp_path / "xe")
    watched = Watched()
    scst = recipe(
        data, ("start", str(tmp_path / "xe")), objective=SCST, epochs=60, captions_per_medium=1, lr=0.01, batch_size=5
    )
    train(scst, tmp_path / "scst", callback=watched)
    rewards = [facts["reward"] for facts in watched.of("step")]
    assert sum(rewards[-10:]) > 1.5 * sum(rewards[:10])
    before, after = (load_tensors(tmp_path / name / "model.safetensors")[0] for name in ("xe", "scst"))
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("encoder."))


def test_rewards_of_one_word_media_never_divide_by_nothing():
    """One training medium: every idf is 0, CIDEr-D is 0 for everything, which is told."""
    told: list[str] = []
    objective = SelfCritical(sample=Sample(3)).build(
        Context(media=[Medium("a", "", "train", ("w1",))], vocabulary=WORDS, warn=told.append)
    )
    world = tables(1, V - 4, spread=0.0)
    assert objective(world, of(media(0))).value.item() == 0 and "(mean reward 0)" in told[0]
