"""Beam searches of three systems as their published code works, for timing: what it computes anew, this computes anew.

They read the weights of limner's models, but use no code of these models or of limner's searches.

- `xlan_beam`: JDAI-CV/image-captioning.  The encoder, keys and values once; then all hypotheses of all images in one
  batch, images copied for each hypothesis.  At every step all words of all hypotheses are sorted, and the
  log-probabilities of the chosen ones are kept.
- `batched_transformer_beam`: ruotianluo/self-critical.pytorch.  The encoder once, its output copied per hypothesis; at
  every step the whole prefix goes through the decoder, the keys and values of the regions included.
- `single_transformer_beam`: yahoo/object_relation_transformer and sidharth5n/Spatial-Image-Captioning.  The same,
  but one image after the other, and candidates are compared in a Python loop.

Hypotheses that end are followed as published: X-LAN's stay in the beam at their score; those of the others go to a
list, and a score of -1000 takes them out of the beam.
"""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.types import BOS, EOS, PAD, UNK, Features
from limner.models.attention_blocks import DotProduct, UnbiasedNorm, sinusoidal_table
from limner.models.spatial_transformer import DecoderLayer, SpatialTransformer
from limner.models.xlan import ALPHA, Xlan
from limner.models.xlinear import Projection, XLinear

Caption = tuple[list[int], float]  # words after BOS, EOS included; log-probability


# ---- parts; layers are read as weights, because limner's own keep packed copies of them


