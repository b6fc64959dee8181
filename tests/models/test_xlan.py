"""X-LAN against a plain walk through the published equations."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.types import BOS, EOS, PAD, Features, Layout
from limner.models.captioner import map_tensors, unroll
from limner.models.xlan import Xlan
from limner.runs.recipe_file import build_recipe
from tests.models.captioners import D, random_features, small
from tests.models.test_xlinear import five_dimensional

TOKENS = torch.tensor([[BOS, 4, 5, EOS], [BOS, 6, 7, 8], [BOS, EOS, PAD, PAD], [BOS, 5, 5, 5]])


def rollout(model: Xlan, features: Features, tokens: Tensor) -> Tensor:
    """README of the golden data, Conventions: one step after the other, each line as it is written there."""
    mask = features.mask
    cells = F.celu(model.cells(features.grid), 1.3)
    g = (cells * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    vectors = [g]
    for attend, join, norm in zip(model.refine, model.join, model.join_norms, strict=True):
        read, _ = five_dimensional(attend, vectors[-1][:, None], attend.project(cells), mask)
        vectors.append(read[:, 0])
        pairs = torch.cat([read.expand(-1, cells.shape[1], -1), cells], -1)
        cells = norm(cells + torch.relu(F.linear(pairs, join.weight, join.bias)))
    whole = model.whole_norm(model.whole(torch.cat(vectors, 1)))
    h = c = said = torch.zeros_like(whole)
    logits = []
    for token in tokens.T:
        h, c = model.lstm(torch.cat([F.celu(model.embed(token), 1.3), whole + said], 1), (h, c))
        read, _ = five_dimensional(model.attend, h[:, None], model.attend.project(cells), mask)
        context = model.context_norm(model.context(torch.cat([h, read[:, 0]], 1)))
        a, b = model.say(torch.cat([context, h], 1)).chunk(2, 1)
        said = a * torch.sigmoid(b)
        logits.append(model.head(said))
    return torch.stack(logits, 1)


def test_equal_to_the_equations():
    model, features = small("xlan"), random_features()
    expected, alive = rollout(model, features, TOKENS), TOKENS > EOS
    alive[:, 0] = True
    torch.testing.assert_close(model(features, TOKENS)[alive], expected[alive], rtol=1e-4, atol=1e-5)


def test_decoding_equals_training_mode():
    """The slow twin: with gradients every product is computed in one piece and for every row.

    Rows 0 and 1 continue one hypothesis, and rows 2 and 3 another; rows 1 and 2 read the same word.
    """
    model, features = small("xlan"), random_features()
    slow = model.encode(features)
    with torch.no_grad():
        fast = model.encode(features)
    torch.testing.assert_close(tuple(slow.key_value), tuple(fast.key_value), rtol=1e-4, atol=1e-5)
    assert slow.gate_inputs.shape[1] == 0 and fast.gate_inputs.shape[1] == 4 * model.config.dim
    states = []
    for memory, gradients in ((slow, True), (fast, False)):
        with torch.set_grad_enabled(gradients):
            state = model.step(torch.full((len(features),), BOS), model.init_state(memory), memory).state
            parents = torch.arange(len(features)).repeat_interleave(2)
            state = map_tensors(lambda x, parents=parents: x[parents], state)
            assert state.row.tolist() == parents.tolist()
            out = model.step(torch.tensor([4, 5, 5, 6, 4, 4, 7, 6]), state, memory)
            states.append([out.logits, out.attention, *out.state])
    assert len(features) == 4
    for expected, found in zip(*states, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_words_are_predicted_from_the_hidden_states():
    model, features = small("xlan"), random_features()
    memory = model.encode(features)
    fast, slow = model.forward_teacher_forced(memory, TOKENS), unroll(model, memory, TOKENS)
    assert fast.hidden is not None and slow.hidden is not None
    torch.testing.assert_close(fast.hidden, slow.hidden, rtol=1e-4, atol=1e-5)
    alive = fast.attention.sum(-1) > 0
    torch.testing.assert_close(model.head(fast.hidden)[alive], fast.logits[alive])


def test_a_picture_without_regions_has_a_finite_caption():
    model = small("xlan")
    said = []
    for cells in (0, 3):
        nothing = Features(torch.randn(1, cells, D), torch.zeros(1, cells, dtype=torch.bool), Layout(1, 1, cells))
        said.append(model(nothing, TOKENS[1:2]))
    assert said[0][..., 2:].isfinite().all()
    torch.testing.assert_close(said[0], said[1])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of the number of heads, 3"):
        build_recipe({"data": {"media": "."}, "model": {"name": "xlan", "dim": 8, "heads": 3}})
