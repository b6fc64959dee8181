"""`check_captioner`: what every captioner must do; each check is a function (model, features) with assertions."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, UNK, Batch, Features, Layout
from limner.decode.options import Beam
from limner.decode.rules import Rules
from limner.decode.search import beam
from limner.explanations.maps import METHODS
from limner.models import build_model
from limner.models.captioner import Captioner, CaptionerConfig, TeacherForced, map_tensors, not_ended, unroll
from limner.objectives import DEFAULT_OBJECTIVE, Context, build_objective

WORDS, CHANNELS, CELLS = 9, 10, 6  # V (with four special tokens), D, N of the small models and features
TOKENS = torch.tensor(  # four captions: one ends early, one never, one at once, one with the last token
    [
        [BOS, 4, 5, EOS, PAD, PAD],
        [BOS, 6, 7, 8, 4, UNK],
        [BOS, EOS, PAD, PAD, PAD, PAD],
        [BOS, 5, 5, 5, 5, EOS],
    ]
)


def random_features(media: int = 4, seed: int = 1, ragged: bool = True, cells: int = CELLS) -> Features:
    """Return random features of (media, N, D); with `ragged`, media 1 and 2 have only four real cells."""
    grid = torch.randn(media, cells, CHANNELS, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(media, cells, dtype=torch.bool)
    if ragged:
        mask[1:2, 4:] = False
        mask[2:3, 2:4] = False
    return Features(grid, mask, Layout(1, 2, cells // 2))


def small_captioner(config: CaptionerConfig, seed: int = 0, words: int = WORDS) -> Captioner:
    """Build a captioner in evaluation mode with random weights, three times as large as usual.

    With the usual weights all media would get nearly the same caption.
    """
    torch.manual_seed(seed)
    model = build_model(config, words, CHANNELS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):  # a gain of 3 in every layer would multiply rounding errors
                module.weight.div_(3)
    return model.eval()


def check_captioner(config: CaptionerConfig, skip: tuple[str, ...] = ()) -> list[str]:
    """Build small captioners from a registered config and run all checks -> the names of the checks.

    The checks are those of `CHECKS`, and the comparison of a large beam with exhaustive search: choose small sizes.
    `skip` leaves out checks of `CHECKS` by name.
    Raises AssertionError that names the check that failed.

    >>> from limner.models.show_attend_tell import ShowAttendTellConfig
    >>> names = check_captioner(ShowAttendTellConfig(hidden=7, embed=5, attention=4))
    >>> "teacher forcing equals stepping" in names
    True
    """
    names = [name for name in CHECKS if name not in skip]
    for name in names:
        try:
            CHECKS[name](small_captioner(config), random_features())
        except AssertionError as error:
            raise AssertionError(f"{config.name}: {name}: {error}") from error
    exhaustive_search(config)
    return [*names, "a large beam equals exhaustive search"]


def teacher_forcing_equals_stepping(model: Captioner, features: Features) -> None:
    """`forward_teacher_forced` gives the same as repeated calls of `step`, and zeros after the end of a caption."""
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 2, 2]):
        tokens, memory = TOKENS[order], model.encode(_pick(features, order))
        fast, slow = model.forward_teacher_forced(memory, tokens), unroll(model, memory, tokens)
        _close(fast.logits, slow.logits, "logits")
        _close(fast.attention, slow.attention, "attention")
        ended = ~not_ended(tokens)
        assert (fast.logits[ended] == 0).all(), "logits after the end of a caption are not 0"
        assert (fast.attention[ended] == 0).all(), "attention after the end of a caption is not 0"


def gradients_of_both_agree(model: Captioner, features: Features) -> None:
    """Gradients through `forward_teacher_forced` equal those through repeated calls of `step`."""
    gradients = []
    forwards: tuple[Callable[[Any, Tensor], TeacherForced], ...] = (
        model.forward_teacher_forced,
        lambda memory, tokens: unroll(model, memory, tokens),
    )
    for forward in forwards:
        model.zero_grad()
        logits = forward(model.encode(features), TOKENS).logits
        logits.masked_fill(logits.isinf(), 0).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys(), "different parameters get a gradient"
    for name, gradient in gradients[0].items():
        _close(gradient, gradients[1][name], f"the gradient of {name}", rtol=1e-3, atol=1e-4)


def captions_share_a_memory(model: Captioner, features: Features) -> None:
    """K captions per medium that share one row of memory give the same as K copies of the medium."""
    rows = 3
    memory = model.encode(features)
    copied = model.encode(_pick(features, [row for row in range(4) for _ in range(rows)]))
    state, other = _repeat(model.init_state(memory), rows), model.init_state(copied)
    for step in range(3):
        token = torch.arange(4 * rows) % (WORDS - 3) + 3 if step else torch.full((4 * rows,), BOS)
        shared, alone = model.step(token, state, memory), model.step(token, other, copied)
        _close(shared.logits, alone.logits, f"logits of step {step}")
        _close(shared.attention, alone.attention, f"attention of step {step}")
        state, other = shared.state, alone.state
    two = model.forward_teacher_forced(model.encode(_pick(features, [1, 0])), TOKENS)
    four = model.forward_teacher_forced(model.encode(_pick(features, [1, 1, 0, 0])), TOKENS)
    _close(two.logits, four.logits, "teacher-forced logits of two captions per medium")


@torch.no_grad()
def decoding_step_equals_step(model: Captioner, features: Features) -> None:
    """`decoding_step()` gives what `step` gives, for four media and for one, also where rows continue one hypothesis.

    After the weights have changed, a new `decoding_step()` follows them.
    """
    for media in ([0, 1, 2, 3], [0], [2]):
        memory = model.encode(_pick(features, media))
        state = other = _repeat(model.init_state(memory), 3)
        last = torch.arange(3 * len(media))
        for step in range(3):
            token = last % (WORDS - 3) + 3 if step else torch.full_like(last, BOS)
            slow, fast = model.step(token, state, memory), model.decoding_step()(token, other, memory)
            _close(fast.logits, slow.logits, f"logits of step {step} for {len(media)} media")
            _close(fast.attention, slow.attention, f"attention of step {step} for {len(media)} media")
            rows = last - last % 3 + torch.tensor([0, 0, 2]).repeat(len(media))
            state, other = (
                map_tensors(lambda x, rows=rows: x.index_select(0, rows), out.state) for out in (slow, fast)
            )
    for parameter in model.parameters():
        parameter.mul_(0.9)
    state = model.init_state(memory)
    slow, fast = model.step(token[:1], state, memory), model.decoding_step()(token[:1], state, memory)
    _close(fast.logits, slow.logits, "logits after the weights have changed")


def memory_and_state_have_rows(model: Captioner, features: Features) -> None:
    """Every tensor of a memory or state has one row per medium; selected rows are those of the selected media."""
    memory = model.encode(features)
    state = model.init_state(memory)
    for what, tree in (("memory", memory), ("state", state)):
        sizes = [len(tensor) for tensor in _tensors(tree)]
        assert sizes and set(sizes) == {4}, f"tensors of the {what} have {sizes} rows for 4 media"
    out = model.step(torch.full((8,), BOS), _repeat(state, 2), memory)
    sizes = [len(tensor) for tensor in (out.logits, out.attention, *_tensors(out.state))]
    assert set(sizes) == {8}, f"a step of 8 rows returns tensors of {sizes} rows"
    picked = map_tensors(lambda x: x[torch.tensor([2, 0])], memory)
    for a, b in zip(_tensors(picked), _tensors(model.encode(_pick(features, [2, 0]))), strict=True):
        _close(a.float(), b.float(), "a memory of picked rows")


def rows_are_independent(model: Captioner, features: Features) -> None:
    """A medium's logits do not depend on the others in the batch."""
    together = model(features, TOKENS)
    for row in range(4):
        _close(model(_pick(features, [row]), TOKENS[row : row + 1])[0], together[row], f"row {row} alone")


