"""SA-LSTM against torch's own recurrent layers and numbers worked out on paper."""

from math import exp, tanh

import pytest
import torch
from torch import Tensor, nn

from limner.core.types import BOS, EOS, PAD, Features, Layout
from limner.decode.search import Beam, beam
from limner.models.captioner import FromPixels, unroll
from limner.models.sa_lstm import MAX_PRECOMPUTED_CELLS, SaLstm, SaLstmConfig
from tests.models.captioners import D, N, random_features, small

TOKENS = torch.tensor([[BOS, 4, 5, EOS], [BOS, 6, 7, 8], [BOS, EOS, PAD, PAD], [BOS, 5, 5, 5]])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def put(model: nn.Module, **weights: list) -> None:
    """Set the named parameters; all the others become 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weights.pop(name.replace(".", "_"), 0.0)).expand_as(parameter))
    assert not weights, f"no such weights: {list(weights)}"


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_layers_equal_those_of_torch(rnn: str, layers: int):
    """Three steps of the same weights in nn.LSTM or nn.GRU, reading [word ; context]; the cells are all alike, so that
    the context is one of them whatever the attention."""
    model = small("sa_lstm", rnn=rnn, layers=layers, mask_special_tokens=False)
    H, E = 7, 5
    oracle = (nn.LSTM if rnn == "lstm" else nn.GRU)(E + D, H, layers, batch_first=True)
    weights = {
        "weight_ih_l0": torch.cat([model.read_word.weight, model.read_context.weight], 1),
        "bias_ih_l0": model.read_word.bias,
    }
    for k in range(layers):
        weights |= {f"weight_hh_l{k}": model.carry[k].weight, f"bias_hh_l{k}": model.carry[k].bias}
        if k:
            below = model.read_below[k - 1]
            weights |= {f"weight_ih_l{k}": below.weight, f"bias_ih_l{k}": below.bias}
    oracle.load_state_dict(weights)
    cell = torch.randn(2, 1, D, generator=torch.Generator().manual_seed(3))
    features = Features(cell.expand(2, N, D), torch.ones(2, N, dtype=torch.bool), Layout(N, 1, 1))
    tokens = torch.tensor([[BOS, 4, 5], [BOS, 6, 7]])
    read = torch.cat([model.embed(tokens), cell.expand(2, 3, D)], -1)
    hidden, _ = oracle(read)
    close(model(features, tokens), model.head(hidden))


def one_dimensional(**weights: list) -> SaLstm:
    """Width 1 everywhere, five words, all weights 0 but the given ones; the candidate of the LSTM reads the context."""
    model = SaLstm(SaLstmConfig(hidden=1, embed=1, attention=1, dropout=0.0, mask_special_tokens=False), 5, 1).eval()
    put(model, read_context_weight=[[0.0], [0.0], [1.0], [0.0]], head_weight=[[1.0]] * 5, **weights)
    return model


def test_two_steps_by_hand():
    """h0 = c0 = 0 and i = f = o = 1/2.  The scores are 2 tanh(3 h + cell / 2 + .1), with the h of the step before."""
    model = one_dimensional(
        attend_query_weight=[[3.0]], attend_key_weight=[[0.5]], attend_key_bias=[0.1], attend_score_weight=[[2.0]]
    )
    pair = Features(torch.tensor([[[1.0], [-2.0]]]), torch.ones(1, 2, dtype=torch.bool), Layout(2, 1, 1))
    forced = model.forward_teacher_forced(model.encode(pair), torch.tensor([[BOS, 4]]))
    h = c = 0.0
    for t in range(2):
        a, b = (exp(2 * tanh(3 * h + 0.5 * cell + 0.1)) for cell in (1.0, -2.0))
        torch.testing.assert_close(forced.attention[0, t], torch.tensor([a, b]) / (a + b))
        c = 0.5 * c + 0.5 * tanh((a - 2 * b) / (a + b))
        h = 0.5 * tanh(c)
        assert forced.logits[0, t].tolist() == pytest.approx([h] * 5)
        assert forced.hidden is not None and forced.hidden[0, t].item() == pytest.approx(h)


@pytest.mark.parametrize("case", ["sa_lstm", "sa_lstm, all options"])
def test_words_are_predicted_from_the_hidden_states(case: str):
    model, features = small(case), random_features()
    memory = model.encode(features)
    fast, slow = model.forward_teacher_forced(memory, TOKENS), unroll(model, memory, TOKENS)
    assert fast.hidden is not None and slow.hidden is not None
    close(fast.hidden, slow.hidden)
    alive = fast.attention.sum(-1) > 0
    close(model.head(fast.hidden)[alive], fast.logits[alive])
    out = FromPixels(nn.Identity(), model).step(TOKENS[:, 0], model.init_state(memory), memory)
    seen = FromPixels(nn.Identity(), model).hidden(out.state)
    assert seen is not None
    close(seen, fast.hidden[:, 0])
    assert (fast.hidden[~alive] == 0).all() and (fast.hidden[alive] != 0).any(-1).all()


def test_the_published_model_attends_to_padding():
    """Unmasked, padded cells are zeros like any other; masked, they are as if they were not there."""
    features = random_features()
    zeros = features.grid.masked_fill(~features.mask[..., None], 0.0)
    seen = Features(zeros, torch.ones_like(features.mask), features.layout)
    masked, unmasked = small("sa_lstm"), small("sa_lstm", masked=False)
    unmasked.load_state_dict(masked.state_dict())
    close(unmasked(features, TOKENS), masked(seen, TOKENS))
    assert not torch.allclose(unmasked(features, TOKENS)[1], masked(features, TOKENS)[1], atol=1e-3)  # has padding
    close(unmasked(features, TOKENS)[0], masked(features, TOKENS)[0])  # has none
    attention = unmasked.forward_teacher_forced(unmasked.encode(features), TOKENS).attention
    assert (attention[1, :4] > 0).all()


@pytest.mark.parametrize("positions", [False, True])
def test_the_order_of_frames_matters_only_with_position_embeddings(positions: bool):
    model = small("sa_lstm", position_embedding=positions)
    clip = random_features(ragged=False)
    clip = Features(clip.grid, clip.mask, Layout(N, 1, 1))
    backwards = Features(clip.grid.flip(1), clip.mask, clip.layout)
    there, back = model(clip, TOKENS)[:2], model(backwards, TOKENS)[:2]
    assert torch.allclose(there, back, atol=1e-4) is not positions


@pytest.mark.parametrize("case", ["sa_lstm", "sa_lstm, all options"])
def test_precomputed_gate_inputs_give_the_same_captions(case: str):
    """Every way to the same numbers: cells multiplied beforehand or their contexts one by one."""
    model, features = small(case), random_features()
    contexts = model.encode(features)
    with torch.no_grad():
        cells = model.encode(features)
    assert contexts.gate_inputs.shape[1] == 0 and cells.cells.shape[1] == 0
    for one in (cells, model.with_gate_inputs(contexts)):
        close(unroll(model, one, TOKENS).logits, unroll(model, contexts, TOKENS).logits)
        close(model.forward_teacher_forced(one, TOKENS).logits, unroll(model, contexts, TOKENS).logits)


def calls_of(module: nn.Module) -> list[int]:
    """Rows of every later call."""
    rows: list[int] = []
    module.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[:-1].numel()))
    return rows


def test_a_beam_search_projects_every_cell_once():
    model = small("sa_lstm")
    keys, contexts = calls_of(model.attend.key), calls_of(model.read_context)
    beam(model, random_features(3, ragged=False), Beam(4))
    assert keys == contexts == [3 * N]  # 3 media, not 12 hypotheses, and not at every word


def test_gate_inputs_are_precomputed_only_for_few_cells():
    model = small("sa_lstm")
    grid = torch.randn(1, MAX_PRECOMPUTED_CELLS + 1, D)
    features = Features(
        grid, torch.ones(1, MAX_PRECOMPUTED_CELLS + 1, dtype=torch.bool), Layout(1, 1, MAX_PRECOMPUTED_CELLS + 1)
    )
    with torch.no_grad():
        memory = model.encode(features)
        assert memory.gate_inputs.shape[1] == 0 and torch.equal(memory.cells, grid)
        few = model.encode(
            Features(
                grid[:, :MAX_PRECOMPUTED_CELLS],
                features.mask[:, :MAX_PRECOMPUTED_CELLS],
                Layout(1, 1, MAX_PRECOMPUTED_CELLS),
            )
        )
        assert few.cells.shape[1] == 0
        close(few.gate_inputs, grid[:, :MAX_PRECOMPUTED_CELLS] @ model.read_context.weight.T)


def test_teacher_forcing_projects_cells_or_contexts_whichever_are_fewer():
    """4 media of 40 cells: 160 products with cells, against 12 contexts of 4 steps; with 6 cells each only 24."""
    model = small("sa_lstm")
    contexts, carried, words = calls_of(model.read_context), calls_of(model.carry[0]), calls_of(model.head)
    model(random_features(), torch.cat([TOKENS, torch.full((4, 2), PAD)], 1))
    assert contexts == [24] and carried == [4, 3, 3, 2] and words == [12]  # rows that have ended are not computed
    contexts.clear()
    many = Features(torch.randn(4, 40, D), torch.ones(4, 40, dtype=torch.bool), Layout(40, 1, 1))
    model(many, TOKENS)
    assert contexts == [4, 3, 3, 2]


def test_the_state_is_a_vector_per_layer_whatever_was_read():
    """The top layer's after each word is the hidden state of teacher forcing."""
    model, tokens = small("sa_lstm, all options"), torch.full((4, 5), 5)
    memory = model.encode(random_features())
    forced, state = model.forward_teacher_forced(memory, tokens), model.init_state(memory)
    assert forced.hidden is not None
    for t in range(4):
        state = model.step(tokens[:, t], state, memory).state
        assert [tuple(h.shape) for (h,) in state] == [(4, 7), (4, 7)]
        close(state[-1][0], forced.hidden[:, t])


def test_training_in_bfloat16_is_close_to_float32():
    model, features = small("sa_lstm, all options").train(), random_features()
    for dropout in (model.dropout, model.word_dropout, model.cell_dropout):
        dropout.p = 0.0
    exact = model(features, TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(features, TOKENS)
    live = exact.isfinite()
    assert (rough[live] - exact[live]).abs().max() < 0.1 * exact[live].abs().max()
    rough[live].float().square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
