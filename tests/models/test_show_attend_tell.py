"""Show, Attend and Tell against numbers worked out on paper."""

from copy import deepcopy
from math import exp, tanh

import pytest
import torch

from limner.core.types import BOS, EOS, Features, Layout
from limner.decode.search import Beam, beam
from limner.models.captioner import map_tensors
from limner.models.layers import AdditiveAttention, WordHead
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.models.show_attend_tell_step import PackedStep
from tests.models.captioners import V, random_features, small

PAIR = Features(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, dtype=torch.bool), Layout(1, 1, 2))


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def put(model: torch.nn.Module, **weights: list) -> None:
    """Set the named parameters; all the others become 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weights.pop(name.replace(".", "_"), 0.0)).expand_as(parameter))
    assert not weights, f"no such weights: {list(weights)}"


def one_dimensional(**weights: list) -> ShowAttendTell:
    """Width 1 everywhere, five words, all weights 0 but the given ones."""
    model = ShowAttendTell(ShowAttendTellConfig(hidden=1, embed=1, attention=1, dropout=0.0), 5, 1).eval()
    put(model, **weights)
    return model


def test_additive_attention_by_hand():
    """Scores w . tanh(Wq q + Wk k + bk): tanh(.5 + .2) and tanh(.5 - .1), and the softmax of twice those."""
    attend = AdditiveAttention(1, 1, 1, "tanh")
    put(attend, query_weight=[[0.5]], key_weight=[[0.1]], key_bias=[0.1], score_weight=[[2.0]], score_bias=[9.0])
    values = torch.tensor([[[1.0], [-2.0], [5.0]]])
    mask = torch.tensor([[True, True, False]])
    context, weights = attend(torch.tensor([[1.0]]), values, attend.key(values), mask)
    a, b = exp(2 * tanh(0.7)), exp(2 * tanh(0.4))
    torch.testing.assert_close(weights, torch.tensor([[a / (a + b), b / (a + b), 0.0]]))
    torch.testing.assert_close(context, torch.tensor([[(a - 2 * b) / (a + b)]]))


def test_relu_attention_by_hand():
    attend = AdditiveAttention(1, 1, 1, "relu")
    put(attend, query_weight=[[1.0]], key_weight=[[1.0]], score_weight=[[1.0]])
    values = torch.tensor([[[1.0], [-2.0]]])
    _, weights = attend(torch.tensor([[1.0]]), values, attend.key(values), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.tensor([[exp(2), 1.0]]) / (exp(2) + 1))  # relu(2) and relu(-1)


def test_queries_of_one_medium_share_its_keys():
    attend = AdditiveAttention(2, 3, 4)
    query, values = torch.randn(6, 2), torch.randn(2, 5, 3)
    mask = torch.ones(2, 5, dtype=torch.bool)
    context, weights = attend(query, values, attend.key(values), mask)
    for row in range(6):
        own = values[row // 3 : row // 3 + 1]
        alone = attend(query[row : row + 1], own, attend.key(own), mask[:1])
        torch.testing.assert_close((context[row], weights[row]), (alone[0][0], alone[1][0]))


LSTM = {  # gates i, f, g, o read (word, context) and h: only the candidate g reads, and it reads the context alone
    "lstm_weight_ih": [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
}


def test_the_initial_state_comes_from_the_mean_of_the_cells():
    model = one_dimensional(init_h_weight=[[2.0]], init_h_bias=[1.0], init_c_weight=[[-1.0]])
    h, c, _ = model.init_state(model.encode(PAIR))
    assert h.tolist() == [[5.0]] and c.tolist() == [[-2.0]]  # mean (1 + 3) / 2 = 2


@pytest.mark.parametrize("f_beta", [0.0, 0.7])
def test_one_step_by_hand(f_beta: float):
    """h0 = mean = 2, c0 = 0; scores relu(h0 + cell) = 3, 5; the gate reads h0; the LSTM reads gate * context.

    With i = f = o = sigmoid(0) = 1/2: c1 = tanh(z) / 2, h1 = tanh(c1) / 2; logits = (0, 0, h1, 2 h1, 3 h1) + bias.
    """
    model = one_dimensional(
        init_h_weight=[[1.0]],
        attend_query_weight=[[1.0]],
        attend_key_weight=[[1.0]],
        attend_score_weight=[[1.0]],
        gate_weight=[[f_beta]],
        head_weight=[[0.0], [0.0], [1.0], [2.0], [3.0]],
        head_bias=[0.0, 0.0, 0.1, 0.2, 0.3],
        **LSTM,
    )
    memory = model.encode(PAIR)
    out = model.step(torch.tensor([BOS]), model.init_state(memory), memory)
    a1, a2 = 1 / (1 + exp(2)), exp(2) / (1 + exp(2))
    torch.testing.assert_close(out.attention, torch.tensor([[a1, a2]]))
    z = sigmoid(2 * f_beta) * (1 * a1 + 3 * a2)  # f_beta = 0: half of the context
    c1 = 0.5 * tanh(z)
    h1 = 0.5 * tanh(c1)
    torch.testing.assert_close(out.state[:2], (torch.tensor([[h1]]), torch.tensor([[c1]])))
    expected = [-torch.inf, -torch.inf, h1 + 0.1, 2 * h1 + 0.2, 3 * h1 + 0.3]
    torch.testing.assert_close(out.logits, torch.tensor([expected]))


def test_a_zero_gate_halves_the_context_before_the_lstm():
    model = one_dimensional(**LSTM)
    memory = model.encode(PAIR)
    h, c, context, attention = model.recurrent_step(torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), memory)
    assert attention.tolist() == [[0.5, 0.5]] and context.item() == 1.0  # .5 * mean
    assert c.item() == pytest.approx(0.5 * tanh(1.0)) and h.item() == pytest.approx(0.5 * tanh(c.item()))


def test_the_gate_and_the_attention_read_the_previous_h():
    """Two steps: the second one's gate is sigmoid of the first one's h, and not of its own."""
    model = one_dimensional(init_h_weight=[[1.0]], gate_weight=[[1.0]], **LSTM)
    memory = model.encode(PAIR)
    zero = torch.zeros(1, 1)
    h0, c0, _ = model.init_state(memory)
    h1, c1, first, _ = model.recurrent_step(zero, h0, c0, memory)
    _, _, second, _ = model.recurrent_step(zero, h1, c1, memory)
    assert first.item() == pytest.approx(sigmoid(2.0) * 2.0) and second.item() == pytest.approx(sigmoid(h1.item()) * 2)


def test_deep_output_by_hand():
    """Eq. 7: the word head reads tanh(h + context + word)."""
    model = ShowAttendTell(ShowAttendTellConfig("show_attend_tell", 1, 1, 1, deep_output=True), 5, 1).eval()
    put(model, deep_weight=[[1.0, 10.0, 100.0]], head_weight=[[0.0], [0.0], [1.0], [2.0], [0.0]])
    h, context, word = (torch.tensor([[x]]) for x in (0.3, 0.02, -0.001))
    expected = tanh(0.3 + 0.2 - 0.1)
    torch.testing.assert_close(model.word_logits(h, context, word)[0, 2:], torch.tensor([expected, 2 * expected, 0.0]))


def test_projected_cells_by_hand():
    """LayerNorm of (1, 3) is (-1, 1); then Linear and ReLU."""
    model = ShowAttendTell(ShowAttendTellConfig(hidden=1, embed=1, attention=1, project=2), 5, 2).eval()
    put(model, project_0_weight=[1.0, 1.0], project_1_weight=[[2.0, 0.0], [0.0, 3.0]], project_1_bias=[0.5, 0.0])
    pair = Features(torch.tensor([[[1.0, 3.0]]]), torch.ones(1, 1, dtype=torch.bool), Layout(1, 1, 1))
    torch.testing.assert_close(model.encode(pair).cells, torch.tensor([[[0.0, 3.0]]]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sharing_computations_between_hypotheses_changes_nothing():
    """Four rows per medium, as a search leaves them: two continue one hypothesis, two say one word, two are equal."""
    model, features = small("show_attend_tell, all options"), random_features(3)
    memory = model.encode(features)
    start = map_tensors(lambda x: x.repeat_interleave(4, 0), model.init_state(memory))
    state = model.step(torch.tensor([BOS] * 4 + [5] * 4 + [4, 5, 6, 7]), start, memory).state
    rows = torch.tensor([0, 1, 1, 3, 7, 7, 7, 7, 11, 10, 9, 11])
    state = map_tensors(lambda x: x.index_select(0, rows), state)
    token = torch.tensor([4, 4, 5, 5, 6, 6, 7, 7, 4, 5, 6, 7])
    shared = model.decoding_step()(token, state, memory)
    alone = model.step(token, state, memory)  # every row for itself
    torch.testing.assert_close(shared, alone)


@torch.no_grad()
@pytest.mark.parametrize("case", ["show_attend_tell", "show_attend_tell, all options"])
def test_the_packed_step_is_used_for_decoding_only(case: str):
    model = small(case)
    packed = model.decoding_step()
    assert isinstance(packed, PackedStep) and model.decoding_step() is packed  # made once
    with torch.enable_grad():
        assert model.decoding_step() == model.step
    assert model.train().decoding_step() == model.step  # dropout
    copied = deepcopy(model.eval())
    assert copied.decoding_step() is not packed and set(copied.state_dict()) == set(model.state_dict())


@torch.no_grad()
def test_captions_are_the_same_with_and_without_the_packed_step():
    for seed in range(4):
        model, features = small("show_attend_tell", seed=seed), random_features(5)
        alone = [beam(model, features.map(lambda x, i=i: x[i : i + 1]), Beam(3)) for i in range(5)]
        together = beam(model, features, Beam(3))
        model.decoding_step = lambda model=model: model.step
        slow = beam(model, features, Beam(3))
        for i, one in enumerate(alone):
            length = one.tokens.shape[1]
            for other in (together, slow):
                assert (
                    one.tokens[0].tolist() == other.tokens[i, :length].tolist() and not other.tokens[i, length:].any()
                )
                torch.testing.assert_close(one.logprob[0], other.logprob[i], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(one.attention[0], other.attention[i, :length], rtol=1e-4, atol=1e-4)


def test_cells_are_projected_once_per_medium():
    model, calls = small("show_attend_tell"), []
    model.attend.key.register_forward_hook(lambda module, inputs, output: calls.append(tuple(output.shape)))
    features = random_features(3, ragged=False)
    beam(model, features, Beam(4))
    assert calls == [(3, 6, 4)]  # 3 media, not 12 hypotheses, and not at every word
    tokens = torch.tensor([[BOS, 4, 5, 6, EOS]] * 3)
    model(features, tokens)
    assert len(calls) == 2


def test_rows_that_have_ended_are_not_computed():
    """Teaching rows of 1, 2 and 4 words runs 3, 2, 1 and 1 recurrences: as many as there are words to predict."""
    model, rows = small("show_attend_tell"), []
    model.lstm.register_forward_hook(lambda module, inputs, output: rows.append(len(output[0])))
    tokens = torch.tensor([[BOS, EOS, 0, 0], [BOS, 4, 5, 6], [BOS, 4, EOS, 0]])
    model(random_features(3), tokens)
    assert rows == [3, 2, 1, 1]


def test_the_word_head_masks_special_tokens():
    head = WordHead(1, V)
    assert set(head.state_dict()) == {"weight", "bias"}  # the mask is no weight
    assert (head(torch.ones(2, 3, 1)) == -torch.inf).any(-1).all() and (head(torch.ones(1))[:2] == -torch.inf).all()
