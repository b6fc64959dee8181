"""The spatial transformer's decoding step on a tree of words, against its slow twin `SpatialTransformer.step`."""

from copy import deepcopy

import pytest
import torch

from limner.core.types import BOS, Features
from limner.decode.search import Beam, Sample, beam, sample
from limner.models.captioner import map_tensors
from limner.models.spatial_transformer import Memory, SpatialTransformer, State
from limner.models.spatial_transformer_step import FIRST_NODES, MAX_ROWS, TreeState, TreeStep
from tests.models.captioners import random_features, small

CASES = ["spatial_transformer", "spatial_transformer, all options"]


def made(case: str = CASES[0], seed: int = 0) -> SpatialTransformer:
    model = small(case, seed=seed)
    assert isinstance(model, SpatialTransformer)
    return model


def start(model: SpatialTransformer, features: Features, rows: int) -> tuple[Memory, State]:
    """The memory, and the state before the first word of `rows` rows per medium."""
    memory = model.encode(features)
    return memory, map_tensors(lambda x: x.repeat_interleave(rows, 0), model.init_state(memory))


@torch.no_grad()
def test_rows_share_the_nodes_of_their_common_words() -> None:
    """The example of the module: a dog runs / a dog sleeps / a cat sits."""
    model = made()
    memory, state = start(model, random_features(1), 1)
    step, a, dog, cat, runs, sleeps, sits = model.decoding_step(), 3, 4, 5, 6, 7, 8
    after_a = step(torch.tensor([a]), state, memory).state
    after_a = map_tensors(lambda x: x.index_select(0, torch.tensor([0, 0])), after_a)
    two = step(torch.tensor([dog, cat]), after_a, memory).state
    two = map_tensors(lambda x: x.index_select(0, torch.tensor([0, 0, 1])), two)
    found = step(torch.tensor([runs, sleeps, sits]), two, memory)
    assert isinstance(found.state, TreeState) and found.state.nodes == found.state.tree.used == 6
    assert found.state.path.tolist() == [[0, 1, 3], [0, 1, 4], [0, 2, 5]]
    for row, words in enumerate(([a, dog, runs], [a, dog, sleeps], [a, cat, sits])):
        state = model.init_state(memory)
        for word in words:
            alone = model.step(torch.tensor([word]), state, memory)
            state = alone.state
        torch.testing.assert_close(found.logits[row], alone.logits[0])
        torch.testing.assert_close(found.attention[row], alone.attention[0])
        torch.testing.assert_close(found.state.output[row], state.output[0])
        for tree, own in zip(found.state.copied().past, state.past, strict=True):
            torch.testing.assert_close(tree.key[row], own.key[0])
            torch.testing.assert_close(tree.value[row], own.value[0])


@torch.no_grad()
def test_a_state_can_be_continued_twice() -> None:
    model = made()
    memory, state = start(model, random_features(2), 2)
    step, words = model.decoding_step(), torch.tensor([3, 4, 5, 6])
    first = step(torch.full((4,), BOS), state, memory).state
    once = step(words, first, memory)
    other = step(words.flip(0), first, memory)
    again = step(words, first, memory)
    assert not torch.allclose(once.logits, other.logits)
    assert torch.equal(once.logits, again.logits)
    torch.testing.assert_close(step(words, once.state, memory).logits, step(words, again.state, memory).logits)


@torch.no_grad()
def test_media_that_leave_the_batch_take_their_nodes_along() -> None:
    model = made()
    features = random_features(4)
    memory, state = start(model, features, 2)
    step, words = model.decoding_step(), torch.arange(8) % 6 + 3
    state = step(torch.full((8,), BOS), state, memory).state
    rows, media = torch.tensor([2, 3, 6, 7]), torch.tensor([1, 3])
    fewer = map_tensors(lambda x: x.index_select(0, rows), state)
    some = map_tensors(lambda x: x.index_select(0, media), memory)
    torch.testing.assert_close(step(words[rows], fewer, some).logits, step(words, state, memory).logits[rows])


@torch.no_grad()
@pytest.mark.parametrize(("rows", "steps"), [(1, 3), (5, FIRST_NODES // 5 + 2), (MAX_ROWS, 6)])
def test_trees_grow(rows: int, steps: int) -> None:
    model = made(CASES[1])
    memory, state = start(model, random_features(2), rows)
    tree, step = state, model.decoding_step()
    for t in range(steps):
        token = (torch.arange(2 * rows) + t) % 6 + 3
        slow, fast = model.step(token, state, memory), step(token, tree, memory)
        torch.testing.assert_close(fast.logits, slow.logits, rtol=1e-4, atol=1e-4)
        state, tree = slow.state, fast.state
    assert isinstance(tree, TreeState) and tree.nodes == rows * steps


@torch.no_grad()
def test_a_wide_beam_continues_with_copies() -> None:
    """One row per medium at the first word, more than `MAX_ROWS` after it."""
    model = made()
    memory, state = start(model, random_features(2), 1)
    step, wide = model.decoding_step(), torch.arange(2).repeat_interleave(MAX_ROWS + 1)
    slow, fast = (do(torch.full((2,), BOS), state, memory).state for do in (model.step, step))
    slow, fast = (map_tensors(lambda x: x.index_select(0, wide), each) for each in (slow, fast))
    token = torch.arange(len(wide)) % 6 + 3
    assert isinstance(fast, TreeState)
    found, expected = step(token, fast, memory), model.step(token, slow, memory)
    assert isinstance(found.state, State)
    torch.testing.assert_close(found.logits, expected.logits)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [Beam(3), Beam(5, keep_beam_full=True), Beam(20), Beam(4, groups=2), Sample(3)])
def test_captions_are_the_same_with_and_without_the_tree(case: str, options: Beam | Sample) -> None:
    for seed in range(3):
        model, features = made(case, seed), random_features(5)
        found = []
        for plain in (False, True):
            if plain:
                model.decoding_step = lambda model=model: model.step  # type: ignore[method-assign]
            torch.manual_seed(seed)
            found.append(
                sample(model, features, options) if isinstance(options, Sample) else beam(model, features, options)
            )
        assert torch.equal(found[0].tokens, found[1].tokens)
        torch.testing.assert_close(found[0].logprob, found[1].logprob)
        torch.testing.assert_close(found[0].attention, found[1].attention)


@torch.no_grad()
def test_the_tree_is_used_for_decoding_only() -> None:
    model = made()
    step = model.decoding_step()
    assert isinstance(step, TreeStep) and model.decoding_step() is step  # made once
    with torch.enable_grad():
        assert model.decoding_step() == model.step
    assert model.train().decoding_step() == model.step  # dropout
    copied = deepcopy(model.eval())
    assert copied.decoding_step() is not step and set(copied.state_dict()) == set(model.state_dict())