def masked_cells_change_nothing(model: Captioner, features: Features) -> None:
    """The values of cells with mask False have no influence."""
    other = Features(features.grid.masked_fill(~features.mask[..., None], 7.0), features.mask, features.layout)
    _close(model(features, TOKENS), model(other, TOKENS), "logits with other values in masked cells")


def media_without_cells_are_read(model: Captioner, features: Features) -> None:
    """A medium without a real cell gives finite logits and zero attention, and does not change the other media."""
    mask = features.mask.clone()
    mask[0] = False
    forced = model.forward_teacher_forced(model.encode(Features(features.grid, mask, features.layout)), TOKENS)
    assert not forced.logits.isnan().any(), "logits are nan"
    assert (forced.attention[0] == 0).all(), "attention of a medium without cells is not 0"
    _close(forced.logits[1:], model(features, TOKENS)[1:], "logits of the other media")


def attention_is_a_distribution(model: Captioner, features: Features) -> None:
    """Attention is >= 0, sums to 1 over the real cells for every word, and is 0 for masked cells."""
    weights = model.forward_teacher_forced(model.encode(features), TOKENS).attention
    assert tuple(weights.shape) == (*TOKENS.shape, CELLS), f"attention has the shape {tuple(weights.shape)}"
    assert (weights >= 0).all(), "attention is negative"
    _close(weights.sum(-1), not_ended(TOKENS).float(), "sums of attention")
    hidden = ~features.mask[:, None].expand(-1, TOKENS.shape[1], -1)
    assert (weights[hidden] == 0).all(), "attention to masked cells"


