"""Beam search over a batch against the published loop, one picture at a time; equal captions, CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/beam_search.py --rounds 5

Show, Attend and Tell at its published size (hidden = embed = attention = 512, raw cells), beam 5, 64 pictures of
49 x 1280 cells, 2,550 words.  `published` is the public code's caption.py written plainly: the cells of one picture
expanded to k rows and projected again at every word, lists of finished hypotheses, a beam that shrinks until all have
ended.  It is also the slow twin of `limner.decode.search.beam`.

Random weights never end a caption in a way that a trained net would, so `crafted` sets a few by hand (see there).
"""

import sys
from statistics import mean

import torch
from torch import Tensor

from limits import counted
from limner.core.types import BOS, EOS, PAD, UNK, Captions, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from paired import PUBLISHED, arguments, report, take_turns

PICTURES, CELLS, CHANNELS, VOCABULARY, BEAMS, LONGEST = 64, 49, 1280, 2550, 5, 50
PUBLISHED_RULES = Rules(min_length=0, max_length=LONGEST, no_repeat_word=False, allow_unknown=True)  # that is, none


def crafted(seed: int = 0) -> ShowAttendTell:
    """A net whose captions have realistic, different lengths, although nobody trained it.

    Unit 0 of the LSTM counts: its cell starts below 0, depending on the picture, and gains 0.1 per word, more or less
    depending on the word; the score of EOS follows it.  Larger embeddings and head make next-word distributions as
    peaked as a trained net's.  The numbers were chosen to resemble limner's net on Flickr8k (9 epochs, 64 test
    images): 9.9 tokens per caption, 4 to 21, log p per token -1.0, and the published loop goes on for 4 words after
    its first caption has ended.
    """
    torch.manual_seed(seed)
    model = ShowAttendTell(ShowAttendTellConfig(dropout=0.0), VOCABULARY, CHANNELS).eval()
    H = model.config.hidden
    with torch.no_grad():
        model.embed.weight *= 10
        model.head.weight *= 20
        model.init_c.weight[0] *= 0.35
        model.init_c.bias[0] = -0.5
        own = [0, H, 2 * H, 3 * H]  # rows of unit 0: input gate, forget gate, candidate, output gate
        for matrix in (model.lstm.weight_ih, model.lstm.weight_hh):
            matrix[own] = 0
        model.lstm.weight_ih[2 * H, : model.config.embed].normal_(0, 0.003)
        model.lstm.bias_ih[own] = torch.tensor([20.0, 20.0, 0.1, 20.0])
        model.lstm.bias_hh[own] = 0
        model.head.weight[:, 0] = 0
        model.head.weight[EOS] /= 2
        model.head.weight[EOS, 0] = 22.0
        model.head.bias[EOS] = 2.0
        model.head.bias[[PAD, BOS, UNK]] = -torch.inf
    return model


def pictures(seed: int = 1) -> Features:
    """Cells as a rectified CNN leaves them, around a mean per picture."""
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(PICTURES, 1, CHANNELS, generator=draw)
    grid = (own + torch.randn(PICTURES, CELLS, CHANNELS, generator=draw)).relu()
    return Features(grid, torch.ones(PICTURES, CELLS, dtype=torch.bool), Layout(1, 7, 7))


@torch.no_grad()
def published(model: ShowAttendTell, cells: Tensor) -> tuple[list[int], float, Tensor]:
    """Cells (N, D) of one picture -> the words after BOS, EOS included, their log-probability and attention (L, N)."""
    k = BEAMS
    mean_cell = cells.mean(0, keepdim=True)
    h, c = model.init_h(mean_cell).expand(k, -1), model.init_c(mean_cell).expand(k, -1)
    values = cells.expand(k, *cells.shape)  # (k, N, D)
    previous = torch.full((k,), BOS)
    top_scores = torch.zeros(k, 1)
    sequences, maps = torch.full((k, 1), BOS), torch.ones(k, 1, len(cells))
    complete: list[list[int]] = []
    complete_maps: list[Tensor] = []
    complete_scores: list[float] = []
    for step in range(LONGEST):
        embedded = model.embed(previous)
        scores = model.attend.score(torch.relu(model.attend.key(values) + model.attend.query(h).unsqueeze(1)))
        alpha = scores.squeeze(2).softmax(1)
        context = (values * alpha.unsqueeze(2)).sum(1)
        context = torch.sigmoid(model.gate(h)) * context
        h, c = model.lstm(torch.cat([embedded, context], 1), (h, c))
        logp = torch.nn.functional.linear(h, model.head.weight, model.head.bias).log_softmax(1)
        logp = top_scores.expand_as(logp) + logp
        top_scores, top_words = logp[0].topk(k) if step == 0 else logp.view(-1).topk(k)
        parents = torch.div(top_words, VOCABULARY, rounding_mode="floor")
        words = top_words % VOCABULARY
        sequences = torch.cat([sequences[parents], words.unsqueeze(1)], 1)
        maps = torch.cat([maps[parents], alpha[parents].unsqueeze(1)], 1)
        incomplete = [i for i, word in enumerate(words.tolist()) if word != EOS]
        ended = sorted(set(range(k)) - set(incomplete))
        if ended:
            complete.extend(sequences[ended].tolist())
            complete_maps.extend(maps[ended])
            complete_scores.extend(top_scores[ended].tolist())
        k -= len(ended)
        if k == 0:
            break
        sequences, maps, top_scores = sequences[incomplete], maps[incomplete], top_scores[incomplete].unsqueeze(1)
        rows = parents[incomplete]
        h, c, values, previous = h[rows], c[rows], values[rows], words[incomplete]
    if not complete:  # where the public code crashes
        complete, complete_maps, complete_scores = sequences.tolist(), list(maps), top_scores.flatten().tolist()
    best = complete_scores.index(max(complete_scores))
    return complete[best][1:], complete_scores[best], complete_maps[best][1:]


def words_of(captions: Captions) -> list[list[int]]:
    return [[word for word in row if word != PAD] for row in captions.tokens.tolist()]


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    model, features = crafted(), pictures()
    options = Beam(BEAMS, rules=PUBLISHED_RULES)
    name, other = "limner.beam, batch of 64", "published loop, one picture at a time"
    variants = {
        name: lambda: beam(model, features, options),
        other: lambda: [published(model, cells) for cells in features.grid],
    }
    results, work = counted(variants)
    fast, slow = results[name], results[other]
    lengths = [len(words) for words, _, _ in slow]
    print(
        f"{PICTURES} captions of {min(lengths)} to {max(lengths)} tokens, EOS included (mean {mean(lengths):.1f}), "
        f"{len({tuple(words) for words, _, _ in slow})} different, "
        f"{sum(words[-1] != EOS for words, _, _ in slow)} unfinished"
    )
    unequal = sum(a != b for a, (b, _, _) in zip(words_of(fast), slow, strict=True))
    gap = max(abs(a - b) for a, (_, b, _) in zip(fast.logprob.tolist(), slow, strict=True))
    maps = max(float((a[: len(b)] - b).abs().max()) for a, (_, _, b) in zip(fast.attention, slow, strict=True))
    print(f"unequal captions: {unequal}; largest difference of log-probability {gap:.1e}, of attention {maps:.1e}")
    if unequal or gap > 1e-3 or maps > 1e-4:
        return 1
    report(
        take_turns(variants, rounds),
        {other: 10},
        paired_with=f"{PUBLISHED}: the public code has no other batching",
        work=work,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
