"""What every captioner promises, whatever it is inside."""

import pytest
import torch
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, UNK, Features
from limner.models.captioner import Captioner, map_tensors, not_ended, unroll
from tests.models.captioners import SMALL, N, V, features, model, pick, random_features, repeat, small

__all__ = ["features", "model"]

TOKENS = torch.tensor(
    [
        [BOS, 4, 5, EOS, PAD, PAD],
        [BOS, 6, 7, 8, 4, UNK],
        [BOS, EOS, PAD, PAD, PAD, PAD],
        [BOS, 5, 5, 5, 5, EOS],
    ]
)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def leaves(tree: object) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(lambda x: found.append(x) or x, tree)
    return found


def test_rows_that_have_not_ended_by_hand():
    expected = [[1, 1, 1, 0, 0, 0], [1] * 6, [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert not_ended(TOKENS).int().tolist() == expected


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 1, 2, 2]])
def test_teacher_forcing_equals_stepping(model: Captioner, features: Features, order: list[int]):
    tokens, memory = TOKENS[order], model.encode(pick(features, order))
    fast, slow = model.forward_teacher_forced(memory, tokens), unroll(model, memory, tokens)
    close(fast.logits, slow.logits)
    close(fast.attention, slow.attention)
    assert torch.equal(model(pick(features, order), tokens), fast.logits)
    assert (fast.logits[~not_ended(tokens)] == 0).all() and (fast.attention[~not_ended(tokens)] == 0).all()


def test_captions_of_a_medium_share_its_memory(model: Captioner, features: Features):
    """Two captions for each of two media, from two rows of memory: what four repeated rows give."""
    memory = model.encode(pick(features, [1, 0]))
    alone = model.forward_teacher_forced(model.encode(pick(features, [1, 1, 0, 0])), TOKENS)
    for shared in (model.forward_teacher_forced(memory, TOKENS), unroll(model, memory, TOKENS)):
        close(shared.logits, alone.logits)
        close(shared.attention, alone.attention)


def test_teacher_forcing_when_every_row_has_ended_before_the_last_columns(model: Captioner, features: Features):
    tokens = torch.tensor([[BOS, 4, EOS, PAD, PAD]] * 4)
    fast, slow = (
        way(model.encode(features), tokens) for way in (model.forward_teacher_forced, lambda *x: unroll(model, *x))
    )
    close(fast.logits, slow.logits)


def test_a_row_does_not_depend_on_its_neighbours(model: Captioner, features: Features):
    together = model(features, TOKENS)
    for row in range(4):
        close(model(pick(features, [row]), TOKENS[row : row + 1])[0], together[row])


def test_gradients_of_teacher_forcing_and_stepping_agree(model: Captioner, features: Features):
    grads = []
    for way in (model.forward_teacher_forced, lambda memory, tokens: unroll(model, memory, tokens)):
        model.zero_grad()
        logits = way(model.encode(features), TOKENS).logits
        logits.masked_fill(logits.isinf(), 0).square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-4)


def test_beams_of_a_medium_equal_repeated_media(model: Captioner, features: Features):
    """One memory row for K tokens and states gives what K copies of the memory give."""
    K = 3
    memory = model.encode(features)
    state = repeat(model.init_state(memory), K)
    copied = model.encode(pick(features, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]))
    other = model.init_state(copied)
    for step in range(3):
        token = torch.arange(4 * K) % (V - 3) + 3 if step else torch.full((4 * K,), BOS)
        shared, alone = model.step(token, state, memory), model.step(token, other, copied)
        close(shared.logits, alone.logits)
        close(shared.attention, alone.attention)
        for a, b in zip(leaves(shared.state), leaves(alone.state), strict=True):
            close(a, b)
        state, other = shared.state, alone.state


def test_memory_and_state_have_one_row_per_medium_and_hypothesis(model: Captioner, features: Features):
    memory = model.encode(features)
    assert leaves(memory) and all(len(tensor) == 4 for tensor in leaves(memory))
    state = model.init_state(memory)
    assert leaves(state) and all(len(tensor) == 4 for tensor in leaves(state))
    out = model.step(torch.full((8,), BOS), repeat(state, 2), memory)
    assert all(len(tensor) == 8 for tensor in (out.logits, out.attention, *leaves(out.state)))
    rows = torch.tensor([2, 0])  # a memory of chosen rows is the memory of the chosen media
    some = map_tensors(lambda x: x[rows], memory)
    assert type(some) is type(memory)
    for a, b in zip(leaves(some), leaves(model.encode(pick(features, [2, 0]))), strict=True):
        close(a.float(), b.float())


def test_masked_cells_change_nothing(model: Captioner, features: Features):
    other = Features(features.grid.masked_fill(~features.mask[..., None], 7.0), features.mask, features.layout)
    close(model(features, TOKENS), model(other, TOKENS))


def test_attention_is_a_distribution_over_the_real_cells(model: Captioner, features: Features):
    weights = model.forward_teacher_forced(model.encode(features), TOKENS).attention
    alive = not_ended(TOKENS)
    close(weights.sum(-1), alive.float())
    assert (weights >= 0).all()
    hidden = ~features.mask[:, None].expand(-1, TOKENS.shape[1], -1)
    assert (weights[hidden] == 0).all() and weights.shape == (*TOKENS.shape, N)


@pytest.mark.parametrize("case", SMALL)
def test_pad_and_bos_are_never_generated(case: str):
    features = random_features()
    mask_special_tokens, opened = (
        small(case, mask_special_tokens=value)(features, TOKENS)[not_ended(TOKENS)] for value in (True, False)
    )
    assert (mask_special_tokens[:, [PAD, BOS]] == -torch.inf).all() and mask_special_tokens[
        :, [EOS, *range(UNK, V)]
    ].isfinite().all()
    assert opened.isfinite().all()
    assert torch.equal(mask_special_tokens[:, EOS:], opened[:, EOS:])


def test_dropout_is_off_in_evaluation_and_on_in_training(model: Captioner, features: Features):
    assert torch.equal(model(features, TOKENS), model(features, TOKENS))
    model.train()
    assert not torch.equal(model(features, TOKENS), model(features, TOKENS))
