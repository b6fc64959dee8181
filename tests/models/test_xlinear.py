"""X-linear attention against the form that makes every tensor it speaks of."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.models import xlinear
from limner.models.attention_blocks import KeyValue
from limner.models.xlinear import Projection, XLinear


def five_dimensional(layer: XLinear, queries: Tensor, known: KeyValue, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The slow twin: (B, H, Q, N, d) of joint maps and of values."""

    def heads(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], layer.heads, -1).transpose(1, 2)

    q1, q2, k, v = heads(layer.query(queries)), heads(layer.query2(queries)), heads(known.key), heads(known.value)
    real = mask[:, None, None, :, None]
    m = torch.relu(layer.common(q1[:, :, :, None] * k[:, :, None]))
    weights = layer.spatial(m).masked_fill(~real, -1e9).softmax(3)
    gate = torch.sigmoid(layer.channel((m * real).sum(3) / real.sum(3)))
    out = gate * (weights * (q2[:, :, :, None] * v[:, :, None])).sum(3)
    return out.transpose(1, 2).flatten(2), weights[..., 0].mean(1)


def case(heads: int = 2, dim: int = 12, seed: int = 0) -> tuple[XLinear, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    layer = XLinear(dim, heads, 5, 1.3).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:], mask[2, :3] = False, False
    return layer, torch.randn(3, 4, dim), torch.randn(3, 7, dim), mask


@pytest.mark.parametrize("piece", [1, 100, 1 << 18])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_x_linear_attention_equals_the_five_dimensional_product(
    heads: int, piece: int, monkeypatch: pytest.MonkeyPatch
):
    """In pieces of one query, of some, and all at once."""
    monkeypatch.setitem(xlinear.PIECE_SIZE, "cpu", piece)
    layer, queries, cells, mask = case(heads)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            read, weights = layer(queries, layer.project(cells), mask[:, None])
        expected = five_dimensional(layer, queries, layer.project(cells), mask)
        torch.testing.assert_close((read, weights), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("piece", [1, 1 << 18])
def test_queries_that_see_nothing_read_nothing_and_change_no_other(piece: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(xlinear.PIECE_SIZE, "cpu", piece)
    layer, queries, cells, mask = case()
    seeing = torch.tensor([[True, True, False, True], [False] * 4, [False, True, False, False]])
    read, weights = layer(queries, layer.project(cells), mask[:, None] & seeing[..., None])
    expected = five_dimensional(layer, queries, layer.project(cells), mask)
    torch.testing.assert_close(
        (read[seeing], weights[seeing]), tuple(x[seeing] for x in expected), rtol=1e-5, atol=1e-5
    )
    assert not read[~seeing].any() and not weights[~seeing].any()
    none = layer(queries, layer.project(cells), torch.zeros(3, 4, 7, dtype=torch.bool))
    assert not none[0].any() and not none[1].any()


@pytest.mark.parametrize("piece", [1, 1 << 18])
def test_gradients_equal_those_of_the_five_dimensional_product(piece: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(xlinear.PIECE_SIZE, "cpu", piece)
    layer, queries, cells, mask = case()
    found = []
    for way in (lambda *x: layer(x[0], x[1], x[2][:, None]), lambda *x: five_dimensional(layer, *x)):
        leaf, other = queries.clone().requires_grad_(), cells.clone().requires_grad_()
        read, weights = way(leaf, layer.project(other), mask)
        (read.square().sum() + weights.square().sum()).backward()
        found.append([leaf.grad, other.grad, *(p.grad.clone() for p in layer.parameters())])
        layer.zero_grad()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_recomputation_in_the_backward_pass_uses_the_same_dropout(monkeypatch: pytest.MonkeyPatch):
    """Pieces are computed again for the gradient, with the same cells dropped: equal to keeping them."""
    layer, queries, cells, mask = case()
    layer.dropout.p = 0.5
    layer.train()
    grads = []
    for checkpointed in (True, False):
        if not checkpointed:
            monkeypatch.setattr(xlinear, "checkpoint", lambda fn, *x, **_: fn(*x))
        torch.manual_seed(7)
        layer.zero_grad()
        layer(queries, layer.project(cells), mask[:, None])[0].square().sum().backward()
        grads.append([p.grad.clone() for p in layer.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_one_channel_by_hand():
    """One channel, one head: q1 = k = q2 = value = 1, since a normalised single number is its bias."""
    layer = XLinear(1, 1, 1)
    with torch.no_grad():
        for part in (layer.query, layer.key, layer.query2, layer.value):
            part.bias.fill_(1.0)
        for linear, weight, bias in ((layer.common, 2.0, -0.5), (layer.channel, 1.0, 0.5)):
            linear.weight.fill_(weight)
            linear.bias.fill_(bias)
    cells = torch.randn(1, 3, 1)
    read, weights = layer(torch.zeros(1, 1, 1), layer.project(cells), torch.tensor([[[True, True, False]]]))
    assert weights.tolist() == [[[0.5, 0.5, 0.0]]]
    assert read.item() == pytest.approx(torch.sigmoid(torch.tensor(1.5 + 0.5)).item())


def test_projections_are_celu_and_group_norm():
    layer = Projection(12, 3, 1.3)
    with torch.no_grad():
        layer.weight.normal_(), layer.bias.normal_()
    x = torch.randn(2, 5, 12)
    each = F.group_norm(F.celu(layer.linear(x), 1.3).view(10, 12), 3, layer.weight, layer.bias).view(2, 5, 12)
    torch.testing.assert_close(layer(x), each)


@pytest.mark.parametrize("cells", [0, 3])
def test_no_real_cells_give_zeros_and_gradients(cells: int):
    layer, queries, _, _ = case()
    queries.requires_grad_()
    nothing = torch.zeros(3, 1, cells, dtype=torch.bool)
    read, weights = layer(queries, layer.project(torch.randn(3, cells, 12)), nothing)
    assert (read == 0).all() and weights.shape == (3, 4, cells) and (weights == 0).all()
    read.sum().backward()
    assert queries.grad is not None and queries.grad.isfinite().all()


def test_no_large_tensor_is_saved_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch):
    """What autograd saves grows with queries plus cells, not with their product times the channels."""
    layer, _, _, _ = case(heads=1, dim=16)

    def kept(queries: int, cells: int) -> int:
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.setdefault(x.data_ptr(), x.numel()) and x, lambda x: x
        ):
            known = layer.project(torch.randn(2, cells, 16))
            layer(torch.randn(2, queries, 16), known, torch.ones(2, 1, cells, dtype=torch.bool))
        return sum(sizes.values())

    assert kept(40, 100) < kept(40, 1) + kept(1, 100) + 4 * 2 * 40 * 100 < 2 * 40 * 100 * 16
