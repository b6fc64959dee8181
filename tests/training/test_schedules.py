"""Rates by number."""

from math import cos, pi

import pytest

from limner.runs.recipe import Schedule
from limner.training.schedules import ReduceOnPlateau, lr_factor


def course(schedule: Schedule, total: int) -> list[float]:
    return [round(lr_factor(schedule, step, total), 6) for step in range(total)]


def test_the_constant_schedule_stays_at_one():
    assert course(Schedule(), 4) == [1, 1, 1, 1]
    assert course(Schedule("constant", warmup=0.5), 4) == [0.5, 1, 1, 1]


@pytest.mark.parametrize("name", ["constant", "plateau", "cosine", "one_cycle", "poly"])
def test_warm_up_is_a_line_that_ends_at_one(name: str):
    assert course(Schedule(name, warmup=0.4), 10)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_the_one_cycle_schedule_by_hand():
    """Up over 2 steps, then down over 4 in a line towards `final`."""
    assert course(Schedule("one_cycle", warmup=1 / 3), 6) == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert course(Schedule("one_cycle", warmup=1 / 3, final=0.2), 6) == [0.5, 1, 1, 0.8, 0.6, 0.4]


def test_the_polynomial_schedule_by_hand():
    """base * (1 - step / steps) ** power; after a warm-up the steps that are left count."""
    assert course(Schedule("poly", power=2), 4) == [1, 0.5625, 0.25, 0.0625]
    assert course(Schedule("poly"), 10) == [round((1 - k / 10) ** 0.9, 6) for k in range(10)]
    assert course(Schedule("poly", warmup=1 / 3, power=2, final=0.2), 6) == [0.5, 1, 1, 0.65, 0.4, 0.25]
    assert lr_factor(Schedule("poly"), 99, 4) == 0  # never beyond its end


def test_the_cosine_schedule_by_hand():
    expected = [1, 0.5 + 0.5 * cos(pi / 4), 0.5, 0.5 - 0.5 * cos(pi / 4)]
    assert course(Schedule("cosine"), 4) == pytest.approx(expected, abs=1e-6)
    assert course(Schedule("cosine", final=0.5), 4) == pytest.approx([0.5 + 0.5 * x for x in expected], abs=1e-6)
    assert lr_factor(Schedule("cosine", final=0.1), 99, 4) == pytest.approx(0.1)  # never beyond its end


@pytest.mark.parametrize(
    ("patience", "factors"),
    [
        (2, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]),
        (1, [1, 0.5, 0.25, 0.25, 0.125, 0.0625, 0.0625, 0.03125, 0.015625]),
    ],
)
def test_plateau_falls_after_its_patience_in_validations(patience: int, factors: list[float]):
    plateau = ReduceOnPlateau(Schedule("plateau", factor=0.5, patience=patience))
    found, better = [], []
    for score in (0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.5, 0.5, 0.4):  # an equal score is not a better one
        better.append(plateau.update(score))
        found.append(plateau.factor)
    assert found == factors and better == [True, False, False, True, False, False, True, False, False]
    assert (plateau.best, plateau.bad_validations) == (0.5, 2)


def test_other_schedules_ignore_scores():
    plateau = ReduceOnPlateau(Schedule("cosine", patience=1))
    for score in (0.5, 0.4, 0.3):
        plateau.update(score)
    assert (plateau.best, plateau.bad_validations, plateau.factor) == (0.5, 2, 1.0)


def test_plateau_does_not_fall_before_its_start():
    """From epoch 3 on, as soon as the waiting is a multiple of the patience."""
    plateau = ReduceOnPlateau(Schedule("plateau", factor=0.5, patience=2, start=3))
    factors = []
    for epoch, score in enumerate((0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4), start=1):
        plateau.update(score, epoch)
        factors.append(plateau.factor)
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]
    early = ReduceOnPlateau(Schedule("plateau", factor=0.5, patience=1, start=3))
    assert [(early.update(0.1, epoch), early.factor)[1] for epoch in (1, 2, 3)] == [1, 1, 0.5]


def test_noam_is_the_published_schedule():
    """factor * d^-0.5 * min(s^-0.5, s * warmup^-1.5), with lr its peak: 4.42e-4 for d = 512 and 10,000 steps."""
    schedule, peak = Schedule("noam", warmup_steps=10_000), 512**-0.5 * 10_000**-0.5
    assert peak == pytest.approx(4.42e-4, abs=5e-7)
    steps = [1, 2, 5000, 9999, 10_000, 10_001, 40_000, 1_000_000]
    expected = [512**-0.5 * min(s**-0.5, s * 10_000**-1.5) for s in steps]
    assert [peak * lr_factor(schedule, s - 1, 77) for s in steps] == pytest.approx(expected, rel=1e-12)
    assert course(Schedule("noam", warmup=0.5), 8) == [0.25, 0.5, 0.75, 1, 0.894427, 0.816497, 0.755929, 0.707107]


def test_step_falls_every_so_many_epochs_from_its_start_on():
    """Times .8 every 3 epochs: as the lineage of self-critical.pytorch has it, first after start + 3 epochs."""
    found = [lr_factor(Schedule("step", factor=0.8, every=3, start=2), 99, 100, epoch) for epoch in range(12)]
    assert found == pytest.approx([1] * 5 + [0.8] * 3 + [0.64] * 3 + [0.512])
    assert lr_factor(Schedule("step", warmup_steps=4), 0, 100, 50) == 0.25


def test_warm_up_in_steps_and_then_a_cosine():
    expected = [0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447]
    assert course(Schedule("cosine", warmup_steps=4), 8) == pytest.approx(expected, abs=1e-6)
    assert course(Schedule("cosine", warmup_steps=4), 8) == course(Schedule("cosine", warmup=0.5), 8)


def test_invalid_warm_up_is_refused():
    with pytest.raises(ValueError, match="warmup and warmup_steps are both given"):
        Schedule("cosine", warmup=0.1, warmup_steps=10)
    with pytest.raises(ValueError, match="noam needs a warm-up"):
        Schedule("noam")
