"""What SFTCap's teacher and student make of a clip: objects, actions, and one vector for the whole of it.

Frames F (B, T, D) are embedded as v; objects O are a linear map of v, one per frame, or `max_objects` slots that look
for things in all frames.  The teacher turns O into actions A with a module of its own; the student takes A = O.  The
hierarchical attention module (`Ham`) reads v and A into the global vector g.  Published as ccc000-png/SFTCap (no
paper); the names of its checkpoints' parts are in `limner.convert.sftcap`.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from limner.models.layers import masked_max, masked_softmax

EPS = 1e-12  # of every LayerNorm, as in BERT's first code
ROUNDS = 6  # of the teacher's encoder, all with the same weights
HEADS = 8

Module = Literal["transformer", "lstm"]


class Looked(NamedTuple):
    """What teacher and student have in common when they share their weights."""

    frames: Float[Tensor, "B T H"]
    mask: Bool[Tensor, "B T"]  # True where a frame is real
    objects: Float[Tensor, "B J H"]
    present: Bool[Tensor, "B J"]  # True where a slot is real


class Seen(NamedTuple):
    actions: Float[Tensor, "B J H"]
    object_semantics: Float[Tensor, "B J S"]  # what the word head reads the objects' names from
    action_semantics: Float[Tensor, "B J S"]
    present: Bool[Tensor, "B J"]
    vector: Float[Tensor, "B D"]  # g


def normed(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=EPS)


def reading(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """LayerNorm, dropout, linear, ReLU, LayerNorm: how frames and words are read everywhere in this model."""
    return nn.Sequential(normed(inputs), nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.ReLU(), normed(outputs))


def sinusoid(position: Int[Tensor, "*B"], width: int) -> Float[Tensor, "*B width"]:
    """sin in the even channels, cos in the odd ones (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""
    channel = torch.arange(0, width, 2, device=position.device)
    angle = position[..., None] * torch.exp(channel * (-torch.log(torch.tensor(10000.0)) / width).to(position.device))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width]


