"""SA-LSTM at its published size against the published way of working: beam search and a training step; CPU time.

    OMP_NUM_THREADS=1 python benchmarks/sa_lstm.py --rounds 3

Hidden 512, embedding 468, attention 256, videos of 28 x 2048 frame vectors, 10,000 words, captions of up to 30.

Beam 5 over 64 videos: `published_batch` works as the public code (hobincar/SA-LSTM and those that follow it): all
videos in one batch, one hypothesis after the other, frames projected at every word, 31 steps always, also for
hypotheses that have ended, all scores sorted, and the words in Python's lists.  The `loop` beside it, which is our own,
goes through one video after the other.  Once all captions have 30 words, once they end sooner or later.  Random weights
do not end captions as a trained net would, so `crafted` sets a few by hand.

Training step of 32 pairs: `published` runs 31 steps for every row and projects the frames at each.  Loss and gradients
are checked to be equal before anything is timed; so are the captions.
"""

import sys
from collections.abc import Callable
from math import tanh
from statistics import mean

import torch
from torch import Tensor, nn

from limits import counted
from limner.core.types import BOS, EOS, PAD, UNK, Batch, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.sa_lstm import SaLstm, SaLstmConfig
from limner.objectives import CrossEntropy
from paired import PUBLISHED, arguments, report, take_turns

VIDEOS, FRAMES, CHANNELS, VOCABULARY, BEAMS, WORDS = 64, 28, 2048, 10_000, 5, 30
PAIRS = 32


def crafted(full: bool, seed: int = 0) -> SaLstm:
    """A net whose next words are as peaked as a trained net's, and whose captions have realistic, different lengths,
    or with `full` all 30 words.

    Unit 0 of the LSTM counts words, faster or slower depending on what it reads (not so with `full`); the score of EOS
    follows it.
    """
    torch.manual_seed(seed)
    model = SaLstm(SaLstmConfig(dropout=0.0, mask_special_tokens=False), VOCABULARY, CHANNELS).eval()
    H = model.config.hidden
    own = [0, H, 2 * H, 3 * H]  # rows of unit 0: input gate, forget gate, candidate, output gate
    with torch.no_grad():
        model.embed.weight *= 10
        model.head.weight *= 14
        for linear in (model.read_word, model.read_context, model.carry[0]):
            linear.weight[own] = 0
        model.read_word.bias[own] = torch.tensor([20.0, 20.0, 0.03 if full else 0.1, 20.0])
        model.carry[0].bias[own] = 0
        model.head.weight[:, 0] = 0
        model.head.weight[EOS] /= 2
        if full:  # EOS scores below -20 until the count stands at 31
            model.head.weight[EOS, 0], model.head.bias[EOS] = 4000.0, -4000.0 * tanh(30.5 * tanh(0.03))
        else:
            model.read_word.weight[2 * H].normal_(0, 0.003)
            model.read_context.weight[2 * H].normal_(0, 0.0005)
            model.head.weight[EOS, 0], model.head.bias[EOS] = 60.0, -25.0
        model.head.bias[[PAD, BOS, UNK]] = -torch.inf
    return model


def videos(seed: int = 1) -> Features:
    """Frame vectors as a rectified CNN leaves them, around a mean per video."""
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(VIDEOS, 1, CHANNELS, generator=draw)
    grid = (own + 0.5 * torch.randn(VIDEOS, FRAMES, CHANNELS, generator=draw)).relu()
    return Features(grid, torch.ones(VIDEOS, FRAMES, dtype=torch.bool), Layout(FRAMES, 1, 1))


