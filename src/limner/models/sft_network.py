"""The visual networks of SFTCap's teacher and student: objects, actions and one global vector of a clip.

Frames F (B, T, D) are embedded as v.  Objects O are a linear map of v, one per frame, or of `max_objects` slots that
attend to all frames.  The teacher computes actions A from O with a module of its own; the student takes A = O.
`HierarchicalAttention` computes the global vector g from v and A.

The system is published as code, ccc000-png/SFTCap, without a paper.  `limner.convert.sftcap` lists the names of its
checkpoints.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from limner.models.layers import masked_max, masked_softmax

EPS = 1e-12  # of every LayerNorm, as in the original code of BERT
ENCODER_ROUNDS = 6  # passes through the teacher's encoder layer, all with the same weights
HEADS = 8

TeacherModule = Literal["transformer", "lstm"]


class ObjectFeatures(NamedTuple):
    """Embedded frames and objects of a clip; equal for teacher and student when they share weights."""

    frames: Float[Tensor, "B T H"]
    mask: Bool[Tensor, "B T"]  # True where a frame is real
    objects: Float[Tensor, "B J H"]
    present: Bool[Tensor, "B J"]  # True where a slot is real


class ClipSemantics(NamedTuple):
    """Actions, global vector and semantics of a clip on one side (teacher or student)."""

    actions: Float[Tensor, "B J H"]
    object_semantics: Float[Tensor, "B J S"]  # from these the word layer predicts names of objects
    action_semantics: Float[Tensor, "B J S"]  # and of actions
    present: Bool[Tensor, "B J"]  # True where a slot is real
    vector: Float[Tensor, "B D"]  # g, the global vector


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm with the epsilon of this model."""
    return nn.LayerNorm(width, eps=EPS)


def input_projection(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """LayerNorm, dropout, linear, ReLU, LayerNorm: the input layers of frames and words in this model."""
    return nn.Sequential(
        layer_norm(inputs), nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.ReLU(), layer_norm(outputs)
    )


def sinusoidal_encoding(position: Int[Tensor, "*B"], width: int) -> Float[Tensor, "*B width"]:
    """Sinusoidal position encoding: sine in even, cosine in odd channels (Vaswani et al. 2017, arXiv:1706.03762)."""
    channel = torch.arange(0, width, 2, device=position.device)
    angle = position[..., None] * torch.exp(channel * (-torch.log(torch.tensor(10000.0)) / width).to(position.device))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width]


def frame_positions(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The number of each real frame, from 0; padding frames are not counted.

    >>> frame_positions(torch.tensor([[True, False, True, True]])).tolist()
    [[0, 0, 1, 2]]
    """
    return (mask.cumsum(1) - 1).clamp(min=0)


def run_bilstm(lstm: nn.LSTM, x: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
    """Run a bidirectional LSTM over the real positions only; the output is 0 elsewhere."""
    if not x.shape[1]:
        return x.new_zeros(len(x), 0, 2 * lstm.hidden_size)
    if mask.all():
        return lstm(x)[0]
    first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # move real positions to the front, in their order
    lengths = mask.sum(1).clamp(min=1).cpu()
    dense = x.gather(1, first[..., None].expand_as(x))
    packed = pack_padded_sequence(dense, lengths, batch_first=True, enforce_sorted=False)
    out, _ = pad_packed_sequence(lstm(packed)[0], True, total_length=x.shape[1])
    return out.gather(1, frame_positions(mask)[..., None].expand_as(out)) * mask[..., None]


def bilstm(inputs: int, width: int) -> nn.LSTM:
    """A bidirectional LSTM whose two directions together are `width` wide."""
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
        # kernels differ for a row whose mask is all False: attend to everything there, and set the result to 0
        any_real = mask.any(1, keepdim=True)
        context = F.scaled_dot_product_attention(q, k, v, (mask | ~any_real)[:, None, None], dropout)
        return self.out(context.masked_fill(~any_real[..., None, None], 0.0).transpose(1, 2).flatten(2))


class PublishedTransformerTeacher(nn.Module):
    """The transformer teacher exactly as published.

    - One linear layer, one LayerNorm and one self-attention are used in every place.
    - The first residual of the encoder is the attention's output, not its input.
    - The decoder starts from the same query in every round, so only the last round counts; the others are not computed.
    - The query is the same vector for every slot, so all rows of A are equal.
    - There are no position encodings.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.self_attend = Attention(width, heads, dropout)
        self.attend = Attention(width, heads, dropout)
        self.dense, self.norm = nn.Linear(width, width), layer_norm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, clip: ObjectFeatures) -> Float[Tensor, "B J H"]:
        """The actions A."""
        memory, present = clip.objects, clip.present
        for _ in range(ENCODER_ROUNDS):
            attended = self.self_attend(memory, memory, present)
            memory = self.feed_forward(self.norm(self.dropout(self.dense(attended)) + attended))
        query = masked_max(clip.frames, clip.mask)[:, None].expand_as(memory)
        all_slots = torch.ones_like(present)
        query = self.norm(self.dropout(self.dense(self.self_attend(query, query, all_slots))) + query)
        query = self.norm(query + self.dropout(self.dense(self.attend(query, memory, present))))
        return self.feed_forward(query)

    def feed_forward(self, x: Float[Tensor, "B J H"]) -> Float[Tensor, "B J H"]:
        """Feed-forward layer with residual; both linear layers are the same one, as published."""
        return self.norm(self.dropout(self.dense(F.gelu(self.dense(x)))) + x)


