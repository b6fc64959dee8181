"""The SFT captioner beyond what every captioner promises."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.types import BOS, EOS, PAD, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam, greedy
from limner.models.packed_linear import MAX_ROWS, MIN_MATRIX_SIZE, SmallBatchLinear
from limner.models.sft import Sft, SftConfig, teacher_forced_states
from limner.models.sft_head import FRAME_TYPE, GLOBAL_TYPE, WORD_TYPE, SftHead
from limner.models.sft_network import HierarchicalAttention, SftNetwork, run_bilstm, sinusoidal_encoding
from limner.text.vectors import load_vectors
from limner.text.vocabulary import SPECIALS, Vocabulary
from tests.models.captioners import D, N, V, pick, random_features, small

SIZES: dict[str, Any] = {"hidden": 24, "embed": 6, "width": 16, "heads": 2, "dropout": 0.0}


def captioner(**options: Any) -> Sft:
    torch.manual_seed(0)
    model = Sft(SftConfig(**(SIZES | options)), V, D)
    with torch.no_grad():
        model.head.words.weight.mul_(30)  # so that captions differ
        model.head.embed.weight.mul_(30)
    return model.eval()


def whole(head: SftHead, grid: Tensor, mask: Tensor, vector: Tensor, tokens: Tensor) -> Tensor:
    """Nothing is kept: the prefix language model of one clip over all its positions -> log-probabilities (T, V)."""
    frames = grid[mask]
    n, total = len(frames) + 1, len(frames) + 1 + len(tokens)
    visual = head.read_frames(torch.cat([frames, vector[None]]))
    x = torch.cat([visual, head.read_words(head.embed(tokens))])
    kinds = torch.tensor([FRAME_TYPE] * (n - 1) + [GLOBAL_TYPE] + [WORD_TYPE] * len(tokens))
    x = head.norm(x + head.kinds(kinds) + sinusoidal_encoding(torch.arange(total), x.shape[1]))
    seen = torch.ones(total, total, dtype=torch.bool).tril()
    seen[:n, :n] = True
    for block in head.blocks:
        q, k, v = (
            part(x).unflatten(1, (head.heads, -1)).transpose(0, 1) for part in (block.query, block.key, block.value)
        )
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        x = block.after_attention(x[None], (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)[None])[0]
    return head.words(head.dense_norm(F.gelu(head.dense(x[n:])))).log_softmax(-1)


@pytest.mark.parametrize("side", ["student", "teacher"])
@torch.no_grad()
def test_cached_keys_give_what_recomputing_everything_gives(side: str) -> None:
    model, features = captioner(side=side), random_features()
    found = greedy(model, features, Rules(min_length=0, max_length=9, no_repeat_word=False, allow_unknown=True))
    assert len(set(map(tuple, found.tokens.tolist()))) > 1
    seen, total = model.encode_side(features, side).semantics, torch.zeros(4)
    for row, (grid, mask, vector) in enumerate(zip(features.grid, features.mask, seen.vector, strict=True)):
        tokens = torch.tensor([BOS])
        for word in found.tokens[row].tolist():
            logp = whole(model.head, grid, mask, vector, tokens)[-1]
            assert logp.argmax() == word
            total[row] += logp[word]
            tokens = torch.cat([tokens, torch.tensor([word])])
            if word == EOS:
                break
    torch.testing.assert_close(found.logprob, total, rtol=1e-4, atol=1e-4)


def test_a_beam_keeps_the_words_of_every_hypothesis() -> None:
    """The log-probability of what a beam found is that of reading it from the beginning."""
    model, features = captioner(), random_features()
    found = beam(model, features, Beam(size=3, rules=Rules(max_length=7)))
    tokens = torch.cat([torch.full((4, 1), BOS), found.tokens], 1)
    logp = model(features, tokens).log_softmax(-1)[:, :-1].gather(2, found.tokens[..., None]).squeeze(-1)
    keep = found.tokens != PAD
    torch.testing.assert_close((logp * keep).nan_to_num().sum(1), found.logprob, rtol=1e-4, atol=1e-4)


def test_padding_does_not_shift_positions() -> None:
    """A clip captioned beside a longer one: its positions count its own frames."""
    model, features = captioner(side="teacher"), random_features(ragged=False)
    longer = Features(F.pad(features.grid, (0, 0, 0, 3)), F.pad(features.mask, (0, 3)), Layout(N + 3, 1, 1))
    tokens = torch.tensor([[BOS, 4, 5, 6, EOS]] * 4)
    torch.testing.assert_close(model(longer, tokens), model(features, tokens), rtol=1e-4, atol=1e-5)
    published = captioner(side="teacher", masked=False)
    assert (published(longer, tokens) - published(features, tokens))[:, 0, EOS:].abs().max() > 1e-3


def test_hierarchical_attention_by_hand() -> None:
    """e1[t,j] = Uv v_t + Ua A_j + ba, attended with wa; what has been read, likewise with bv and wv; [v, a2, a1]."""
    torch.manual_seed(0)
    ham = HierarchicalAttention(8, 5).eval()
    with torch.no_grad():
        ham.of_read.normal_()
    actions, frames = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    present, mask = (
        torch.tensor([[True] * 3, [True, True, False]]),
        torch.tensor([[True] * 4, [True, False, True, True]]),
    )
    for row in range(2):
        A, v = actions[row][present[row]], frames[row][mask[row]]
        first = []
        for frame in v:
            e = torch.stack([ham.of_frames(frame) + ham.of_actions(a) for a in A])
            first.append((ham.score_actions(e.tanh()).softmax(0) * e).sum(0))
        second = []
        for frame in v:
            e = torch.stack([ham.of_frames(frame) + a1 + ham.of_read for a1 in first])
            second.append((ham.score_read(e.tanh()).softmax(0) * e).sum(0))
        read = torch.cat([v, torch.stack(second), torch.stack(first)], 1)
        expected = ham.out(ham.lstm(read[None])[0][0].max(0).values)
        torch.testing.assert_close(ham(actions, frames, present, mask)[row], expected, rtol=1e-4, atol=1e-5)


def test_hierarchical_attention_does_not_depend_on_the_order_of_the_actions() -> None:
    torch.manual_seed(0)
    ham, actions, frames = HierarchicalAttention(8, 5), torch.randn(2, 6, 8), torch.randn(2, 4, 8)
    real = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (actions, frames)]
    order = torch.randperm(6)
    torch.testing.assert_close(ham(actions[:, order], frames, *real), ham(actions, frames, *real))
    assert not torch.allclose(ham(actions, frames.flip(1), *real), ham(actions, frames, *real))  # frames have one


def test_the_bilstm_skips_masked_positions() -> None:
    torch.manual_seed(0)
    lstm, x = torch.nn.LSTM(3, 2, batch_first=True, bidirectional=True), torch.randn(3, 5, 3)
    mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]).bool()
    out = run_bilstm(lstm, x, mask)
    for row in range(3):
        torch.testing.assert_close(out[row][mask[row]], lstm(x[row][mask[row]][None])[0][0])
    assert (out[~mask] == 0).all()


def test_sinusoidal_encoding_by_hand() -> None:
    found = sinusoidal_encoding(torch.tensor([[0, 3]]), 4)
    assert found[0, 0].tolist() == [0, 1, 0, 1]
    x = torch.tensor([3.0, 3.0 / 100])
    torch.testing.assert_close(found[0, 1], torch.stack([x[0].sin(), x[0].cos(), x[1].sin(), x[1].cos()]))


def network(module: Any, published: bool, slots: int | None = None) -> SftNetwork:
    torch.manual_seed(0)
    return SftNetwork(D, 16, 24, module, slots, True, published, 2, 0.0).eval()


def test_the_student_uses_objects_as_actions() -> None:
    model, features = captioner(shared="all"), random_features()
    sides = model.encode_both_sides(features)
    student, teacher = sides["student"].semantics, sides["teacher"].semantics
    assert student.action_semantics is student.object_semantics
    assert torch.equal(student.object_semantics, teacher.object_semantics)  # one network
    assert not torch.allclose(student.vector, teacher.vector)
    assert {name for name, _ in captioner(shared="head").named_children()} == {"network", "teacher", "head"}


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("shared", ["all", "head", "nothing"])
def test_encoding_both_sides_equals_encoding_each_alone(shared: str, side: str) -> None:
    model, features = captioner(shared=shared, side=side), random_features()
    tokens = torch.tensor([[BOS, 4, 5, EOS]] * 4)
    one = model.encode_both_sides(features)[side]
    hidden, _ = teacher_forced_states(one.head, one.memory, tokens)
    alone = model.forward_teacher_forced(model.encode(features), tokens)
    torch.testing.assert_close(one.head.words(hidden)[:, :3], alone.logits[:, :3])


def test_only_the_published_teacher_gives_every_slot_the_same_action() -> None:
    """Its slots all get the same query, so its actions are one vector; ours differ.  Both read the whole clip."""
    grid, mask = torch.randn(2, 5, D), torch.ones(2, 5, dtype=torch.bool)
    for published in (True, False):
        net = network("transformer", published)
        actions = net.encode_clip(net.encode_objects(grid, mask), True).actions
        same = torch.allclose(actions, actions[:, :1].expand_as(actions), atol=1e-5)
        assert same == published


@pytest.mark.parametrize("module", ["transformer", "lstm"])
def test_object_slots_attend_to_all_frames(module: str) -> None:
    """A learned question each, attended by torch's own layer over the frames that are real."""
    net = network(module, False, slots=3)
    grid, mask = torch.randn(2, 5, D), torch.tensor([[True] * 5, [True, True, False, True, False]])
    looked, slots = net.encode_objects(grid, mask), net.slots
    assert slots is not None
    oracle = nn.MultiheadAttention(16, 2, batch_first=True)
    parts = (slots.attend.query, slots.attend.key, slots.attend.value)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        oracle.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        oracle.out_proj.load_state_dict(slots.attend.out.state_dict())
    question, frames = slots.question.expand(2, -1, -1), net.frames(grid)
    objects = net.objects(slots.norm(question + oracle(question, frames, frames, key_padding_mask=~mask)[0]))
    torch.testing.assert_close(looked.objects, objects, rtol=1e-4, atol=1e-5)
    seen = net.encode_clip(looked, True)
    torch.testing.assert_close(seen.object_semantics, net.semantics(objects), rtol=1e-4, atol=1e-5)
    assert seen.actions.shape == (2, 3, 16) and seen.present.all()


