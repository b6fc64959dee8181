"""SFTCap: a teacher and a student that encode a clip differently, with a prefix language model as caption head.

In the published system (ccc000-png/SFTCap) one network is both; here they may also be two networks.  Captions are those
of `side`.  The objective `sft` (limner.objectives.hierarchical) trains both sides; cross entropy trains `side` alone.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import EOS, PAD, Features, Pixels
from limner.models.captioner import Captioner, Step, TeacherForced, not_ended
from limner.models.sft_head import Memory, SftHead, WordCache
from limner.models.sft_network import HEADS, ClipSemantics, SftNetwork


@dataclass(frozen=True)
class SftConfig:
    """Options of `sft`."""

    name: Literal["sft"] = "sft"
    side: Literal["student", "teacher"] = "student"  # the side that writes the captions
    module: Literal["transformer", "lstm"] = "transformer"  # of the teacher: how it turns objects into actions
    # what teacher and student share: everything but the module (published), the caption head, or nothing
    shared: Literal["all", "head", "nothing"] = "head"
    hidden: PositiveInt = 512  # width of the caption head; published: that of the frame features
    embed: PositiveInt = 512  # width of the word embedding
    width: PositiveInt = 512  # width of teacher and student
    layers: PositiveInt = 2  # of the caption head
    heads: PositiveInt = HEADS  # of every attention
    # object slots that attend to all frames; None: one slot per frame, as published
    max_objects: PositiveInt | None = None
    ham: bool = True  # hierarchical attention; False: the global vector is a linear map of the maximum over the actions
    dropout: FractionBelowOne = 0.1  # in the networks and the caption head
    published: bool = False  # exactly the published transformer teacher (see PublishedTransformerTeacher)
    masked: bool = True  # False: padded frames count as frames, as published
    mask_special_tokens: bool = True  # PAD and BOS get probability 0
    unknown: bool = True  # False: the unknown word gets probability 0 too; byte pairs have none


class State(NamedTuple):
    """The key-value cache of t words (see `WordCache`), and the last output."""

    keys: tuple[Float[Tensor, "R heads t c"], ...]  # one entry per layer
    values: tuple[Float[Tensor, "R heads t c"], ...]
    visible: Bool[Tensor, "R t"]
    ended: Bool[Tensor, " R"]  # EOS was read; the padding that follows is not visible
    hidden: Float[Tensor, "R h"]  # the vector from which the last logits were computed


class SideEncoding(NamedTuple):
    """The encoding of a batch by one side (teacher or student), and the caption head that reads it."""

    semantics: ClipSemantics
    memory: Memory
    head: SftHead


class Sft(Captioner):
    """Teacher, student and caption head; `config.side` selects whose captions it writes."""

    partial = True
    reads_media_as_published = True
    sides = ("student", "teacher")
    reads_own_weights = True

    def __init__(self, config: SftConfig, vocabulary_size: int, feature_dim: int):
        """Raises ValueError when a width is not a multiple of the number of heads."""
        super().__init__()
        for name, size in (("hidden", config.hidden), ("width", config.width)):
            if size % config.heads or (name == "width" and size % 2):
                raise ValueError(
                    f"model.{name} is {size}; it must be a multiple of model.heads, {config.heads}"
                    f"{', and of 2, the directions of an LSTM' if name == 'width' else ''}"
                )
        self.config = config

        def network(module: Literal["transformer", "lstm"] | None) -> SftNetwork:
            return SftNetwork(
                feature_dim,
                config.width,
                config.hidden,
                module,
                config.max_objects,
                config.ham,
                config.published,
                config.heads,
                config.dropout,
            )

        def head() -> SftHead:
            return SftHead(
                vocabulary_size,
                feature_dim,
                config.embed,
                config.hidden,
                config.layers,
                config.heads,
                config.dropout,
                config.mask_special_tokens,
                config.unknown,
            )

        both = config.shared == "all"
        self.network = network(config.module if both else None)
        self.teacher = None if both else network(config.module)
        self.head = head()
        self.teacher_head = head() if config.shared == "nothing" else None

    @property
    def embed(self) -> nn.Embedding:
        return self.head.embed

    def encode_both_sides(self, inputs: Features | Pixels) -> dict[str, SideEncoding]:
        """The encodings of a batch by `teacher` and `student`.  What they share is computed once."""
        grid, mask = self._cells(inputs)
        objects = self.network.encode_objects(grid, mask)
        if self.teacher is None:
            clips = {
                "teacher": self.network.encode_clip(objects, True),
                "student": self.network.encode_clip(objects, False),
            }
        else:
            clips = {"teacher": self.teacher.encode_clip(self.teacher.encode_objects(grid, mask), True)}
            clips["student"] = self.network.encode_clip(objects, False)
        return {name: self._side(name, grid, mask, clip) for name, clip in clips.items()}

    def encode_side(self, inputs: Features | Pixels, side: str) -> SideEncoding:
        """The encoding of a batch by one side."""
        grid, mask = self._cells(inputs)
        network = self._network(side)
        return self._side(side, grid, mask, network.encode_clip(network.encode_objects(grid, mask), side == "teacher"))

    def caption_parameters(self) -> list[nn.Parameter]:
        """The parameters on which the captions of `side` depend."""
        network = self._network(self.config.side)
        parts = [*network.named_parameters(), *self._head(self.config.side).named_parameters()]
        unused = () if self.config.side == "teacher" else ("module.",)
        return [parameter for name, parameter in parts if not name.startswith(unused)]

    def token_vector_layers(self) -> list[nn.Module]:
        """The embedding and, when it is as wide, also the word layer, as published."""
        tied = self.config.hidden == self.config.embed
        return [self.embed, self.head.words] if tied else [self.embed]

    def _side(
        self, name: str, grid: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], semantics: ClipSemantics
    ) -> SideEncoding:
        head = self._head(name)
        return SideEncoding(semantics, head.encode_visual(grid, mask, semantics.vector), head)

    def _network(self, side: str) -> SftNetwork:
        return self.teacher if side == "teacher" and self.teacher is not None else self.network

    def _head(self, side: str) -> SftHead:
        return self.teacher_head if side == "teacher" and self.teacher_head is not None else self.head

    def _cells(self, inputs: Features | Pixels) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        if self.config.masked:
            return inputs.grid.masked_fill(~inputs.mask[..., None], 0.0), inputs.mask
        return inputs.grid.masked_fill(~inputs.mask[..., None], 0.0), torch.ones_like(inputs.mask)

    def encode(self, inputs: Features | Pixels) -> Memory:
        return self.encode_side(inputs, self.config.side).memory

    def init_state(self, memory: Memory) -> State:
        cache = self._head(self.config.side).empty_cache(memory)
        hidden = cache.keys[0].new_zeros(len(memory.start), self.config.hidden)
        return State(*cache, torch.zeros_like(memory.mask[:, 0]), hidden)

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        """Read one token: its keys and values are added to the state."""
        head = self._head(self.config.side)
        visible = ~(state.ended & (token == PAD))
        hidden, attention, cache = head.decode_words(token[:, None], visible[:, None], WordCache(*state[:3]), memory)
        state = State(*cache, state.ended | (token == EOS), hidden[:, 0])
        return Step(head.words(hidden[:, 0]), state, attention[:, 0])

    def hidden(self, state: State) -> Float[Tensor, "R h"]:
        """The vector that the word layer multiplied."""
        return state.hidden

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """All words at once.  The word layer runs only where a word must be predicted."""
        alive = not_ended(tokens)
        head = self._head(self.config.side)
        hidden, attention = teacher_forced_states(head, memory, tokens)
        words = head.words(hidden[alive])
        logits = words.new_zeros(*tokens.shape, words.shape[-1]).index_put(alive.nonzero(as_tuple=True), words)
        return TeacherForced(logits, attention * alive[..., None], hidden * alive[..., None])


def teacher_forced_states(
    head: SftHead, memory: Memory, tokens: Int[Tensor, "R L"]
) -> tuple[Float[Tensor, "R L h"], Float[Tensor, "R L N"]]:
    """Hidden states and attention along given words; 0 in columns where no row has a word to predict."""
    alive = not_ended(tokens)
    longest = max(1, int(alive.any(0).sum()))
    visible = torch.ones_like(tokens[:, :longest], dtype=torch.bool)  # padding follows every word that matters
    cache = head.empty_cache(memory, len(tokens) // len(memory.start))
    hidden, attention, _ = head.decode_words(tokens[:, :longest], visible, cache, memory)
    rest = (0, 0, 0, tokens.shape[1] - longest)
    return nn.functional.pad(hidden, rest), nn.functional.pad(attention, rest)