def special_tokens_are_masked(model: Captioner, features: Features) -> None:
    """The logits of PAD and BOS are -inf and all others finite, as from `limner.models.layers.WordHead`."""
    logits = model(features, TOKENS)[not_ended(TOKENS)]
    assert (logits[:, [PAD, BOS]] == -torch.inf).all(), "PAD or BOS can be predicted: use WordHead for the last layer"
    assert logits[:, EOS:].isfinite().all(), "scores of words are not finite"


def evaluation_is_deterministic(model: Captioner, features: Features) -> None:
    """In evaluation mode, two calls give equal logits: dropout and noise are off."""
    assert torch.equal(model(features, TOKENS), model(features, TOKENS)), "two calls differ in evaluation mode"


def every_parameter_learns(model: Captioner, features: Features) -> None:
    """Ten steps of cross entropy lower the loss; every parameter has a gradient, and all gradients are finite."""
    objective = build_objective(DEFAULT_OBJECTIVE, Context())
    batch = Batch(("a", "b", "c", "d"), features, TOKENS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = objective(model, batch, 0)
        loss.value.backward()
        losses.append(loss.value.item())
        optimizer.step()
    assert losses[-1] < losses[0], f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f} in ten steps"
    gradients: Mapping[str, Tensor | None] = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    idle = [name for name, gradient in gradients.items() if gradient is None]
    assert model.partial or not idle, f"no gradient for {', '.join(idle)}: use them, or set `partial = True`"
    bad = [name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()]
    assert not bad, f"the gradient of {', '.join(bad)} is not finite"


def explanations_work(model: Captioner, features: Features) -> None:
    """Every explanation method gives one finite map per word for a medium without masked cells."""
    words = torch.tensor([4, 6, 5])
    for name, method in METHODS.items():
        maps = method(model, _pick(features, [3]), words)
        assert len(maps) == len(words), f"{name} has {len(maps)} maps for {len(words)} words"
        assert maps.isfinite().all(), f"{name} is not finite"


def exhaustive_search(config: CaptionerConfig, words: int = 7, length: int = 3) -> None:
    """A beam as large as the number of all captions finds the most probable caption.

    Only the 4 tokens other than PAD, BOS and EOS can be words: there are 1 + 4 + 16 + 64 captions of up to three words.
    """
    model = small_captioner(config, words=words)
    features = random_features(ragged=False)
    rules = Rules(min_length=0, max_length=length + 1, no_repeat_word=False, allow_unknown=True)
    result = beam(model, features, Beam(words**length, rules=rules))
    word_ids = [token for token in range(words) if token not in (PAD, BOS, EOS)]
    captions = [caption for n in range(length + 1) for caption in product(word_ids, repeat=n)]
    for medium in range(len(features)):
        scores = _log_probabilities(model, _pick(features, [medium]), captions, length)
        expected = scores.max().item()
        assert abs(result.logprob[medium].item() - expected) < 1e-3, (
            f"{config.name}: a large beam equals exhaustive search: medium {medium}: the beam's caption has "
            f"log-probability {result.logprob[medium].item():.4f}, the most probable of all {expected:.4f}"
        )


def _log_probabilities(model: Captioner, features: Features, captions: list[tuple[int, ...]], length: int) -> Tensor:
    """Return the log-probability of every caption of one medium, the end token included."""
    rows = [[BOS, *caption, EOS, *[PAD] * (length - len(caption))] for caption in captions]
    tokens = torch.tensor(rows)
    with torch.no_grad():
        logits = model.forward_teacher_forced(model.encode(features), tokens[:, :-1]).logits
    logp = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logp.masked_fill(tokens[:, 1:] == PAD, 0.0).sum(1)


CHECKS: dict[str, Callable[[Captioner, Features], None]] = {
    "teacher forcing equals stepping": teacher_forcing_equals_stepping,
    "gradients of teacher forcing and stepping agree": gradients_of_both_agree,
    "captions of a medium share its memory": captions_share_a_memory,
    "the decoding step equals step": decoding_step_equals_step,
    "memory and state have a row per medium": memory_and_state_have_rows,
    "rows of a batch are independent": rows_are_independent,
    "masked cells change nothing": masked_cells_change_nothing,
    "media without cells are read": media_without_cells_are_read,
    "attention is a distribution over the real cells": attention_is_a_distribution,
    "PAD and BOS are never predicted": special_tokens_are_masked,
    "evaluation mode is deterministic": evaluation_is_deterministic,
    "every parameter learns": every_parameter_learns,
    "every method explains": explanations_work,
}


def _close(a: Tensor, b: Tensor, what: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    try:
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error


def _pick(features: Features, rows: list[int]) -> Features:
    return features.map(lambda x: x[rows])


def _repeat(tree: Any, count: int) -> Any:
    return map_tensors(lambda x: x.repeat_interleave(count, 0), tree)


def _tensors(tree: Any) -> list[Tensor]:
    tensors: list[Tensor] = []
    map_tensors(lambda x: tensors.append(x) or x, tree)  # type: ignore[func-returns-value]
    return tensors
