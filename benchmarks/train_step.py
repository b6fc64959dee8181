"""A training step of Show, Attend and Tell against one that projects the cells again at every word; CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py --rounds 5

Published size (hidden = embed = attention = 512, raw cells), 32 pictures of 49 x 1280 cells, 2,550 words, captions of
6 to 25 words (mean 12).  A step is forward, cross entropy with the doubly stochastic term, backward, clipping and Adam.
`plain` runs every caption to the end of the longest and the word head at every word; with `shrink` it stops those that
have ended, as the public code does.  Loss and gradients are checked to be equal before anything is timed.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from limits import counted
from limner.core.types import BOS, EOS, PAD, Batch, Features, Layout
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.objectives.cross_entropy import CrossEntropy
from paired import PUBLISHED, arguments, report, take_turns

PICTURES, CELLS, CHANNELS, VOCABULARY = 32, 49, 1280, 2550


def make_batch(seed: int = 0) -> Batch:
    """Cells, and random words in captions as long as people's: 6 to 25, mean 12."""
    draw = torch.Generator().manual_seed(seed)
    grid = torch.randn(PICTURES, CELLS, CHANNELS, generator=draw).relu()
    lengths = (6 + torch.empty(PICTURES).exponential_(1 / 7, generator=draw)).round().long().clamp(max=25)
    lengths[:2] = torch.tensor([6, 25])
    tokens = torch.full((PICTURES, 27), PAD)
    tokens[:, 0] = BOS
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        row[1 : 1 + length] = torch.randint(4, VOCABULARY, (length,), generator=draw)
        row[1 + length] = EOS
    mask = torch.ones(PICTURES, CELLS, dtype=torch.bool)
    return Batch(tuple(map(str, range(PICTURES))), Features(grid, mask, Layout(1, 7, 7)), tokens)


def limner(model: ShowAttendTell, batch: Batch) -> Tensor:
    return CrossEntropy(doubly_stochastic=1.0)(model, batch).value


def plain(model: ShowAttendTell, batch: Batch, shrink: bool = False) -> Tensor:
    assert isinstance(batch.inputs, Features)
    lengths, order = (batch.tokens != PAD).sum(1).sub(1).sort(descending=True)  # words to predict, EOS included
    cells, tokens = batch.inputs.grid[order], batch.tokens[order]
    h, c = model.init_h(cells.mean(1)), model.init_c(cells.mean(1))
    embedded = model.embed(tokens)
    steps = int(lengths.max())
    predictions = cells.new_zeros(len(cells), steps, VOCABULARY)
    alphas = cells.new_zeros(len(cells), steps, CELLS)
    for t in range(steps):
        n = int((lengths > t).sum()) if shrink else len(cells)
        h, c = h[:n], c[:n]
        hidden = torch.relu(model.attend.key(cells[:n]) + model.attend.query(h).unsqueeze(1))
        alpha = model.attend.score(hidden).squeeze(2).softmax(1)
        context = torch.sigmoid(model.gate(h)) * (cells[:n] * alpha.unsqueeze(2)).sum(1)
        h, c = model.lstm(torch.cat([embedded[:n, t], context], 1), (h, c))
        predictions[:n, t] = model.head(model.dropout(h))
        alphas[:n, t] = alpha
    running = torch.arange(steps) < lengths.unsqueeze(1)
    scores = pack_padded_sequence(predictions, lengths, batch_first=True).data
    targets = pack_padded_sequence(tokens[:, 1:], lengths, batch_first=True).data
    penalty = (1 - (alphas * running.unsqueeze(2)).sum(1)).square().mean()
    return torch.nn.functional.cross_entropy(scores, targets) + penalty


def shrinking(model: ShowAttendTell, batch: Batch) -> Tensor:
    return plain(model, batch, shrink=True)


def train_step(loss: Callable[[ShowAttendTell, Batch], Tensor], batch: Batch) -> Callable[[], None]:
    """One optimiser step on a model of its own, seeded alike for everyone."""
    torch.manual_seed(0)
    model = ShowAttendTell(ShowAttendTellConfig(dropout=0.0), VOCABULARY, CHANNELS)
    optimizer = torch.optim.Adam(model.parameters(), 4e-4)

    def step() -> None:
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gradients(loss: Callable[[ShowAttendTell, Batch], Tensor], batch: Batch) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = ShowAttendTell(ShowAttendTellConfig(dropout=0.0), VOCABULARY, CHANNELS)
    value = loss(model, batch)
    value.backward()
    return value.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    batch = make_batch()
    words = (batch.tokens > EOS).sum(1)
    print(f"{PICTURES} captions of {words.min()} to {words.max()} words, mean {words.float().mean():.1f}")
    value, wanted = gradients(plain, batch)
    for loss in (limner, shrinking):
        other, found = gradients(loss, batch)
        gap = max(
            float((found[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-3)) for name, grad in wanted.items()
        )
        print(f"{loss.__name__}: loss {other:.6f} (plain {value:.6f}), largest relative gap of a gradient {gap:.1e}")
        if found.keys() != wanted.keys() or abs(other - value) > 1e-4 or gap > 1e-3:
            return 1
    variants = {
        "limner": train_step(limner, batch),
        "plain, every row at every word": train_step(plain, batch),
        "plain, rows that have ended stop": train_step(shrinking, batch),
    }
    _, work = counted(variants)  # this allocates Adam's moments, too
    report(
        take_turns(variants, rounds),
        {"plain, every row at every word": 1.5},
        paired_with=f"{PUBLISHED} where rows that have ended stop, and a loop of our own where none does",
        work=work,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