def test_masked_words_have_no_probability() -> None:
    tokens, features = torch.tensor([[BOS, 4, EOS]] * 4), random_features()
    never = captioner(unknown=False)(features, tokens)[:, 0] == -torch.inf
    assert never.tolist() == [[True, True, False, True, False, False, False, False, False]] * 4


def test_word_vectors_can_be_loaded(tmp_path: Path) -> None:
    """As `embed`, where other captioners have theirs."""
    model, vocabulary = captioner(), Vocabulary((*SPECIALS, "a", "dog", "runs"))
    (tmp_path / "vectors.txt").write_text("dog 1 2 3 4 5 6\n")
    assert load_vectors(tmp_path / "vectors.txt", vocabulary, model.get_submodule("embed")) == 1
    assert model.head.embed(torch.tensor(vocabulary.ids["dog"])).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("name", "value"), [("hidden", 25), ("width", 15)])
def test_widths_must_divide(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.{name} is {value}"):
        captioner(**{name: value})
    with pytest.raises(ValueError, match=r"model\.width is 9.*of 2, the directions"):
        captioner(width=9, heads=3, hidden=24)


def test_the_packed_linear_layer_equals_a_linear_layer() -> None:
    """SmallBatchLinear rows or many, with gradients or without, and after its weights have changed."""
    torch.manual_seed(0)
    layer = SmallBatchLinear(512, MIN_MATRIX_SIZE // 512)
    for rows in (1, 7, MAX_ROWS, MAX_ROWS + 1):
        x = torch.randn(rows, 512)
        for _ in range(2):
            with torch.no_grad():
                torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)
                layer.weight.add_(0.1)
        layer(x).sum().backward()
    assert layer.weight.grad is not None and set(layer.state_dict()) == {"weight", "bias"}
    with torch.no_grad():
        layer(x[:1])
        copied = deepcopy(layer)
        torch.testing.assert_close(copied(x[:1]), layer(x[:1]), rtol=1e-4, atol=1e-5)
        layer.load_state_dict({"weight": torch.zeros_like(layer.weight), "bias": layer.bias})
        assert torch.equal(layer(x[:1])[0], layer.bias)


def test_a_medium_does_not_depend_on_its_batch() -> None:
    model, features = small("sft, teacher with slots"), random_features()
    tokens = torch.tensor([[BOS, 4, 5, EOS]] * 4)
    together = model(features, tokens)
    for row in range(4):
        torch.testing.assert_close(model(pick(features, [row]), tokens[:1])[0], together[row], rtol=1e-3, atol=1e-4)


def test_the_side_can_be_changed_after_training() -> None:
    """The same weights caption on either side."""
    model, features = captioner(shared="all"), random_features()
    tokens = torch.tensor([[BOS, 4, 5, EOS]] * 4)
    student = model(features, tokens)
    model.config = replace(model.config, side="teacher")
    assert not torch.allclose(model(features, tokens)[:, 0, EOS:], student[:, 0, EOS:])
