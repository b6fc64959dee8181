"""The beam that never shrinks, against the published loop written plainly."""

from dataclasses import replace

import pytest
import torch

from limner.core.types import EOS, Features
from limner.decode.search import Beam, beam
from limner.models.captioner import Captioner
from tests.decode.tables import Table, media, said, score, slow_beam, tables
from tests.decode.test_search import FREE
from tests.models.captioners import features, model

__all__ = ["features", "model"]


def published(world: Table, medium: int, width: int, steps: int) -> list[tuple[int, ...]]:
    """All that has ended, and what has not after `steps` words; the likeliest first."""
    size, done = world.tables.shape[1], []
    live: list[tuple[int, ...]] = [()]
    for _ in range(steps):
        longer = [(*words, word) for words in live for word in range(size) if word not in (0, 1)]
        longer = sorted(longer, key=lambda words: -score(world, medium, words))[:width]
        done += [words for words in longer if words[-1] == EOS]
        live = [words for words in longer if words[-1] != EOS]
    return sorted(done + live, key=lambda words: -score(world, medium, words))


@pytest.mark.parametrize("end", [0.0, 1.5])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_captions_equal_the_published_loop(width: int, end: float) -> None:
    world, steps = tables(12, 3, seed=width, end=end), 5
    rules = replace(FREE, max_length=steps)
    found = beam(world, media(*range(12)), Beam(width, rules=rules, keep_beam_full=True, n_best=min(2, width)))
    keep = min(2, width)
    for medium in range(12):
        expected = published(world, medium, width, steps)[:keep]
        assert said(found)[keep * medium : keep * medium + len(expected)] == expected
        assert found.logprob[keep * medium].item() == pytest.approx(score(world, medium, expected[0]), abs=1e-4)


def test_a_full_beam_finds_captions_that_the_shrinking_beam_loses() -> None:
    """Both searches equal their plain twins; on 60 media the full beam is never worse."""
    world, rules = tables(60, 3, seed=1, end=1.0), replace(FREE, max_length=6)
    everyone = media(*range(60))
    full, shrinking = (
        beam(world, everyone, Beam(2, rules=rules, keep_beam_full=keep_beam_full)) for keep_beam_full in (True, False)
    )
    best = [published(world, medium, 2, 6)[0] for medium in range(60)]
    lost = [score(world, k, best[k]) - slow_beam(world, k, 2, 0.0, rules)[1] for k in range(60)]
    assert said(full) == best
    assert (full.logprob - shrinking.logprob).tolist() == pytest.approx(lost, abs=1e-4)
    assert min(lost) > -1e-9 and max(lost) > 0.1


def test_the_order_and_size_of_the_batch_do_not_matter(model: Captioner, features: Features) -> None:
    options = Beam(3, 0.5, keep_beam_full=True)
    together = beam(model, features, options)
    for i, words in enumerate(said(together)):
        alone = beam(model, features.map(lambda x, i=i: x[i : i + 1]), options)
        assert said(alone) == [words]
        torch.testing.assert_close(alone.logprob[0], together.logprob[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("other", [{"finished_compete": True}, {"groups": 2, "size": 4}, {"must": ("dog",)}])
def test_keep_beam_full_excludes_other_searches(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="keep_beam_full is one beam"):
        Beam(**{"keep_beam_full": True, **other})  # type: ignore[arg-type]
