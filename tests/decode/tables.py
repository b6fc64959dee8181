"""A captioner that is a table: the next word's scores are looked up by the last two tokens, so all is known."""

from itertools import pairwise, product

import torch
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, UNK, Captions, Features, Layout, Pixels
from limner.decode.rules import Rules
from limner.models.captioner import Captioner, Step, TeacherForced, unroll


class Table(Captioner):
    """`tables` (M, V, V, V): medium, last but one token, last token -> scores.  A medium's feature is its number.

    Attention looks at cell (step number) of 8, so that it can be told which step a map comes from.
    """

    def __init__(self, tables: Tensor):
        super().__init__()
        self.tables = torch.nn.Parameter(tables)

    def encode(self, inputs: Features | Pixels) -> tuple[Tensor]:
        assert isinstance(inputs, Features)
        return (self.tables[inputs.grid[:, 0, 0].long()],)

    def init_state(self, memory: tuple[Tensor]) -> tuple[Tensor, Tensor]:
        start = torch.full((len(memory[0]),), BOS)
        return start, torch.zeros_like(start)

    def step(self, token: Tensor, state: tuple[Tensor, Tensor], memory: tuple[Tensor]) -> Step:
        before, n = state
        medium = torch.arange(len(token)) // (len(token) // len(memory[0]))
        attention = torch.nn.functional.one_hot(n % 8, 8).float()
        return Step(memory[0][medium, before, token], (token, n + 1), attention)

    def forward_teacher_forced(self, memory: tuple[Tensor], tokens: Tensor) -> TeacherForced:
        return unroll(self, memory, tokens)


def tables(media: int, words: int, seed: int = 0, end: float = 0.0, spread: float = 1.5) -> Table:
    """Random scores for the four special tokens and `words` words; PAD and BOS never; `end` is added to EOS."""
    size = 4 + words
    scores = spread * torch.randn(media, size, size, size, generator=torch.Generator().manual_seed(seed))
    scores[..., EOS] += end
    scores[..., [PAD, BOS]] = -torch.inf
    return Table(scores)


def chain(size: int, arrows: dict[tuple[int, int], dict[int, float]]) -> Table:
    """One medium by hand: {(last but one, last): {next: probability}}; everything else is as likely as EOS alone."""
    scores = torch.full((1, size, size, size), -torch.inf)
    scores[..., EOS] = 0
    for (before, last), nexts in arrows.items():
        scores[0, before, last] = -torch.inf
        for word, share in nexts.items():
            scores[0, before, last, word] = torch.tensor(share).log()
    return Table(scores)


def said(found: Captions) -> list[tuple[int, ...]]:
    """Tokens of every row without the padding; rows of several captions per medium may be empty."""
    return [tuple(token for token in row if token != PAD) for row in found.tokens.tolist()]


def media(*numbers: int) -> Features:
    grid = torch.tensor(numbers, dtype=torch.float)[:, None, None].expand(-1, 8, 1)
    return Features(grid, torch.ones(len(numbers), 8, dtype=torch.bool), Layout(1, 2, 4))


def score(model: Table, medium: int, words: tuple[int, ...]) -> float:
    """Log-probability of a token sequence, one look-up at a time."""
    total, before, last = 0.0, BOS, BOS
    for word in words:
        total += model.tables[medium, before, last].double().log_softmax(-1)[word].item()
        before, last = last, word
    return total


def allowed(words: tuple[int, ...], rules: Rules) -> bool:
    """What `Rules` says in words, written again: the slow twin of `apply_rules`."""
    spoken = words[:-1] if words[-1] == EOS else words
    return (
        EOS not in spoken
        and not (words[-1] == EOS and len(spoken) < rules.min_length)
        and (rules.allow_unknown or UNK not in words)
        and not (rules.no_repeat_word and any(a == b for a, b in pairwise(words)))
        and PAD not in words
        and BOS not in words
    )


def every(model: Table, medium: int, rules: Rules) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """All ended sequences of at most `max_length` tokens, and all unfinished ones of exactly that length, scored."""
    size = model.tables.shape[1]
    ended, unfinished = {}, {}
    for n in range(1, rules.max_length + 1):
        for words in product(range(size), repeat=n):
            if not allowed(words, rules) or score(model, medium, words) == float("-inf"):
                continue
            if words[-1] == EOS:
                ended[words] = score(model, medium, words)
            elif n == rules.max_length:
                unfinished[words] = score(model, medium, words)
    return ended, unfinished


def slow_beam(model: Table, medium: int, size: int, penalty: float, rules: Rules) -> tuple[tuple[int, ...], float]:
    """The shrinking beam in plain Python: one medium, lists, no early stop."""
    live, ended, slots = [((), 0.0)], [], size
    for _ in range(rules.max_length):
        longer = []
        for words, total in live:
            last, before = ([*words[::-1], BOS, BOS])[:2]
            logp = model.tables[medium, before, last].double().log_softmax(-1).tolist()
            longer += [
                ((*words, word), total + logp[word]) for word in range(len(logp)) if allowed((*words, word), rules)
            ]
        best = sorted(longer, key=lambda item: -item[1])[:slots]
        best = [item for item in best if item[1] > float("-inf")]
        ended += [item for item in best if item[0][-1] == EOS]
        live = [item for item in best if item[0][-1] != EOS]
        slots = size - len(ended)
        if not live:
            break
    if ended:
        return max(ended, key=lambda item: item[1] / len(item[0]) ** penalty)
    return max(live, key=lambda item: item[1])
