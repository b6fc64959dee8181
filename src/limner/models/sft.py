"""SFTCap: a teacher and a student that see a clip differently, and one prefix language model that puts it into words.

The published system (ccc000-png/SFTCap) is one network that is both; here they may also be two.  Captions are those
of `side`.  Training both is the objective `sft` (limner.objectives.hierarchical); cross entropy alone trains `side`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import EOS, PAD, Features, Pixels
from limner.models.captioner import Captioner, Step, TeacherForced, not_ended
from limner.models.sft_head import Memory, SftHead, Words
from limner.models.sft_network import HEADS, Seen, SftNetwork


@dataclass(frozen=True)
class SftConfig:
    name: Literal["sft"] = "sft"
    side: Literal["student", "teacher"] = "student"  # whose captions these are
    module: Literal["transformer", "lstm"] = "transformer"  # the teacher's
    # what teacher and student have in common: everything but the module (published), the caption head, or nothing
    shared: Literal["all", "head", "nothing"] = "head"
    hidden: PositiveInt = 512  # caption head; published: as wide as the frame features
    embed: PositiveInt = 512  # words
    width: PositiveInt = 512  # teacher and student
    layers: PositiveInt = 2  # of the caption head
    heads: PositiveInt = HEADS  # of every attention
    max_objects: PositiveInt | None = None  # object slots that see all frames; None: one per frame, as published
    ham: bool = True  # False: the global vector is a linear map of the highest actions
    dropout: FractionBelowOne = 0.1  # in the networks and the head
    published: bool = False  # the transformer teacher to the letter (see PublishedTeacher)
    masked: bool = True  # False: padded frames are frames, as published
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax
    unknown: bool = True  # False: so is the unknown word, which byte pairs do not have


class State(NamedTuple):
    keys: tuple[Float[Tensor, "R heads t c"], ...]  # a layer each
    values: tuple[Float[Tensor, "R heads t c"], ...]
    seen: Bool[Tensor, "R t"]
    ended: Bool[Tensor, " R"]  # EOS was read: padding that follows is hidden
    hidden: Float[Tensor, "R h"]


class SideView(NamedTuple):
    """One side's view of a batch, and the head that puts it into words."""

    seen: Seen
    memory: Memory
    head: SftHead


class Sft(Captioner):
    partial = True
    reads_media_as_published = True
    sides = ("student", "teacher")
    reads_own_weights = True

    def __init__(self, config: SftConfig, vocabulary_size: int, feature_dim: int):
        """Raises ValueError for widths that do not divide."""
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

    def both_sides(self, inputs: Features | Pixels) -> dict[str, SideView]:
        """`teacher` and `student`, all that both of them make of a batch.  What they share is computed once."""
        grid, mask = self._cells(inputs)
        looked = self.network.look(grid, mask)
        if self.teacher is None:
            seen = {"teacher": self.network.see(looked, True), "student": self.network.see(looked, False)}
        else:
            seen = {"teacher": self.teacher.see(self.teacher.look(grid, mask), True)}
            seen["student"] = self.network.see(looked, False)
        return {name: self._side(name, grid, mask, one) for name, one in seen.items()}

    def see(self, inputs: Features | Pixels, side: str) -> SideView:
        """One of `both_sides` alone."""
        grid, mask = self._cells(inputs)
        network = self._network(side)
        return self._side(side, grid, mask, network.see(network.look(grid, mask), side == "teacher"))

    def caption_parameters(self) -> list[nn.Parameter]:
        """The parameters behind the captions of `side`: without what only the other side uses."""
        network = self._network(self.config.side)
        parts = [*network.named_parameters(), *self._head(self.config.side).named_parameters()]
        idle = () if self.config.side == "teacher" else ("module.",)
        return [parameter for name, parameter in parts if not name.startswith(idle)]

    def token_vector_layers(self) -> list[nn.Module]:
        """As published the word head begins with them too, where it is as wide as the embedding."""
        tied = self.config.hidden == self.config.embed
        return [self.embed, self.head.words] if tied else [self.embed]

    def _side(self, name: str, grid: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], seen: Seen) -> SideView:
        head = self._head(name)
        return SideView(seen, head.watch(grid, mask, seen.vector), head)

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
        return self.see(inputs, self.config.side).memory

    def init_state(self, memory: Memory) -> State:
        words = self._head(self.config.side).nothing(memory)
        hidden = words.keys[0].new_zeros(len(memory.start), self.config.hidden)
        return State(*words, torch.zeros_like(memory.mask[:, 0]), hidden)

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        """A token is read once: its keys and values join the state."""
        head = self._head(self.config.side)
        seen = ~(state.ended & (token == PAD))
        hidden, attention, words = head.read(token[:, None], seen[:, None], Words(*state[:3]), memory)
        state = State(*words, state.ended | (token == EOS), hidden[:, 0])
        return Step(head.next_words(hidden[:, 0]), state, attention[:, 0])

    def hidden(self, state: State) -> Float[Tensor, "R h"]:
        """What the word matrix was multiplied with."""
        return state.hidden

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """All words at once; the word head runs over those that have a successor."""
        alive = not_ended(tokens)
        head = self._head(self.config.side)
        hidden, attention = written(head, memory, tokens)
        words = head.words(hidden[alive])
        logits = words.new_zeros(*tokens.shape, words.shape[-1]).index_put(alive.nonzero(as_tuple=True), words)
        return TeacherForced(logits, attention * alive[..., None], hidden * alive[..., None])


def written(
    head: SftHead, memory: Memory, tokens: Int[Tensor, "R L"]
) -> tuple[Float[Tensor, "R L h"], Float[Tensor, "R L N"]]:
    """Hidden states and attention along given words.  Columns in which no row has a successor are 0."""
    alive = not_ended(tokens)
    longest = max(1, int(alive.any(0).sum()))
    seen = torch.ones_like(tokens[:, :longest], dtype=torch.bool)  # padding comes after all that is asked for
    none = head.nothing(memory, len(tokens) // len(memory.start))
    hidden, attention, _ = head.read(tokens[:, :longest], seen, none, memory)
    rest = (0, 0, 0, tokens.shape[1] - longest)
    return nn.functional.pad(hidden, rest), nn.functional.pad(attention, rest)
