"""Diverse beam search with Hamming diversity: groups that avoid each other's words (Vijayakumar et al. 2018).

arXiv:1610.02424, eq. 6 with the "Hamming diversity" of section 4.  At every word the groups choose one after the other.
For a later group a word's score falls by `diversity` for each time that hypotheses of earlier groups have chosen it at
this step.  The penalty only ranks the words of one step: a caption's log-probability stays the model's own.

Example with 2 groups of 1 hypothesis and `diversity` 0.5, log-probabilities of the next word dog -1.0, cat -1.2:

    group 1 chooses dog (-1.0).
    group 2 compares dog -1.0 - 0.5 = -1.5 with cat -1.2 and chooses cat; its total is the model's -1.2.
"""

import torch

from limner.core.types import Captions
from limner.decode.ensemble import Inputs
from limner.decode.hypotheses import FixedWidthBeam
from limner.decode.options import Beam
from limner.models.captioner import Captioner


@torch.no_grad()
def diverse_beam(model: Captioner, inputs: Inputs, options: Beam) -> Captions:
    """Search with `options.groups` beams of size / groups hypotheses -> B * n_best rows.

    Each group shrinks by one hypothesis when one ends.  The `n_best` best captions of all groups are returned; a
    caption that several groups have found counts once.
    """
    G, K = options.groups, options.size // options.groups
    search = FixedWidthBeam(model, inputs, options, G * K, [g * K for g in range(G)])
    B, device = len(inputs), inputs.device
    open_slots = torch.full((B, G), K, device=device)  # hypotheses of a group that may still end
    for _ in range(options.rules.max_length):
        scores = search.score_next_words()
        V = scores.shape[-1]
        chosen = torch.zeros(B, V, device=device)  # how often earlier groups have chosen each word at this step
        parents, words, totals = [], [], []
        for g in range(G):
            own = scores[:, g * K : (g + 1) * K]
            penalised, best = (own - options.diversity * chosen[:, None]).flatten(1).topk(min(K, K * V))
            usable = penalised.isfinite() & (torch.arange(K, device=device) < open_slots[:, g, None])
            word = best % V
            chosen.scatter_add_(1, word, usable.float())
            parents.append(g * K + best // V)
            words.append(word)
            totals.append(own.flatten(1).gather(1, best).masked_fill(~usable, -torch.inf))
        search.extend(torch.cat(parents, 1), torch.cat(words, 1), torch.cat(totals, 1))
        ended = search.collect_ended(torch.ones_like(search.total, dtype=torch.bool))
        open_slots = open_slots - ended.view(B, G, K).sum(2)
        if not search.total.isfinite().any():
            break
    return search.finish([torch.arange(G * K)])
