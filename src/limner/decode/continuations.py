"""What a captioner would have said after another word: the likeliest alternatives at every place, and how each goes on.

    tree = choice_tree(model, features, caption, rules)
    tree[0]                     # the caption itself, with the likeliest words at each of its places
    tree[3].parent, tree[3].place, tree[3].said.tokens      # the choice of another word there, and the greedy rest

Several media may be given, for example the frames of a clip: a word's probability is then that of a sentence about one
of them, each as likely as the others before the first word.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import BOS, EOS, Features
from limner.decode.logits import apply_rules
from limner.decode.rules import Rules
from limner.models.captioner import Captioner, first_tensor, map_tensors

ROWS = 256  # of the decoder that are computed together


class Continuation(NamedTuple):
    """A sentence of L tokens, EOS included where it has ended, and what the captioner thought at each of them.

    logprobs      natural log of each token's probability, given the tokens before it
    alternatives  at each place the likeliest tokens that the rules allow, best first, with the log of their probability
    attention     (L, N) over the cells of all media; each row sums to 1
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    alternatives: tuple[tuple[tuple[int, float], ...], ...]
    attention: Float[np.ndarray, "L N"]


class Choice(NamedTuple):
    """A sentence of the tree: that of `parent` up to `place`, then another token, then the greedy rest.

    The first sentence of a tree has the parent -1 and the place -1.
    """

    parent: int
    place: int
    said: Continuation


@torch.no_grad()
def continue_greedily(
    model: Captioner, media: Features, prefixes: Sequence[Sequence[int]], rules: Rules, count: int = 5
) -> list[Continuation]:
    """Say each prefix, and then the likeliest words up to the end; `count` alternatives are kept at each place.

    A prefix may hold any tokens, those that the rules forbid too, and is not extended when it ends with EOS.  Of T
    media, the probability of a word is the mean of theirs, weighted by the probability of the words before it.
    """
    found: list[Continuation] = []
    memory = model.encode(media)
    for i in range(0, len(prefixes), size := max(1, ROWS // len(media))):
        found += _continue(model, memory, len(media), prefixes[i : i + size], rules, count)
    return found


def _continue(
    model: Captioner, memory: Any, media: int, prefixes: Sequence[Sequence[int]], rules: Rules, count: int
) -> list[Continuation]:
    """`continue_greedily` for K prefixes in one batch of T * K rows; neighbouring rows are of one medium."""
    K, step = len(prefixes), model.decoding_step()
    state = map_tensors(lambda x: x.repeat_interleave(K, 0), model.init_state(memory))
    device = first_tensor(state).device
    token = torch.full((K,), BOS, device=device)
    tokens = torch.empty(K, 0, dtype=torch.long, device=device)
    weight = torch.full((media, K), -log(media), device=device)  # log of the probability that it is about this medium
    alive = torch.ones(K, dtype=torch.bool, device=device)
    steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for place in range(max(rules.max_length, *map(len, prefixes))):
        out = step(token.repeat(media), state, memory)
        state = out.state
        each = out.logits.float().log_softmax(-1).view(media, K, -1) + weight[..., None]  # (T, K, V)
        logp = each.logsumexp(0)
        attention = out.attention.float().view(media, K, -1) * weight.exp()[..., None]
        allowed = apply_rules(rules, logp, tokens)
        token = _forced(prefixes, place, allowed.argmax(-1))
        best = allowed.topk(min(count, allowed.shape[1]))
        chosen = logp.gather(1, token[:, None]).squeeze(1)
        steps.append((chosen, best.indices, best.values, attention.permute(1, 0, 2).flatten(1)))
        joint = each.gather(2, token.expand(media, K)[..., None]).squeeze(2)
        weight = torch.where(joint.isfinite().any(0), joint.log_softmax(0), weight)  # a prefix may be impossible
        tokens = torch.cat([tokens, token[:, None]], 1)
        alive = alive & (token != EOS)
        ends = torch.tensor([place + 1 >= max(rules.max_length, len(prefix)) for prefix in prefixes], device=device)
        if not (alive & ~ends).any():
            break
    columns = [torch.stack(column, 1).cpu() for column in zip(*steps, strict=True)]
    return [_row(prefixes[k], rules, row, *(column[k] for column in columns)) for k, row in enumerate(tokens.tolist())]


def _forced(prefixes: Sequence[Sequence[int]], place: int, greedy: Int[Tensor, " K"]) -> Int[Tensor, " K"]:
    """The tokens of the prefixes at a place; the greedy ones of those that are over."""
    return torch.tensor(
        [
            prefix[place] if place < len(prefix) else best
            for prefix, best in zip(prefixes, greedy.tolist(), strict=True)
        ],
        device=greedy.device,
    )


def _row(
    prefix: Sequence[int],
    rules: Rules,
    tokens: Sequence[int],
    logprobs: Float[Tensor, " L"],
    words: Int[Tensor, "L k"],
    values: Float[Tensor, "L k"],
    attention: Float[Tensor, "L N"],
) -> Continuation:
    """One row of a batch up to its end: EOS, or the maximal length."""
    end = tokens.index(EOS) + 1 if EOS in tokens else max(rules.max_length, len(prefix))
    alternatives = tuple(
        tuple((word, value) for word, value in zip(*pair, strict=True) if value > -torch.inf)
        for pair in zip(words[:end].tolist(), values[:end].tolist(), strict=True)
    )
    return Continuation(tuple(tokens[:end]), tuple(logprobs[:end].tolist()), alternatives, attention[:end].numpy())


def choice_tree(
    model: Captioner, media: Features, sentence: Sequence[int], rules: Rules, count: int = 5, sentences: int = 300
) -> list[Choice]:
    """The sentence, and the likeliest sentences that other choices of words lead to: at most `sentences` together.

    First come all choices at the places of the sentence itself.  Then, the likeliest first, come choices within the
    sentences that these lead to.  `sentence` ends with EOS where it has ended.
    """
    tree = [Choice(-1, -1, continue_greedily(model, media, [sentence], rules, count)[0])]
    heap = list(_choices(tree, 0))
    heapify(heap)
    while heap and len(tree) < sentences:
        # all choices of the first sentence together, then some at a time, because their own choices may be likelier
        number = len(heap) if len(tree) == 1 else 64
        taken = [heappop(heap) for _ in range(min(number, len(heap), sentences - len(tree)))]
        prefixes = [[*tree[parent].said.tokens[:place], token] for _, parent, place, token in taken]
        continued = continue_greedily(model, media, prefixes, rules, count)
        for (_, parent, place, _), said in zip(taken, continued, strict=True):
            tree.append(Choice(parent, place, said))
            for entry in _choices(tree, len(tree) - 1):
                heappush(heap, entry)
    return tree


def _choices(tree: Sequence[Choice], number: int) -> Iterator[tuple[float, int, int, int]]:
    """The choices within sentence `number`, after its own one: (minus log-probability, number, place, token)."""
    choice = tree[number]
    before = sum(choice.said.logprobs[: choice.place + 1])
    for place in range(choice.place + 1, len(choice.said.tokens)):
        for token, logprob in choice.said.alternatives[place]:
            if token != choice.said.tokens[place]:
                yield -(before + logprob), number, place, token
        before += choice.said.logprobs[place]