class Published(nn.Module):
    """The same weights in torch's own layers, and a step that projects the frames anew."""

    def __init__(self, model: SaLstm):
        super().__init__()
        self.model = model
        self.cell = nn.LSTMCell(model.config.embed + CHANNELS, model.config.hidden)
        self.cell.weight_ih = nn.Parameter(torch.cat([model.read_word.weight, model.read_context.weight], 1).detach())
        self.cell.weight_hh, self.cell.bias_hh = model.carry[0].weight, model.carry[0].bias
        self.cell.bias_ih = model.read_word.bias

    def step(self, token: Tensor, h: Tensor, c: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attend = self.model.attend
        energy = attend.score(torch.tanh(attend.query(h)[:, None] + attend.key(frames)))
        context = (energy.softmax(1) * frames).sum(1)
        h, c = self.cell(torch.cat([self.model.embed(token), context], 1), (h, c))
        return nn.functional.linear(h, self.model.head.weight, self.model.head.bias).log_softmax(1), h, c


@torch.no_grad()
def loop_beam(net: Published, frames: Tensor) -> tuple[list[int], float]:
    """Frames (28, 2048) of one video -> the words, EOS included, and their log-probability."""
    zero = torch.zeros(1, net.model.config.hidden)
    hypotheses: list[tuple[list[int], Tensor, Tensor, Tensor]] = [([], torch.zeros(()), zero, zero)]
    for _ in range(WORDS + 1):
        scores, states = [], []
        for tokens, total, h, c in hypotheses:
            previous = torch.tensor([tokens[-1] if tokens else BOS])
            logp, *state = net.step(previous, h, c, frames[None])
            over = EOS in tokens
            scores.append(total + (torch.zeros_like(logp) if over else logp))  # ended: every word at no cost
            states.append(state)
        best, places = torch.cat(scores, 1)[0].topk(BEAMS)
        following = []
        for k in range(BEAMS):
            parent, word = divmod(places[k].item(), VOCABULARY)
            following.append(([*hypotheses[int(parent)][0], int(word)], best[k], *states[int(parent)]))
        hypotheses = following
    tokens, total, _, _ = hypotheses[0]
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens, total.item()


@torch.no_grad()
def published_batch(net: Published, frames: Tensor) -> list[tuple[list[int], float]]:
    """Frames (64, 28, 2048) -> as `loop_beam`, for every video."""
    videos = len(frames)
    zero = frames.new_zeros(videos, net.model.config.hidden)
    words: list[list[list[int]]] = [[[]] for _ in range(videos)]
    beams = [(torch.full((videos,), BOS), zero, zero, zero[:, 0])]  # for each hypothesis: last words, h, c, scores
    for _ in range(WORDS + 1):
        scores, states = [], []
        for k, (token, h, c, total) in enumerate(beams):
            logp, *state = net.step(token, h, c, frames)
            over = torch.tensor([EOS in each[k] for each in words])
            scores.append(total[:, None] + logp.masked_fill(over[:, None], 0.0))  # ended: every word at no cost
            states.append(state)
        every = torch.cat(scores, 1)
        best = every.argsort(1, descending=True)[:, :BEAMS]
        totals, parents, tokens = every.gather(1, best), best // VOCABULARY, best % VOCABULARY
        h, c = (torch.stack(each, 1) for each in zip(*states, strict=True))  # (B, K, H)
        row = torch.arange(videos)
        beams = [
            (tokens[:, k], h[row, parents[:, k]], c[row, parents[:, k]], totals[:, k]) for k in range(best.shape[1])
        ]
        words = [
            [[*each[parent], word] for parent, word in zip(*pair, strict=True)]
            for each, *pair in zip(words, parents.tolist(), tokens.tolist(), strict=True)
        ]
    found = [each[0] for each in words]
    found = [each[: each.index(EOS) + 1] if EOS in each else each for each in found]
    return list(zip(found, beams[0][3].tolist(), strict=True))


def compare_beams(rounds: int, full: bool) -> bool:
    model, features = crafted(full), videos()
    net = Published(model)
    options = Beam(BEAMS, rules=Rules(min_length=0, max_length=WORDS + 1, no_repeat_word=False, allow_unknown=True))
    fast_name, batch_name, loop_name = "limner.beam, batch of 64", "published batch", "loop, one hypothesis at a time"
    variants = {
        fast_name: lambda: beam(model, features, options),
        batch_name: lambda: published_batch(net, features.grid),
        loop_name: lambda: [loop_beam(net, frames) for frames in features.grid],
    }
    results, work = counted(variants)
    fast, slow = results[fast_name], results[batch_name]
    lengths = [len(tokens) for tokens, _ in slow]
    different = len({tuple(tokens) for tokens, _ in slow})
    print(
        f"{VIDEOS} captions of {min(lengths)} to {max(lengths)} tokens, EOS included (mean {mean(lengths):.1f}), "
        f"{different} different, {sum(tokens[-1] != EOS for tokens, _ in slow)} unfinished; log p per token "
        f"{sum(total for _, total in slow) / sum(lengths):.2f}"
    )
    ours = [[token for token in row if token != PAD] for row in fast.tokens.tolist()]
    unequal = sum(a != b or a != c for a, (b, _), (c, _) in zip(ours, slow, results[loop_name], strict=True))
    gap = max(abs(a - b) for a, (_, b) in zip(fast.logprob.tolist(), slow, strict=True))
    print(f"unequal captions: {unequal}; largest difference of log-probability {gap:.1e}")
    if unequal or gap > 1e-3:
        return False
    report(
        take_turns(variants, rounds),
        {},
        paired_with=f"{PUBLISHED}, all videos in one batch, and a loop of our own over videos",
        work=work,
    )
    return True


def make_batch(seed: int = 0) -> Batch:
    """Random words in captions as long as people's: 4 to 30, mean about 10."""
    draw = torch.Generator().manual_seed(seed)
    grid = torch.randn(PAIRS, FRAMES, CHANNELS, generator=draw).relu()
    lengths = (4 + torch.empty(PAIRS).exponential_(1 / 6, generator=draw)).round().long().clamp(max=WORDS)
    lengths[:2] = torch.tensor([4, WORDS])
    tokens = torch.full((PAIRS, WORDS + 2), PAD)
    tokens[:, 0] = BOS
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        row[1 : 1 + length] = torch.randint(4, VOCABULARY, (length,), generator=draw)
        row[1 + length] = EOS
    mask = torch.ones(PAIRS, FRAMES, dtype=torch.bool)
    return Batch(tuple(map(str, range(PAIRS))), Features(grid, mask, Layout(FRAMES, 1, 1)), tokens)


def limner(model: SaLstm, batch: Batch) -> Tensor:
    return CrossEntropy()(model, batch).value


def published(model: SaLstm, batch: Batch) -> Tensor:
    assert isinstance(batch.inputs, Features)
    frames, tokens = batch.inputs.grid, batch.tokens
    h = c = frames.new_zeros(PAIRS, model.config.hidden)
    predictions = []
    weight = torch.cat([model.read_word.weight, model.read_context.weight], 1)
    for t in range(WORDS + 1):
        energy = model.attend.score(torch.tanh(model.attend.query(h)[:, None] + model.attend.key(frames)))
        context = (energy.softmax(1) * frames).sum(1)
        gates = nn.functional.linear(torch.cat([model.embed(tokens[:, t]), context], 1), weight, model.read_word.bias)
        i, f, g, o = (gates + model.carry[0](h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        predictions.append(nn.functional.linear(h, model.head.weight, model.head.bias).log_softmax(1))
    return nn.functional.nll_loss(torch.stack(predictions, 2), tokens[:, 1:], ignore_index=PAD)


def fresh() -> SaLstm:
    torch.manual_seed(0)
    return SaLstm(SaLstmConfig(dropout=0.0, mask_special_tokens=False), VOCABULARY, CHANNELS)


def train_step(loss: Callable[[SaLstm, Batch], Tensor], batch: Batch) -> Callable[[], None]:
    """One optimiser step on a model of its own, seeded alike for everyone."""
    model = fresh()
    optimizer = torch.optim.Adam(model.parameters(), 2e-4, weight_decay=1e-5, amsgrad=True)

    def step() -> None:
        loss(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gradients(loss: Callable[[SaLstm, Batch], Tensor], batch: Batch) -> tuple[float, dict[str, Tensor]]:
    model = fresh()
    value = loss(model, batch)
    value.backward()
    return value.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def compare_steps(rounds: int) -> bool:
    batch = make_batch()
    words = (batch.tokens > EOS).sum(1)
    print(f"{PAIRS} captions of {words.min()} to {words.max()} words, mean {words.float().mean():.1f}")
    value, wanted = gradients(published, batch)
    other, found = gradients(limner, batch)
    gap = max(
        float((found[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-3)) for name, grad in wanted.items()
    )
    print(f"loss {other:.6f} (published {value:.6f}), largest relative gap of a gradient {gap:.1e}")
    if found.keys() != wanted.keys() or abs(other - value) > 1e-4 or gap > 1e-3:
        return False
    variants = {
        "limner, training step": train_step(limner, batch),
        "published, 31 steps of every row": train_step(published, batch),
    }
    _, work = counted(variants)  # this allocates the moments, too
    report(
        take_turns(variants, rounds),
        {"published, 31 steps of every row": 2},
        paired_with=f"{PUBLISHED}, in batches",
        work=work,
    )
    return True


def main() -> int:
    rounds = arguments(__doc__, rounds=3).rounds
    equal = [compare_steps(3 * rounds), compare_beams(rounds, full=True), compare_beams(rounds, full=False)]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
