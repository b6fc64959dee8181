"""What every model offers the rest of the toolkit: encode, init_state, step, teach.

Rows: a memory has B rows, one per medium.  Tokens and states have R = K * B rows, K neighbouring ones per medium
(the beams or samples of that medium), so that nothing computed once per picture is copied K times.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.types import EOS, PAD, Features, Pixels
from limner.models.position_embedding import PositionEmbedding

Own = TypeVar("Own", bound="Captioner")


@runtime_checkable
class CaptionerConfig(Protocol):
    """The config of a captioner: a frozen dataclass whose `name` is a literal that no other captioner has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...


class Step(NamedTuple):
    logits: Float[Tensor, "R V"]
    state: Any  # nested tuple of tensors, R rows each
    attention: Float[Tensor, "R N"]


class TeacherForced(NamedTuple):
    """Teacher forcing: `logits[:, i]` predicts the token after `tokens[:, i]`; all are 0 once a row has ended."""

    logits: Float[Tensor, "R L V"]
    attention: Float[Tensor, "R L N"]
    hidden: Float[Tensor, "R L H"] | None = None  # `Captioner.hidden` after every token


class Captioner(nn.Module, ABC):
    """The base of every captioner.

    Contract: `Captioner(config, vocabulary_size, feature_dim)`; PAD and BOS score -inf at every step (`WordHead` does
    it), because a search could choose them otherwise; in evaluation mode the rows of a batch do not influence each
    other; cells whose mask is False have no influence.  `limner.testing.check_captioner` checks all of it.
    """

    config: Any  # a `CaptionerConfig`
    position_embedding: PositionEmbedding | None  # of those that have one
    attends: bool = True  # False: the attention that it returns is the same for all words, over all real cells
    partial: ClassVar[bool] = False  # True: some parameters take no part in its own captions (one of two sides)
    sides: ClassVar[tuple[str, ...]] = ()  # names of `config.side`, where one model has several that caption
    reads_media_as_published: ClassVar[bool] = False  # False: published on stored features, without an encoder
    reads_own_weights: ClassVar[bool] = False  # True: multiplies by `layer.weight` itself, so layers cannot be replaced

    @abstractmethod
    def encode(self, inputs: Features | Pixels) -> Any:
        """Everything that is computed once per medium: a nested tuple of tensors, B rows each."""

    @abstractmethod
    def init_state(self, memory: Any) -> Any:
        """Decoder state before the first token: a nested tuple of tensors, B rows each."""

    @abstractmethod
    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        """One token in, scores of the next one out."""

    @abstractmethod
    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """`step` along given tokens, as fast as the model allows; equal to `unroll`."""

    def hidden(self, state: Any) -> Float[Tensor, "R H"] | None:
        """What the last step's scores were read from, for objectives that look at it; None when there is no such
        vector."""
        return None

    def caption_parameters(self) -> list[nn.Parameter]:
        """The parameters that its captions depend on."""
        return list(self.parameters())

    def select_side(self, side: str) -> None:
        """From now on its captions are those of `side`.  Raises ValueError when it has no such side."""
        if side not in self.sides:
            known = f"its sides are {', '.join(self.sides)}" if self.sides else "it has one side only"
            raise ValueError(f"a {self.config.name} has no side {side!r}: {known}")
        self.config = replace(self.config, side=side)

    def token_vector_layers(self) -> list[nn.Module]:
        """The layers, V rows each, that begin with CLIP's token vectors where a recipe asks for them: the embedding."""
        return [self.get_submodule("embed")]

    def gradcam_cells(self, memory: Any, features: Features) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        """The cells that Grad-CAM differentiates by, and which of them are real: the features that it reads."""
        return features.grid, features.mask

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> "tuple[Captioner, Features]":
        """The same captioner and media, in a form in which what a cell says does not depend on which others are there:
        for explanations, which take cells away.

        A model that tells cells when they come takes the last real frame for the clip's end, and one that resamples
        maps needs them whole: both would be shown another clip.  So cells are told, and maps resampled, beforehand.
        """
        embedding = getattr(self, "position_embedding", None)
        return (
            (self, features) if embedding is None else (self.without("position_embedding"), embedding.add_to(features))
        )

    def without(self: Own, *parts: str) -> Own:
        """A shallow copy that shares all weights and lacks these parts."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, **dict.fromkeys(parts)}
        return twin

    def forward(self, inputs: Features | Pixels, tokens: Int[Tensor, "R L"]) -> Float[Tensor, "R L V"]:
        return self.forward_teacher_forced(self.encode(inputs), tokens).logits


def not_ended(tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """True where an input token still has a successor: before the row's EOS or padding."""
    ended = (tokens == EOS) | (tokens == PAD)
    return ended.cumsum(1) == 0


