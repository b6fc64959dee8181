"""Constrained beam search: captions that contain given words (Anderson et al. 2017, arXiv:1612.00576).

With n required words there are 2^n beams of `size` hypotheses, one for every subset of the words: the beam of a subset
holds the hypotheses that contain exactly these required words.  A hypothesis that adds a required word competes in the
beam of the larger subset.  A caption may end only in the beam of the full set.

A required word may have alternatives, "orange|white": it is held once the caption contains one of them.  An alternative
of several required words makes all of them held.

Example with two required words, "dog" (bit 0) and "red" (bit 1), and size 1:

    subset  binary  its hypothesis after two words
    0       00      "a cat"
    1       01      "a dog"        from subset 0 by "dog"
    2       10      "a red"        from subset 0 by "red"
    3       11      empty          "a red dog" arrives here at word 3, from subset 2 by "dog"
"""

import torch
from torch import Tensor

from limner.core.types import EOS, Captions
from limner.decode.ensemble import Inputs
from limner.decode.hypotheses import FixedWidthBeam
from limner.decode.options import Beam
from limner.decode.required_words import required_ids
from limner.models.captioner import Captioner


@torch.no_grad()
def constrained_beam(model: Captioner, inputs: Inputs, options: Beam) -> Captions:
    """Search for the best captions that contain all of `options.must` -> B * n_best rows.

    Where no such caption has ended in time, the result is the likeliest unfinished caption that contains as many of
    the words as possible.
    """
    must = required_ids(options.must)
    S, K, B, device = 1 << len(must), options.size, len(inputs), inputs.device
    search = FixedWidthBeam(model, inputs, options, S * K, [0])
    full_set = torch.arange(S * K, device=device) >= (S - 1) * K  # the slots of the beam that may end
    open_slots = torch.full((B, 1), K, device=device)
    for _ in range(options.rules.max_length):
        scores = search.score_next_words()
        scores[:, ~full_set, EOS] = -torch.inf
        parents, words, totals = [], [], []
        for subset in range(S):
            parent, word, total = _best_of_subset(scores, subset, must, K)
            parents.append(parent)
            words.append(word)
            totals.append(total)
        rank = torch.arange(K, device=device)
        totals[-1] = totals[-1].masked_fill(rank >= open_slots, -torch.inf)
        search.extend(torch.cat(parents, 1), torch.cat(words, 1), torch.cat(totals, 1))
        open_slots = open_slots - search.collect_ended(full_set.expand_as(search.total)).sum(1, keepdim=True)
        search.total = search.total.masked_fill(open_slots == 0, -torch.inf)  # K captions have ended: stop this medium
        if not search.total.isfinite().any():
            break
    slots = torch.arange(S * K)
    held = torch.tensor([subset.bit_count() for subset in range(S)]).repeat_interleave(K)  # required words per slot
    return search.finish([slots[held == words] for words in range(len(must), -1, -1)])


def _best_of_subset(scores: Tensor, subset: int, must: list[tuple[int, ...]], K: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K best hypotheses that contain exactly the required words in `subset`, a bit for each word.

    `scores` (B, S * K, V) are the log-probabilities of every hypothesis with one more word.  Candidates are the
    hypotheses of this subset with a word that adds none, and those of smaller subsets with a word that adds the rest.
    -> parent slots, words and totals, (B, K) each.
    """
    V = scores.shape[-1]
    bits: dict[int, int] = {}  # word -> the required words that it makes held
    for bit, alternatives in enumerate(must):
        for word in alternatives:
            bits[word] = bits.get(word, 0) | 1 << bit
    stay = scores[:, subset * K : (subset + 1) * K].clone()
    stay[..., [word for word, adds in bits.items() if adds & ~subset]] = -torch.inf
    pool = [stay.flatten(1)]
    origin = [torch.arange(subset * K, (subset + 1) * K).repeat_interleave(V)]
    added = [torch.arange(V).repeat(K)]
    for word, adds in bits.items():
        for before in range(subset):
            if before | adds == subset:
                pool.append(scores[:, before * K : (before + 1) * K, word])
                origin.append(torch.arange(before * K, (before + 1) * K))
                added.append(torch.full((K,), word))
    total, best = torch.cat(pool, 1).topk(K)
    return torch.cat(origin).to(best)[best], torch.cat(added).to(best)[best], total