def linear(layer: torch.nn.Module, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def norm(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """The norm of "The Annotated Transformer", or LayerNorm."""
    if not isinstance(layer, UnbiasedNorm):
        return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias)
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return layer.weight * (x - mean) / (std + 1e-6) + layer.bias


def feed_forward(layers: torch.nn.Sequential, x: Tensor) -> Tensor:
    return linear(layers[3], torch.relu(linear(layers[0], x)))


def word_scores(head: torch.nn.Module, x: Tensor) -> Tensor:
    """Log-probabilities (R, V)."""
    logits = F.linear(x, head.weight, head.bias)
    logits[:, [PAD, BOS]] = -torch.inf
    return logits.log_softmax(-1)


def attention(layer: DotProduct, query: Tensor, source: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multi-head attention; keys and values are computed from `source` (R, N, D).  `mask` is (R, 1 or L, N)."""
    q, k, v = (
        linear(part, x).view(len(x), -1, layer.heads, x.shape[-1] // layer.heads).transpose(1, 2)
        for part, x in ((layer.query, query), (layer.key, source), (layer.value, source))
    )
    scores = q @ k.transpose(-2, -1) / sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask.unsqueeze(1), -1e9)
    scores = scores if bias is None else scores + bias
    read = scores.softmax(-1) @ v
    return linear(layer.output, read.transpose(1, 2).contiguous().view(query.shape))


def projected(layer: Projection, x: Tensor) -> Tensor:
    """-> (R, H, N, d), normalised per head."""
    rows = F.celu(linear(layer.linear, x.reshape(-1, x.shape[-1])), layer.alpha)
    rows = F.group_norm(rows, layer.heads, layer.weight, layer.bias)
    return rows.view(len(x), -1, layer.heads, x.shape[-1] // layer.heads).transpose(1, 2)


def bilinear(layer: XLinear, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """X-linear attention: query (R, 1 or L, D), keys and values (R, H, N, d), mask (R, N)."""
    q, q2 = projected(layer.query, query), projected(layer.query2, query)
    maps = torch.relu(layer.common(q.unsqueeze(3) * keys.unsqueeze(2)))  # (R, H, L, N, M)
    real = mask[:, None, None, :, None]
    mean = (maps * real).sum(3) / real.sum(3)
    weights = layer.spatial(maps).squeeze(-1).masked_fill(~real.squeeze(-1), -1e9).softmax(-1)
    read = torch.sigmoid(layer.channel(mean)) * q2 * (weights @ values)
    return read.transpose(1, 2).reshape(query.shape)


def five_dimensional(layer: XLinear, query: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """X-linear attention of a decoder layer, with the values of all pairs of words and regions."""
    k, v = projected(layer.key, source), projected(layer.value, source)
    q, q2 = projected(layer.query, query), projected(layer.query2, query)
    maps = torch.relu(layer.common(q.unsqueeze(3) * k.unsqueeze(2)))
    real = mask[:, None, None, :, None]
    mean = (maps * real).sum(3) / real.sum(3)
    weights = layer.spatial(maps).squeeze(-1).masked_fill(~real.squeeze(-1), -1e9).softmax(-1)
    values = q2.unsqueeze(3) * v.unsqueeze(2)  # (R, H, L, N, d)
    read = torch.sigmoid(layer.channel(mean)) * (weights.unsqueeze(3) @ values).squeeze(3)
    return read.transpose(1, 2).reshape(query.shape)


# ---- X-LAN


def xlan_encoder(model: Xlan, features: Features) -> tuple[Tensor, Tensor]:
    """-> refined cells, global vector."""
    cells, mask = F.celu(linear(model.cells, features.grid), ALPHA), features.mask
    vectors = [(cells * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)]
    for layer, join, after in zip(model.refine, model.join, model.join_norms, strict=True):
        assert isinstance(layer, XLinear)
        keys, values = projected(layer.key, cells), projected(layer.value, cells)
        vectors.append(bilinear(layer, vectors[-1].unsqueeze(1), keys, values, mask).squeeze(1))
        pairs = torch.cat([vectors[-1].unsqueeze(1).expand_as(cells), cells], -1)
        cells = after(cells + torch.relu(linear(join, pairs)))
    return cells, model.whole_norm(linear(model.whole, torch.cat(vectors, -1)))


@torch.no_grad()
def xlan_beam(model: Xlan, features: Features, size: int, steps: int) -> list[Caption]:
    """All images in one batch, always `steps` steps."""
    images, D = len(features), model.config.dim
    cells, whole = xlan_encoder(model, features)
    keys, values, mask = projected(model.attend.key, cells), projected(model.attend.value, cells), features.mask
    h = c = output = cells.new_zeros(images, D)
    token = torch.full((images,), BOS)
    total = cells.new_zeros(images, 1, 1)
    unfinished = torch.ones(images, size, 1)
    words: list[Tensor] = []
    step_scores: list[Tensor] = []
    for step in range(steps):
        x = torch.cat([F.celu(model.embed(token), ALPHA), whole + output], -1)
        h, c = model.lstm(x, (h, c))
        attended = bilinear(model.attend, h.unsqueeze(1), keys, values, mask).squeeze(1)
        joined = model.context_norm(linear(model.context, torch.cat([h, attended], -1)))
        output = F.glu(linear(model.say, torch.cat([joined, h], -1)), -1)
        logp = word_scores(model.head, output).view(images, -1, model.head.out_features)
        candidates = total + logp
        if step:
            ended = (words[-1] == EOS).unsqueeze(-1)
            unfinished = unfinished * ~ended
            logp = logp * unfinished
            logp = logp.masked_fill(logp.isnan(), -999)  # 0 * -inf of PAD and BOS
            kept = total.expand_as(candidates).clone()
            kept[..., :EOS] = kept[..., EOS + 1 :] = -999
            candidates = unfinished * candidates.clamp(min=-1e9) + kept * (1 - unfinished)
        ordered, order = torch.sort(candidates.view(images, -1), -1, descending=True)
        total, best = ordered[:, :size].unsqueeze(-1), order[:, :size]
        parent, word = best // logp.shape[-1], best % logp.shape[-1]
        state = [s.view(images, -1, D) for s in (h, c, output)]
        index = parent.unsqueeze(-1)
        h, c, output = (s.gather(1, index.expand(-1, -1, D)).view(-1, D) for s in state)
        unfinished = unfinished.gather(1, index)
        chosen = logp.gather(1, index.expand(-1, -1, logp.shape[-1])).gather(2, word.unsqueeze(-1)).squeeze(-1)
        words = [*(w.gather(1, parent) for w in words), word]
        step_scores = [*(s.gather(1, parent) for s in step_scores), chosen]
        token = word.flatten()
        if step == 0:
            keys, values, mask, whole = (x.repeat_interleave(size, 0) for x in (keys, values, mask, whole))
    captions = torch.stack([w[:, 0] for w in words], 1).tolist()
    return [(cut(row), score) for row, score in zip(captions, total[:, 0, 0].tolist(), strict=True)]


def cut(words: list[int]) -> list[int]:
    """The words up to EOS, which is included."""
    return words[: words.index(EOS) + 1] if EOS in words else words


# ---- transformers


def transformer_encoder(model: SpatialTransformer, features: Features) -> Tensor:
    """Regions (B, N, 2048) -> encoded regions (B, N, D)."""
    cells, mask = torch.relu(linear(model.cells, features.grid)), features.mask.unsqueeze(1)
    cells = model.positions(cells, features.boxes)
    relations = model.geometry_features(features)
    for layer in model.cell_layers:
        bias = None if relations is None else layer.geometry(relations)
        normed = norm(layer.norms[0], cells)
        cells = cells + attention(layer.attend, normed, normed, mask, bias)
        cells = cells + feed_forward(layer.feed_forward, norm(layer.norms[1], cells))
    return norm(model.cell_norm, cells)


def prefix_scores(model: SpatialTransformer, tokens: Tensor, cells: Tensor, mask: Tensor) -> Tensor:
    """The whole prefix through the decoder -> log-probabilities of the next word (R, V)."""
    length, D = tokens.shape[1], model.config.dim
    x = model.embed(tokens) * sqrt(D) + sinusoidal_table(torch.arange(length), D)
    causal = torch.ones(1, length, length, dtype=torch.bool).tril()
    for layer in model.word_layers:
        assert isinstance(layer, DecoderLayer)
        normed = norm(layer.norms[0], x)
        x = x + attention(layer.attend_words, normed, normed, causal)
        normed = norm(layer.norms[1], x)
        if isinstance(layer.attend_cells, XLinear):
            x = x + five_dimensional(layer.attend_cells, normed, cells, mask)
        else:
            x = x + attention(layer.attend_cells, normed, cells, mask.unsqueeze(1))
        x = x + feed_forward(layer.feed_forward, norm(layer.norms[2], x))
    return word_scores(model.head, norm(model.word_norm, x)[:, -1])


@torch.no_grad()
def batched_transformer_beam(model: SpatialTransformer, features: Features, size: int, steps: int) -> list[Caption]:
    """All images in one batch, always `steps` steps."""
    images = len(features)
    cells = transformer_encoder(model, features)
    tokens = torch.full((images, 1), BOS)
    logp = prefix_scores(model, tokens, cells, features.mask)
    cells, mask = cells.repeat_interleave(size, 0), features.mask.repeat_interleave(size, 0)
    total = cells.new_zeros(images, 1)
    kept = logp.new_zeros(images, 1, 0, logp.shape[-1])  # all words' log-probabilities at every step
    done: list[list[Caption]] = [[] for _ in range(images)]
    for step in range(steps):
        V = logp.shape[-1]
        unruled, logp = logp, logp.clone()
        logp[:, UNK] -= 1000
        candidates = total.unsqueeze(-1) + logp.view(images, -1, V)
        ordered, order = torch.sort(candidates.view(images, -1), -1, descending=True)
        total, best = ordered[:, :size], order[:, :size]
        parent, word = best // V, best % V
        rows = (parent + torch.arange(images).unsqueeze(-1) * candidates.shape[1]).flatten()
        tokens = torch.cat([tokens[rows], word.view(-1, 1)], 1)
        kept = torch.cat([kept.flatten(0, 1)[rows], unruled[rows].unsqueeze(1)], 1).view(images, size, step + 1, V)
        total = collect(done, tokens, total, word, step == steps - 1)
        if step < steps - 1:
            logp = prefix_scores(model, tokens, cells, mask)
    return [max(captions, key=lambda caption: caption[1]) for captions in done]


def collect(done: list[list[Caption]], tokens: Tensor, total: Tensor, word: Tensor, last: bool) -> Tensor:
    """Move ended hypotheses to `done` -> the scores, those of ended ones lowered by 1000."""
    ended = torch.ones_like(word, dtype=torch.bool) if last else word == EOS
    rows = tokens[:, 1:].view(*word.shape, -1)
    for image in range(len(word)):
        for slot in range(word.shape[1]):
            if ended[image, slot]:
                done[image].append((rows[image, slot].tolist(), total[image, slot].item()))
    return total - 1000 * ended


@torch.no_grad()
def single_transformer_beam(model: SpatialTransformer, features: Features, size: int, steps: int) -> list[Caption]:
    """One image after the other; the encoder has read the whole batch."""
    cells = transformer_encoder(model, features)
    found = []
    for image in range(len(features)):
        copies, mask = cells[image : image + 1].expand(size, -1, -1), features.mask[image : image + 1].expand(size, -1)
        tokens, total = torch.full((size, 1), BOS), [0.0] * size
        logp = prefix_scores(model, tokens, copies, mask)
        done: list[Caption] = []
        for step in range(steps):
            logp[:, UNK] -= 1000
            ordered, order = torch.sort(logp, 1, descending=True)
            candidates = [
                (total[row] + ordered[row, column].item(), row, int(order[row, column].item()))
                for column in range(size)
                for row in range(size if step else 1)
            ]
            best = sorted(candidates, key=lambda candidate: -candidate[0])[:size]
            tokens = torch.cat([tokens[[row for _, row, _ in best]], torch.tensor([[word] for *_, word in best])], 1)
            total = [score for score, *_ in best]
            for slot, (score, _, word) in enumerate(best):
                if word == EOS or step == steps - 1:
                    done.append((tokens[slot, 1:].tolist(), score))
                    total[slot] = -1000.0
            if step < steps - 1:
                logp = prefix_scores(model, tokens, copies, mask)
        found.append(max(done, key=lambda caption: caption[1]))
    return found