def ranks(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Which real frame this one is, from 0: padding and holes take no place."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def over_time(lstm: nn.LSTM, x: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
    """Both directions over the real rows alone; 0 elsewhere."""
    if not x.shape[1]:
        return x.new_zeros(len(x), 0, 2 * lstm.hidden_size)
    if mask.all():
        return lstm(x)[0]
    first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # real rows to the front, in their order
    lengths = mask.sum(1).clamp(min=1).cpu()
    dense = x.gather(1, first[..., None].expand_as(x))
    packed = pack_padded_sequence(dense, lengths, batch_first=True, enforce_sorted=False)
    out, _ = pad_packed_sequence(lstm(packed)[0], True, total_length=x.shape[1])
    return out.gather(1, ranks(mask)[..., None].expand_as(out)) * mask[..., None]


def bilstm(inputs: int, width: int) -> nn.LSTM:
    """Both directions together are `width` wide."""
    return nn.LSTM(inputs, width // 2, batch_first=True, bidirectional=True)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout

    def forward(
        self, query: Float[Tensor, "B Q H"], memory: Float[Tensor, "B M H"], mask: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B Q H"]:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, x in ((self.query, query), (self.key, memory), (self.value, memory))
        )
        dropout = self.dropout if self.training else 0.0
        some = mask.any(1, keepdim=True)  # a row without any is shown all, and reads 0: kernels differ in what it gets
        found = F.scaled_dot_product_attention(q, k, v, (mask | ~some)[:, None, None], dropout)
        return self.out(found.masked_fill(~some[..., None, None], 0.0).transpose(1, 2).flatten(2))


class PublishedTeacher(nn.Module):
    """The transformer teacher to the letter.  One linear layer, one LayerNorm and one self-attention serve every place;
    the encoder's first residual is the attention's output, not its input; the decoder begins anew from the same query
    in every round, so that only the last counts (the others are not computed); the query is the same vector for every
    slot, so that all of A's rows are equal; nobody is told a position.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.self_attend = Attention(width, heads, dropout)
        self.attend = Attention(width, heads, dropout)
        self.dense, self.norm = nn.Linear(width, width), normed(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, looked: Looked) -> Float[Tensor, "B J H"]:
        memory, present = looked.objects, looked.present
        for _ in range(ROUNDS):
            found = self.self_attend(memory, memory, present)
            memory = self.feed(self.norm(self.dropout(self.dense(found)) + found))
        query = masked_max(looked.frames, looked.mask)[:, None].expand_as(memory)
        everything = torch.ones_like(present)
        query = self.norm(self.dropout(self.dense(self.self_attend(query, query, everything))) + query)
        query = self.norm(query + self.dropout(self.dense(self.attend(query, memory, present))))
        return self.feed(query)

    def feed(self, x: Float[Tensor, "B J H"]) -> Float[Tensor, "B J H"]:
        return self.norm(self.dropout(self.dense(F.gelu(self.dense(x)))) + x)


class Teacher(nn.Module):
    """The transformer teacher as the usual post-norm encoder (its rounds share their weights) and decoder: a layer of
    its own in every place, residuals on the input, and positions, so that slots differ and frames have an order."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attends = nn.ModuleList(Attention(width, heads, dropout) for _ in range(3))
        self.norms = nn.ModuleList(normed(width) for _ in range(5))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(2)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, looked: Looked) -> Float[Tensor, "B J H"]:
        present = looked.present
        where = sinusoid(ranks(present), looked.objects.shape[-1]).to(looked.objects.dtype)
        encode, decode, cross = self.attends
        memory = looked.objects + where
        for _ in range(ROUNDS):
            memory = self.norms[0](memory + self.dropout(encode(memory, memory, present)))
            memory = self.norms[1](memory + self.dropout(self.feeds[0](memory)))
        query = masked_max(looked.frames, looked.mask)[:, None] + where
        query = self.norms[2](query + self.dropout(decode(query, query, present)))
        query = self.norms[3](query + self.dropout(cross(query, memory, present)))
        return self.norms[4](query + self.dropout(self.feeds[1](query)))


class LstmTeacher(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.lstm = bilstm(width, width)

    def forward(self, looked: Looked) -> Float[Tensor, "B J H"]:
        return over_time(self.lstm, looked.objects, looked.present)


class Slots(nn.Module):
    """A fixed number of object slots, each with a learned question to all frames (DETR's queries, arXiv:2005.12872)."""

    def __init__(self, count: int, width: int, heads: int, dropout: float):
        super().__init__()
        self.question = nn.Parameter(torch.randn(count, width))
        self.attend, self.norm = Attention(width, heads, dropout), normed(width)

    def forward(self, frames: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B J H"]:
        question = self.question.expand(len(frames), -1, -1)
        return self.norm(question + self.attend(question, frames, mask))


class Ham(nn.Module):
    """Hierarchical attention: every frame reads the actions, then what the frames have read; a BiLSTM goes over it.

    e1[t,j] = Uv v_t + Ua A_j + ba, a1_t = sum_j softmax_j(wa . tanh e1) e1[t,j];
    e2[t,s] = Uv v_t + a1_s + bv, a2_t likewise with wv; g = linear(max over t of BiLSTM [v, a2, a1]).
    What is summed are the e themselves, and the weights sum to 1: a1_t = Uv v_t + ba + sum_j w_j Ua A_j.
    """

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.of_actions = nn.Linear(width, width)  # Ua, ba
        self.of_frames = nn.Linear(width, width, bias=False)  # Uv
        self.of_read = nn.Parameter(torch.zeros(width))  # bv
        self.score_actions, self.score_read = (nn.Linear(width, 1, bias=False) for _ in range(2))
        self.lstm = bilstm(3 * width, width)
        self.out = nn.Linear(width, outputs)

    def forward(
        self,
        actions: Float[Tensor, "B J H"],
        frames: Float[Tensor, "B T H"],
        present: Bool[Tensor, "B J"],
        mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B D"]:
        seen = self.of_frames(frames)
        first = seen + self.read(seen, self.of_actions(actions), self.score_actions, present)
        second = seen + self.read(seen, first + self.of_read, self.score_read, mask)
        return self.out(masked_max(over_time(self.lstm, torch.cat([frames, second, first], -1), mask), mask))

    def read(
        self, seen: Float[Tensor, "B T H"], values: Float[Tensor, "B M H"], score: nn.Linear, mask: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B T H"]:
        scores = score(torch.tanh(seen[:, :, None] + values[:, None])).squeeze(-1)
        return masked_softmax(scores, mask[:, None]) @ values


class SftNetwork(nn.Module):
    """Teacher (`module`), student (None), or one network that is both, whose student leaves `module` out."""

    def __init__(
        self,
        feature_dim: int,
        width: int,
        semantics: int,
        module: Module | None,
        max_objects: int | None,
        ham: bool,
        published: bool,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        self.frames = reading(feature_dim, width, dropout)
        self.slots = Slots(max_objects, width, heads, dropout) if max_objects else None
        self.objects = nn.Linear(width, width)
        self.module: nn.Module | None = None
        if module == "lstm":
            self.module = LstmTeacher(width)
        elif module == "transformer":
            self.module = (PublishedTeacher if published else Teacher)(width, heads, dropout)
        self.semantics = nn.Linear(width, semantics)
        self.ham = Ham(width, feature_dim) if ham else None
        self.whole = None if ham else nn.Linear(width, feature_dim)

    def look(self, grid: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Looked:
        frames, present = self.frames(grid), mask
        found = frames
        if self.slots is not None:
            found = self.slots(frames, mask)
            present = mask.new_ones(found.shape[:2])
        return Looked(frames, mask, self.objects(found), present)

    def see(self, looked: Looked, module: bool) -> Seen:
        """With the teacher's module or, as the student, without."""
        actions = looked.objects
        if module and self.module is not None:
            actions = self.module(looked)
        if self.ham is not None:
            vector = self.ham(actions, looked.frames, looked.present, looked.mask)
        else:
            assert self.whole is not None
            vector = self.whole(masked_max(actions, looked.present))
        own = self.semantics(looked.objects)
        done = own if actions is looked.objects else self.semantics(actions)
        return Seen(actions, own, done, looked.present, vector)