class TransformerTeacher(nn.Module):
    """The transformer teacher as a usual post-norm encoder, whose rounds share their weights, and one decoder layer.

    Unlike the published one it has separate layers in every place, residuals on the input, and position encodings,
    which make slots differ and give frames an order.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attends = nn.ModuleList(Attention(width, heads, dropout) for _ in range(3))
        self.norms = nn.ModuleList(layer_norm(width) for _ in range(5))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(2)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, clip: ObjectFeatures) -> Float[Tensor, "B J H"]:
        """The actions A."""
        present = clip.present
        position = sinusoidal_encoding(frame_positions(present), clip.objects.shape[-1]).to(clip.objects.dtype)
        encode, decode, cross = self.attends
        memory = clip.objects + position
        for _ in range(ENCODER_ROUNDS):
            memory = self.norms[0](memory + self.dropout(encode(memory, memory, present)))
            memory = self.norms[1](memory + self.dropout(self.feeds[0](memory)))
        query = masked_max(clip.frames, clip.mask)[:, None] + position
        query = self.norms[2](query + self.dropout(decode(query, query, present)))
        query = self.norms[3](query + self.dropout(cross(query, memory, present)))
        return self.norms[4](query + self.dropout(self.feeds[1](query)))


class LstmTeacher(nn.Module):
    """The teacher as a bidirectional LSTM over the objects."""

    def __init__(self, width: int):
        super().__init__()
        self.lstm = bilstm(width, width)

    def forward(self, clip: ObjectFeatures) -> Float[Tensor, "B J H"]:
        """The actions A."""
        return run_bilstm(self.lstm, clip.objects, clip.present)


class ObjectQueries(nn.Module):
    """A fixed number of object slots: learned queries that attend to all frames (as in DETR, arXiv:2005.12872)."""

    def __init__(self, count: int, width: int, heads: int, dropout: float):
        super().__init__()
        self.question = nn.Parameter(torch.randn(count, width))
        self.attend, self.norm = Attention(width, heads, dropout), layer_norm(width)

    def forward(self, frames: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B J H"]:
        query = self.question.expand(len(frames), -1, -1)
        return self.norm(query + self.attend(query, frames, mask))


class HierarchicalAttention(nn.Module):
    """Hierarchical attention (HAM): frames attend to actions, then to the results of all frames; a BiLSTM follows.

        e1[t, j] = Uv v_t + Ua A_j + ba,    a1_t = sum_j softmax_j(wa . tanh e1[t, j]) e1[t, j]
        e2[t, s] = Uv v_t + a1_s + bv,      a2_t = sum_s softmax_s(wv . tanh e2[t, s]) e2[t, s]
        g = linear(max over t of BiLSTM([v, a2, a1]))

    The sums are over e1 and e2 themselves, not over A.  Because the weights sum to 1, Uv v_t can be taken out of the
    sum: a1_t = Uv v_t + sum_j weight_j (Ua A_j + ba).
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
        query = self.of_frames(frames)
        first = query + self.attend(query, self.of_actions(actions), self.score_actions, present)  # a1
        second = query + self.attend(query, first + self.of_read, self.score_read, mask)  # a2
        return self.out(masked_max(run_bilstm(self.lstm, torch.cat([frames, second, first], -1), mask), mask))

    def attend(
        self, query: Float[Tensor, "B T H"], values: Float[Tensor, "B M H"], score: nn.Linear, mask: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B T H"]:
        """sum_m softmax_m(score . tanh(query_t + values_m)) values_m."""
        scores = score(torch.tanh(query[:, :, None] + values[:, None])).squeeze(-1)
        return masked_softmax(scores, mask[:, None]) @ values


class SftNetwork(nn.Module):
    """The network of the teacher (with a `module`) or of the student (`module` None).

    One network can also be both; the student then leaves `module` out.
    """

    def __init__(
        self,
        feature_dim: int,
        width: int,
        semantics: int,
        module: TeacherModule | None,
        max_objects: int | None,
        ham: bool,
        published: bool,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        self.frames = input_projection(feature_dim, width, dropout)
        self.slots = ObjectQueries(max_objects, width, heads, dropout) if max_objects else None
        self.objects = nn.Linear(width, width)
        self.module: nn.Module | None = None
        if module == "lstm":
            self.module = LstmTeacher(width)
        elif module == "transformer":
            self.module = (PublishedTransformerTeacher if published else TransformerTeacher)(width, heads, dropout)
        self.semantics = nn.Linear(width, semantics)
        self.ham = HierarchicalAttention(width, feature_dim) if ham else None
        self.whole = None if ham else nn.Linear(width, feature_dim)

    def encode_objects(self, grid: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> ObjectFeatures:
        """Embedded frames v and objects O."""
        frames, present = self.frames(grid), mask
        slots = frames
        if self.slots is not None:
            slots = self.slots(frames, mask)
            present = mask.new_ones(slots.shape[:2])
        return ObjectFeatures(frames, mask, self.objects(slots), present)

    def encode_clip(self, clip: ObjectFeatures, module: bool) -> ClipSemantics:
        """Actions, semantics and the global vector; `module` True is the teacher, False the student."""
        actions = clip.objects
        if module and self.module is not None:
            actions = self.module(clip)
        if self.ham is not None:
            vector = self.ham(actions, clip.frames, clip.present, clip.mask)
        else:
            assert self.whole is not None
            vector = self.whole(masked_max(actions, clip.present))
        objects = self.semantics(clip.objects)
        action_semantics = objects if actions is clip.objects else self.semantics(actions)
        return ClipSemantics(actions, objects, action_semantics, clip.present, vector)