def unroll(model: Captioner, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
    """The slow twin of `forward_teacher_forced`: one `step` after the other over the whole batch."""
    state, steps = model.init_state(memory), []
    captions = len(tokens) // len(first_tensor(state))
    state = map_tensors(lambda x: x.repeat_interleave(captions, 0), state)
    alive = not_ended(tokens)
    for i in range(tokens.shape[1]):
        out = model.step(tokens[:, i], state, memory)
        state = out.state
        keep = alive[:, i, None]
        given = [x for x in (out.logits, out.attention, model.hidden(state)) if x is not None]
        steps.append([torch.where(keep, x, torch.zeros_like(x)) for x in given])
    return TeacherForced(*(torch.stack(column, 1) for column in zip(*steps, strict=True)))


def unroll_recurrent(
    advance: Callable[[Tensor, Any], tuple[Any, Tensor]],
    hidden: Callable[[Any], Tensor],
    say: Callable[[Tensor], Tensor],
    state: Any,
    tokens: Int[Tensor, "R L"],
) -> TeacherForced:
    """`forward_teacher_forced` of a captioner that reads the word before and its own last state.

    `advance(token, state)` -> the new state and attention, over all rows; what is `hidden` in the states becomes scores
    at once, where a word is to be predicted (`say`).  `state` has a row per medium.
    """
    alive = not_ended(tokens)
    captions = len(tokens) // len(first_tensor(state))
    state = map_tensors(lambda x: x.repeat_interleave(captions, 0), state)
    said, attention = [], []
    for t in range(int(alive.sum(1).max())):
        state, weights = advance(tokens[:, t], state)
        said.append(hidden(state))
        attention.append(weights)
    row, time = alive.nonzero(as_tuple=True)

    def spread(packed: Tensor) -> Tensor:
        return packed.new_zeros(*tokens.shape, packed.shape[-1]).index_put((row, time), packed)

    states, weights = (torch.stack(steps, 1)[row, time] for steps in (said, attention))
    return TeacherForced(spread(say(states)), spread(weights), spread(states))


def first_tensor(tree: Any) -> Tensor:
    """The first tensor of a nested tuple."""
    return tree if isinstance(tree, Tensor) else first_tensor(tree[0])


def map_tensors(fn: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply `fn` to every tensor of a nested tuple; named tuples keep their names."""
    if isinstance(tree, Tensor):
        return fn(tree)
    items = [map_tensors(fn, item) for item in tree]
    return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)


class CaptionerWrapper(Captioner):
    """A captioner whose inputs something is done to first; what it does with them then is its own business."""

    captioner: Captioner

    @property
    def attends(self) -> bool:  # type: ignore[override]
        return self.captioner.attends

    def init_state(self, memory: Any) -> Any:
        return self.captioner.init_state(memory)

    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        return self.captioner.step(token, state, memory)

    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        return self.captioner.forward_teacher_forced(memory, tokens)

    def hidden(self, state: Any) -> Float[Tensor, "R H"] | None:
        return self.captioner.hidden(state)


class FromPixels(CaptionerWrapper):
    """An encoder in front of a captioner: the same four verbs, from raw frames, for end-to-end training."""

    def __init__(self, encoder: nn.Module, captioner: Captioner):
        super().__init__()
        self.encoder = encoder
        self.captioner = captioner

    def encode(self, inputs: Features | Pixels) -> Any:
        return self.captioner.encode(self.encoder(inputs) if isinstance(inputs, Pixels) else inputs)
