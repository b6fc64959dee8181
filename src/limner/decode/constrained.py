"""Beam search for captions that hold given words (constrained beam search, Anderson et al. 2017, arXiv:1612.00576).

There is a beam of `size` hypotheses for every set of the words that has been said; a hypothesis that says a further
word competes in the beam of the larger set.  A caption ends in the beam of the whole set only.
"""

import torch
from torch import Tensor

from limner.core.types import EOS, Captions
from limner.decode.ensemble import Inputs
from limner.decode.hypotheses import FixedWidthBeam
from limner.decode.options import Beam
from limner.models.captioner import Captioner


@torch.no_grad()
def constrained_beam(model: Captioner, inputs: Inputs, options: Beam) -> Captions:
    """The best captions that hold `options.must` (ids).  Where none has ended in time, the likeliest unfinished caption
    that holds as many of them as can be."""
    must = [word for word in options.must if isinstance(word, int)]
    assert len(must) == len(options.must), "words are bound to a vocabulary first: Beam.bind"
    S, K, B, device = 1 << len(must), options.size, len(inputs), inputs.device
    search = FixedWidthBeam(model, inputs, options, S * K, [0])
    whole = torch.arange(S * K, device=device) >= (S - 1) * K  # the places of the whole set
    slots = torch.full((B, 1), K, device=device)
    for _ in range(options.rules.max_length):
        scores = search.score_next_words()
        scores[:, ~whole, EOS] = -torch.inf
        parents, words, totals = [], [], []
        for said in range(S):
            parent, word, total = _best_of_subset(scores, said, must, K)
            parents.append(parent)
            words.append(word)
            totals.append(total)
        place = torch.arange(K, device=device)
        totals[-1] = totals[-1].masked_fill(place >= slots, -torch.inf)
        search.extend(torch.cat(parents, 1), torch.cat(words, 1), torch.cat(totals, 1))
        slots = slots - search.collect_ended(whole.expand_as(search.total)).sum(1, keepdim=True)
        search.total = search.total.masked_fill(slots == 0, -torch.inf)  # a medium whose beam is full is done
        if not search.total.isfinite().any():
            break
    sets = sorted(range(S), key=lambda said: -said.bit_count())
    return search.finish([torch.arange(said * K, (said + 1) * K) for said in sets])


def _best_of_subset(scores: Tensor, said: int, must: list[int], K: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K best hypotheses that have said the set `said` of words (a bit for each): those that had and say none of the
    others, and those that lacked one word of it and say that -> parents, words and totals, (B, K) each."""
    V = scores.shape[-1]
    stay = scores[:, said * K : (said + 1) * K].clone()
    stay[..., [word for bit, word in enumerate(must) if not said >> bit & 1]] = -torch.inf
    pool = [stay.flatten(1)]
    origin = [torch.arange(said * K, (said + 1) * K).repeat_interleave(V)]
    spoken = [torch.arange(V).repeat(K)]
    for bit, word in enumerate(must):
        if said >> bit & 1:
            before = said ^ (1 << bit)
            pool.append(scores[:, before * K : (before + 1) * K, word])
            origin.append(torch.arange(before * K, (before + 1) * K))
            spoken.append(torch.full((K,), word))
    total, best = torch.cat(pool, 1).topk(K)
    return torch.cat(origin).to(best)[best], torch.cat(spoken).to(best)[best], total
