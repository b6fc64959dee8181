"""Functions on next-word scores: rules that forbid words (their score becomes -inf), temperature, top-k and top-p."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import EOS, UNK
from limner.decode.options import Sample
from limner.decode.rules import Rules, bound_ids


def apply_rules(rules: Rules, scores: Float[Tensor, "R V"], tokens: Int[Tensor, "R t"]) -> Float[Tensor, "R V"]:
    """Set the scores (logits or log-probabilities) of forbidden next words to -inf.

    `tokens` are the t words of each caption so far, without BOS.  A row in which the rules would forbid every word
    keeps its scores, so there is always a next word.
    """
    forbidden = [] if rules.allow_unknown else [UNK]
    if tokens.shape[1] < rules.min_length:
        forbidden.append(EOS)
    forbidden += bound_ids(rules.never)
    if tokens.shape[1] == rules.max_length - 1:  # the caption is cut off here, so this is its last word
        forbidden += bound_ids(rules.bad_endings)
    repeated = tokens[:, -1:] if rules.no_repeat_word else tokens[:, :0]
    if forbidden or repeated.numel() or rules.bad_endings or rules.no_repeat_trigram:
        ruled = scores.clone()
        ruled[:, forbidden] = -torch.inf
        ruled.scatter_(1, repeated, -torch.inf)
        if rules.bad_endings and tokens.shape[1]:
            ends = torch.tensor(bound_ids(rules.bad_endings), device=tokens.device)
            ruled[torch.isin(tokens[:, -1], ends), EOS] = -torch.inf
        if rules.no_repeat_trigram and tokens.shape[1] > 2:
            trigrams = tokens.unfold(1, 3, 1)  # (R, t - 2, 3)
            row, place = (trigrams[..., :2] == tokens[:, None, -2:]).all(-1).nonzero(as_tuple=True)
            ruled[row, trigrams[row, place, 2]] = -torch.inf
        blocked = ruled.amax(1, keepdim=True) == -torch.inf  # amax keeps nan, which the searches report
        return torch.where(blocked, scores, ruled) if blocked.any() else ruled
    return scores


def warp_logits(options: Sample, logits: Float[Tensor, "R V"], tokens: Int[Tensor, "R t"]) -> Float[Tensor, "R V"]:
    """Scores whose softmax is the distribution that `sample` draws the next word from.

    Rules come first, then temperature, then top-k, then top-p among the words that are left.  `tokens` are the t words
    of each caption so far, without BOS.
    """
    scores = apply_rules(options.rules, logits, tokens) / options.temperature
    if options.top_k is not None and options.top_k < scores.shape[1]:
        least = scores.topk(options.top_k, 1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)  # words that tie with the k-th stay
    if options.top_p is not None and options.top_p < 1:
        ordered, order = scores.softmax(1).sort(1, descending=True)
        before = (
            ordered.cumsum(1) - ordered
        )  # probability of all likelier words; 0 for the likeliest, which always stays
        scores = scores.masked_fill((before >= options.top_p).gather(1, order.argsort(1)), -torch.inf)
    return scores
