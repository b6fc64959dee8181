"""Up-Down against a plain walk through its equations."""

import torch
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, Features
from limner.models.captioner import unroll
from limner.models.up_down import UpDown
from tests.models.captioners import random_features, small

TOKENS = torch.tensor([[BOS, 4, 5, EOS], [BOS, 6, 7, 8], [BOS, EOS, PAD, PAD], [BOS, 5, 5, 5]])


def rollout(model: UpDown, features: Features, tokens: Tensor) -> Tensor:
    """Anderson et al., eq. 1 to 7, one picture at a time and only its real regions."""
    logits = []
    for row, words in enumerate(tokens):
        regions = features.grid[row][features.mask[row]]
        v, mean = torch.relu(model.cells(regions)), torch.relu(model.whole(regions.mean(0)))
        h1 = c1 = h2 = c2 = torch.zeros(model.config.hidden)
        for word in words:
            x1 = torch.cat([h2, mean, torch.relu(model.embed(word))])
            h1, c1 = model.look(x1, (h1, c1))
            a = model.attend.score(torch.tanh(model.attend.key(v) + model.attend.query(h1)))
            attended = (a.softmax(0) * v).sum(0)
            h2, c2 = model.speak(torch.cat([attended, h1]), (h2, c2))
            logits.append(model.head(h2))
    return torch.stack(logits).unflatten(0, tokens.shape)


def test_equal_to_the_equations():
    model, features = small("up_down"), random_features()
    alive = TOKENS > EOS
    alive[:, 0] = True
    expected = rollout(model, features, TOKENS)[alive]
    torch.testing.assert_close(model(features, TOKENS)[alive], expected, rtol=1e-4, atol=1e-5)


def test_words_are_predicted_from_the_hidden_states():
    model, features = small("up_down"), random_features()
    memory = model.encode(features)
    fast, slow = model.forward_teacher_forced(memory, TOKENS), unroll(model, memory, TOKENS)
    assert fast.hidden is not None and slow.hidden is not None
    torch.testing.assert_close(fast.hidden, slow.hidden, rtol=1e-4, atol=1e-5)
    alive = fast.attention.sum(-1) > 0
    torch.testing.assert_close(model.head(fast.hidden)[alive], fast.logits[alive])
