"""Diverse beam search (Vijayakumar et al. 2018, arXiv:1610.02424), Hamming diversity: groups that avoid each other.

At every word the groups choose one after the other.  A group prefers a word less, by `diversity` each time, that
hypotheses of earlier groups have chosen for the same place (eq. 6 with section 4's "Hamming diversity"); what is
compared between words of one step only, so that a caption's log-probability stays the model's own.
"""

import torch

from limner.core.types import Captions
from limner.decode.ensemble import Inputs
from limner.decode.hypotheses import FixedWidthBeam
from limner.decode.options import Beam
from limner.models.captioner import Captioner


@torch.no_grad()
def diverse_beam(model: Captioner, inputs: Inputs, options: Beam) -> Captions:
    """`options.groups` beams of size / groups hypotheses, each of which shrinks as a beam does.  The `n_best` best
    of all groups are returned, doubles only once."""
    G, K = options.groups, options.size // options.groups
    search = FixedWidthBeam(model, inputs, options, G * K, [g * K for g in range(G)])
    B, device = len(inputs), inputs.device
    slots = torch.full((B, G), K, device=device)  # hypotheses of a group that may still end
    for _ in range(options.rules.max_length):
        scores = search.score_next_words()
        V = scores.shape[-1]
        chosen = torch.zeros(B, V, device=device)
        parents, words, totals = [], [], []
        for g in range(G):
            own = scores[:, g * K : (g + 1) * K]
            liked, best = (own - options.diversity * chosen[:, None]).flatten(1).topk(min(K, K * V))
            usable = liked.isfinite() & (torch.arange(K, device=device) < slots[:, g, None])
            word = best % V
            chosen.scatter_add_(1, word, usable.float())
            parents.append(g * K + best // V)
            words.append(word)
            totals.append(own.flatten(1).gather(1, best).masked_fill(~usable, -torch.inf))
        search.extend(torch.cat(parents, 1), torch.cat(words, 1), torch.cat(totals, 1))
        ended = search.collect_ended(torch.ones_like(search.total, dtype=torch.bool))
        slots = slots - ended.view(B, G, K).sum(2)
        if not search.total.isfinite().any():
            break
    return search.finish([torch.arange(G * K)])
