"""The spatial transformer against torch's own layers, and what it does at the edges."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limner.core.types import BOS, Features, Layout
from limner.decode.search import Beam, beam
from limner.models.attention_blocks import (
    DotProduct,
    FeedForward,
    RMSNorm,
    UnbiasedNorm,
    channels_first_in_memory,
    sinusoidal_table,
)
from limner.models.captioner import unroll
from limner.models.grid_positions import GRID_POSITIONS
from limner.models.spatial_transformer import SpatialTransformer, SpatialTransformerConfig
from limner.runs.recipe_file import build_recipe
from tests.decode.test_search import forced
from tests.models.captioners import D, V, small

TOKENS = torch.tensor([[BOS, 4, 5, 6], [BOS, 6, 7, 8], [BOS, 5, 5, 4]])
CASES = ["spatial_transformer", "spatial_transformer, all options", "located", "located, all options"]


def made(case: str, **options: Any) -> SpatialTransformer:
    """`located`: the boxes matter in every way at once."""
    if case.startswith("located"):
        options = {"positions": "g2", "num_grids": 9, "geometry": True} | options
    if case.endswith("all options"):
        options = {"norm": "rms"} | options
    model = small(case.replace("located", "spatial_transformer"), **options)
    assert isinstance(model, SpatialTransformer)
    return model


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def regions(counts: tuple[int, ...], padding: int = 0, seed: int = 1) -> Features:
    """Detector regions; those of a medium do not depend on how many the others have."""
    longest = max(counts) + padding
    grid, boxes = torch.zeros(len(counts), longest, D), torch.zeros(len(counts), longest, 4)
    mask = torch.zeros(len(counts), longest, dtype=torch.bool)
    for row, count in enumerate(counts):
        draw = torch.Generator().manual_seed(seed + row)
        grid[row, :count] = torch.randn(count, D, generator=draw)
        boxes[row, :count] = torch.rand(count, 2, 2, generator=draw).sort(1).values.flatten(1)
        mask[row, :count] = True
    return Features(grid, mask, Layout(1, 1, longest), boxes)


def put_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    key_bias = torch.zeros_like(ours.query.bias)
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, key_bias, ours.value.bias]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_equal_those_of_torch(activation: str):
    """nn.TransformerEncoderLayer and nn.TransformerDecoderLayer with the norm first, on padded regions."""
    model = made("spatial_transformer", activation=activation)
    config = model.config
    sizes = (config.dim, config.heads, config.hidden, 0.0, activation)
    features = regions((5, 3, 4))
    cells = model.add_positions(model.embed_cells(features), features)
    for layer in model.cell_layers:
        twin = nn.TransformerEncoderLayer(*sizes, batch_first=True, norm_first=True).eval()
        put_attention(twin.self_attn, layer.attend)
        for k, name in enumerate(("norm1", "norm2")):
            getattr(twin, name).load_state_dict(layer.norms[k].state_dict())
        twin.linear1.load_state_dict(layer.feed_forward[0].state_dict())
        twin.linear2.load_state_dict(layer.feed_forward[3].state_dict())
        cells = twin.train()(cells, src_key_padding_mask=~features.mask)
    cells = model.cell_norm(cells)
    words = model.embed(TOKENS) * config.dim**0.5 + sinusoidal_table(torch.arange(4), config.dim)
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1)
    for layer in model.word_layers:
        twin = nn.TransformerDecoderLayer(*sizes, batch_first=True, norm_first=True).eval()
        put_attention(twin.self_attn, layer.attend_words)
        put_attention(twin.multihead_attn, layer.attend_cells)
        for k, name in enumerate(("norm1", "norm2", "norm3")):
            getattr(twin, name).load_state_dict(layer.norms[k].state_dict())
        twin.linear1.load_state_dict(layer.feed_forward[0].state_dict())
        twin.linear2.load_state_dict(layer.feed_forward[3].state_dict())
        words = twin(words, cells, tgt_mask=hidden, memory_key_padding_mask=~features.mask)
    expected = model.head(model.word_norm(words))
    real = expected.isfinite()
    close(model(features, TOKENS)[real], expected[real])


def test_norms_by_hand():
    x = torch.tensor([[3.0, -1.0, 4.0, 2.0]])  # mean 2, squares sum to 30, deviations to 14
    close(RMSNorm(4)(x), x / 7.5**0.5)
    close(UnbiasedNorm(4)(x), torch.tensor([[1.0, -3.0, 2.0, 0.0]]) / (14 / 3) ** 0.5)
    assert RMSNorm(4)(torch.zeros(1, 4)).tolist() == [[0, 0, 0, 0]]
    assert UnbiasedNorm(4)(torch.ones(1, 4)).tolist() == [[0, 0, 0, 0]]
    with torch.no_grad():  # the faster form of the same numbers
        close(UnbiasedNorm(4)(x), torch.tensor([[1.0, -3.0, 2.0, 0.0]]) / (14 / 3) ** 0.5)
        assert UnbiasedNorm(4)(torch.ones(1, 4)).tolist() == [[0, 0, 0, 0]]
    for norm in (RMSNorm(4), UnbiasedNorm(4)):  # a cell of which dropout has left nothing
        nothing = torch.zeros(1, 4, requires_grad=True)
        norm(nothing).sum().backward()
        assert nothing.grad is not None and nothing.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_cached_steps_equal_reading_everything_again(case: str):
    """The slow twin of the cache: all words so far, read anew for each next one, from an empty state."""
    model, features = made(case), regions((5, 3, 4))
    memory = model.encode(features)
    state = model.init_state(memory)
    for t in range(TOKENS.shape[1]):
        out = model.step(TOKENS[:, t], state, memory)
        state = out.state
        again, _, attention = model.decode_words(TOKENS[:, : t + 1], model.init_state(memory), memory)
        close(out.logits, model.head(again[:, -1]))
        close(out.attention, attention[:, -1])
        assert all(known.key.shape == (3, model.config.heads, t + 1, 8 // model.config.heads) for known in state.past)


def test_cells_and_words_are_projected_once():
    model = made("spatial_transformer")
    rows: dict[str, list[int]] = {"cells": [], "words": []}
    layer = model.word_layers[0]
    layer.attend_cells.key.register_forward_hook(lambda *x: rows["cells"].append(x[2].shape[:-1].numel()))
    layer.norms[0].register_forward_hook(lambda *x: rows["words"].append(x[2].shape[:-1].numel()))
    captions = beam(model, regions((5, 5)), Beam(3))
    assert rows["cells"] == [10]  # 2 media of 5 regions, once for all words of all hypotheses
    assert rows["words"][0] == 2 and set(rows["words"][1:]) <= {3, 6}  # a word of each hypothesis
    assert len(rows["words"]) >= captions.tokens.shape[1]


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_nothing(case: str):
    model = made(case)
    close(model(regions((5, 3, 4)), TOKENS), model(regions((5, 3, 4), padding=6), TOKENS))


@pytest.mark.parametrize("case", CASES)
def test_a_picture_without_regions_has_a_caption(case: str):
    """Nothing is attended, and what is said is finite and the same beside any neighbour and without any cell."""
    model = made(case).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with_others, alone = regions((0, 4, 0)), regions((0,))
    taught = model.forward_teacher_forced(model.encode(with_others), TOKENS)
    said = taught.logits[..., 2:]
    assert said.isfinite().all() and (taught.attention[[0, 2]] == 0).all()
    close(model(alone, TOKENS[:1])[..., 2:], said[:1])
    said.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    found = beam(model, alone, Beam(2))
    close(found.logprob, forced(model, alone, found))


@pytest.mark.parametrize("case", CASES)
def test_300_regions_give_the_same_captions_as_stepping(case: str):
    model, features = made(case), regions((300, 10))
    memory = model.encode(features)
    fast, slow = model.forward_teacher_forced(memory, TOKENS[:2]), unroll(model, memory, TOKENS[:2])
    close(fast.logits[..., 2:], slow.logits[..., 2:])
    close(model(features, TOKENS[:2])[1], model(regions((10,), seed=2), TOKENS[1:2])[0])


@pytest.mark.parametrize("case", CASES)
def test_regions_have_no_order(case: str):
    model = made(case)
    features, order = regions((5, 5, 5)), [3, 1, 4, 0, 2]
    close(model(features.map(lambda x: x[:, order]), TOKENS), model(features, TOKENS))


@pytest.mark.parametrize("positions", ["gxg", "g2", "box", "sinusoidal"])
def test_where_a_region_lies_matters(positions: str):
    model = made("spatial_transformer", positions=positions)
    features = regions((5, 5, 5))
    assert features.regions is not None
    moved = Features(features.grid, features.mask, features.layout, features.regions.roll(1, 1))
    assert not torch.allclose(model(features, TOKENS), model(moved, TOKENS), atol=1e-3)


def test_boxes_matter_only_with_geometry():
    features = regions((5, 5, 5))
    assert features.regions is not None
    moved = Features(features.grid, features.mask, features.layout, features.regions.roll(1, 1))
    for geometry in (False, True):
        model = made("spatial_transformer", positions="none", geometry=geometry)
        assert torch.allclose(model(features, TOKENS), model(moved, TOKENS), atol=1e-3) is not geometry


def test_boxes_of_a_grid_are_those_of_its_layout():
    """Geometry is computed once for a grid, and gives what the same boxes give for every medium."""
    model = made("located, all options")
    grid = torch.randn(3, 6, D)
    mask = torch.ones(3, 6, dtype=torch.bool)
    given = Layout(1, 2, 3).boxes().expand(3, -1, -1)
    implied, told = Features(grid, mask, Layout(1, 2, 3)), Features(grid, mask, Layout(1, 1, 6), given)
    close(model(implied, TOKENS), model(told, TOKENS))
    assert model.geometry_features(implied).shape[0] == 1 and model.geometry_features(told).shape[0] == 3


@pytest.mark.parametrize("positions", [True, False])
def test_the_order_of_frames_matters_only_with_position_embeddings(positions: bool):
    model = made("spatial_transformer", position_embedding=positions, positions="gxg")
    clip = Features(torch.randn(3, 6, D), torch.ones(3, 6, dtype=torch.bool), Layout(6, 1, 1))
    backwards = clip.map(lambda x: x.flip(1))
    assert torch.allclose(model(clip, TOKENS), model(backwards, TOKENS), atol=1e-4) is not positions


@pytest.mark.parametrize("case", CASES)
def test_teacher_forcing_equals_stepping(case: str):
    """Where boxes matter as well, which the suite of all captioners leaves to this file."""
    model, features = made(case), regions((5, 3, 4))
    memory = model.encode(features)
    fast, slow = model.forward_teacher_forced(memory, TOKENS), unroll(model, memory, TOKENS)
    close(fast.logits, slow.logits)
    close(fast.attention, slow.attention)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_grids": 143}, "143 cells is no square"),
        ({"dim": 10, "heads": 3}, "multiple of the number of heads, 3"),
        ({"dim": 9, "heads": 3}, "must be even"),
        ({"norm": "batch"}, "norm"),
        ({"positions": "gxgx"}, "positions"),
    ],
)
def test_invalid_options_are_refused_by_the_recipe(wrong: dict, said: str):
    with pytest.raises(ValueError, match=said):
        build_recipe({"data": {"media": "."}, "model": {"name": "spatial_transformer", **wrong}})


@pytest.mark.parametrize("positions", ["box", "none"])
def test_num_grids_is_an_option_of_grid_positions_only(positions: str):
    model = {"name": "spatial_transformer", "num_grids": 143}
    assert build_recipe({"data": {"media": "."}, "model": {**model, "positions": positions}}).model.num_grids == 143
    for gridded in GRID_POSITIONS:
        with pytest.raises(ValueError, match="143 cells is no square"):
            build_recipe({"data": {"media": "."}, "model": {**model, "positions": gridded}})


def test_training_in_bfloat16_is_close_to_float32():
    model, features = made("located, all options"), regions((5, 3, 4))
    exact = model(features, TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(features, TOKENS)
    live = exact.isfinite()
    assert (rough[live] - exact[live]).abs().mean() < 0.1 * exact[live].abs().mean()
    rough[live].float().square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_fresh_captioner_predicts_words_almost_uniformly():
    """Cross entropy of a fresh captioner is about log V: no initial scale that training must first undo."""
    torch.manual_seed(0)
    model = SpatialTransformer(SpatialTransformerConfig(), 1000, 64).eval()
    grid = torch.randn(8, 49, 64).relu() * 3
    features = Features(grid, torch.ones(8, 49, dtype=torch.bool), Layout(1, 7, 7))
    logits = model(features, torch.randint(4, 1000, (8, 10)))[..., 2:]
    assert logits.std() < 1.5 and V == 9


@torch.no_grad()
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_decoding_layers_equal_training_layers(activation: str):
    """Matrices large enough to be packed, ReLU inside the product, heads laid out for the product: same numbers."""
    torch.manual_seed(0)
    attend, feed = DotProduct(512, 8, 0.1).eval(), FeedForward(512, 1024, activation, 0.1).eval()
    x, cells = torch.randn(3, 2, 512), torch.randn(3, 5, 512)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])[:, None]
    known = attend.project(cells)
    fast = attend(x, type(known)(*(channels_first_in_memory(part) for part in known)), mask), feed(x)
    with torch.enable_grad():
        slow = attend(x, attend.project(cells), mask), feed(x)
    for found, expected in ((fast[0][0], slow[0][0]), (fast[0][1], slow[0][1]), (fast[1], slow[1])):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not found.requires_grad and expected.requires_grad
