"""The interface of all captioners: encode, init_state, step, forward_teacher_forced.

Rows: a memory has B rows, one per medium.  Tokens and states have R = K * B rows, K neighbouring rows per medium (its
beams, samples or captions).  Results that are computed once per medium are therefore not copied K times.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.derived import Derived
from limner.core.types import EOS, PAD, Features, Pixels
from limner.models.position_embedding import PositionEmbedding

CaptionerT = TypeVar("CaptionerT", bound="Captioner")


@runtime_checkable
class CaptionerConfig(Protocol):
    """The config of a captioner: a frozen dataclass whose `name` is a literal that no other captioner has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...


class Step(NamedTuple):
    """The result of one decoding step for R rows over V words and N cells."""

    logits: Float[Tensor, "R V"]
    state: Any  # nested tuple of tensors, R rows each; a `decoding_step` may add what all rows share
    attention: Float[Tensor, "R N"]  # sums to 1 over the real cells


DecodingStep = Callable[[Tensor, Any, Any], Step]  # (token (R,), state, memory) -> Step


class TeacherForced(NamedTuple):
    """The result of teacher forcing: `logits[:, i]` predict the token after `tokens[:, i]`.

    All values are 0 at and after the position where a row of tokens has ended.
    """

    logits: Float[Tensor, "R L V"]
    attention: Float[Tensor, "R L N"]
    hidden: Float[Tensor, "R L H"] | None = None  # `Captioner.hidden` after every token; None for models without


class Captioner(nn.Module, ABC):
    """Base class of all captioners.

    Contract:

    - The constructor is `Captioner(config, vocabulary_size, feature_dim)`.
    - PAD and BOS score -inf at every step, or a search could choose them (`WordHead` does this).
    - In evaluation mode the rows of a batch do not influence each other.
    - Cells with mask False have no influence.

    `limner.testing.check_captioner` checks the contract.
    """

    config: Any  # a `CaptionerConfig`
    position_embedding: PositionEmbedding | None  # only in captioners that have one
    attends: bool = True  # False: its attention is uniform over the real cells at every word
    partial: ClassVar[bool] = False  # True: its captions depend on only some parameters (one of two sides)
    sides: ClassVar[tuple[str, ...]] = ()  # values of `config.side`, for a model with several captioning sides
    reads_media_as_published: ClassVar[bool] = False  # True: published together with an encoder for raw media
    reads_own_weights: ClassVar[bool] = False  # True: it uses `layer.weight` directly, so layers cannot be replaced

    @abstractmethod
    def encode(self, inputs: Features | Pixels) -> Any:
        """Compute the memory, everything that is needed once per medium: a nested tuple of tensors, B rows each."""

    @abstractmethod
    def init_state(self, memory: Any) -> Any:
        """The decoder state before the first token: a nested tuple of tensors, B rows each."""

    @abstractmethod
    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        """Read one token per row and predict the next one.  Logits of the first step come from BOS."""

    @abstractmethod
    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """Run `step` along given tokens, which begin with BOS, as fast as the model allows.  Equal to `unroll`."""

    def decoding_step(self) -> "DecodingStep":
        """The fastest form of `step` as the model is now, for a search: another function with equal results up to
        rounding, or `step` itself."""
        return self.step

    def hidden(self, state: Any) -> Float[Tensor, "R H"] | None:
        """The vector from which the last step's logits were computed, for objectives; None when there is none."""
        return None

    def start_logits(self, state: Any) -> Float[Tensor, "R V"] | None:
        """The scores of the first token before any token is read; None for models that do not predict it."""
        return None

    def caption_parameters(self) -> list[nn.Parameter]:
        """The parameters on which its captions depend."""
        return list(self.parameters())

    def select_side(self, side: str) -> None:
        """Switch to the captions of `side`.  Raises ValueError when it has no such side."""
        if side not in self.sides:
            known = f"its sides are {', '.join(self.sides)}" if self.sides else "it has one side only"
            raise ValueError(f"a {self.config.name} has no side {side!r}: {known}")
        self.config = replace(self.config, side=side)

    def token_vector_layers(self) -> list[nn.Module]:
        """The layers with V rows that a recipe can initialise with CLIP's token vectors: the word embedding."""
        return [self.get_submodule("embed")]

    def gradcam_cells(self, memory: Any, features: Features) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        """The cells for which Grad-CAM computes gradients, and which of them are real: the features by default."""
        return features.grid, features.mask

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> "tuple[Captioner, Features]":
        """The same captioner and media in a form where removing a cell does not change the other cells.

        Explanations by occlusion remove cells.  A position embedding takes the last real frame for the end of the clip,
        and a model that resamples maps needs complete maps; removing cells would change both.  Positions are therefore
        added, and maps resampled, before cells are removed.
        """
        embedding = getattr(self, "position_embedding", None)
        return (
            (self, features) if embedding is None else (self.without("position_embedding"), embedding.add_to(features))
        )

    def without(self: CaptionerT, *parts: str) -> CaptionerT:
        """A shallow copy that shares all weights and has None in place of the given submodules."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, **dict.fromkeys(parts)}
        return twin

    def forward(self, inputs: Features | Pixels, tokens: Int[Tensor, "R L"]) -> Float[Tensor, "R L V"]:
        """Teacher-forced logits."""
        return self.forward_teacher_forced(self.encode(inputs), tokens).logits


def not_ended(tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """True at the positions whose next token must be predicted: those before the row's EOS or padding.

    >>> not_ended(torch.tensor([[1, 5, 6, 2, 0]])).tolist()  # BOS, two words, EOS, PAD
    [[True, True, True, False, False]]
    """
    ended = (tokens == EOS) | (tokens == PAD)
    return ended.cumsum(1) == 0


def unroll(model: Captioner, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
    """The reference implementation of `forward_teacher_forced`: one `step` after the other over all rows."""
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
    recurrent_step: Callable[[Tensor, Any], tuple[Any, Tensor]],
    hidden: Callable[[Any], Tensor],
    predict: Callable[[Tensor], Tensor],
    state: Any,
    tokens: Int[Tensor, "R L"],
) -> TeacherForced:
    """`forward_teacher_forced` for a recurrent captioner.

    `recurrent_step(token, state)` gives the new state and the attention of all rows; `hidden(state)` is the vector that
    words are predicted from; `predict` turns these vectors into logits, once for all positions that need a word.
    `state` is the initial one, with a row per medium.
    """
    alive = not_ended(tokens)
    captions = len(tokens) // len(first_tensor(state))
    state = map_tensors(lambda x: x.repeat_interleave(captions, 0), state)
    states, attention = [], []
    for t in range(int(alive.sum(1).max())):
        state, weights = recurrent_step(tokens[:, t], state)
        states.append(hidden(state))
        attention.append(weights)
    row, time = alive.nonzero(as_tuple=True)

    def spread(packed: Tensor) -> Tensor:
        return packed.new_zeros(*tokens.shape, packed.shape[-1]).index_put((row, time), packed)

    vectors, weights = (torch.stack(steps, 1)[row, time] for steps in (states, attention))
    return TeacherForced(spread(predict(vectors)), spread(weights), spread(vectors))


def first_tensor(tree: Any) -> Tensor:
    """The first tensor of a nested tuple, whose length is the number of rows."""
    return tree if isinstance(tree, Tensor) else first_tensor(tree[0])


def map_tensors(fn: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply `fn` to every tensor of a nested tuple; named tuples keep their type, and other values stay as they are."""
    if isinstance(tree, Tensor):
        return fn(tree)
    if not isinstance(tree, tuple | list):
        return tree
    items = [map_tensors(fn, item) for item in tree]
    return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)


class CaptionerWrapper(Captioner):
    """Base class of captioners that change their inputs and pass them to the captioner inside."""

    captioner: Captioner

    @property
    def attends(self) -> bool:  # type: ignore[override]
        return self.captioner.attends

    def init_state(self, memory: Any) -> Any:
        return self.captioner.init_state(memory)

    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        return self.captioner.step(token, state, memory)

    def decoding_step(self) -> DecodingStep:
        own = type(self).step is not CaptionerWrapper.step  # it changes what the captioner inside does
        return self.step if own else self.captioner.decoding_step()

    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        return self.captioner.forward_teacher_forced(memory, tokens)

    def hidden(self, state: Any) -> Float[Tensor, "R H"] | None:
        return self.captioner.hidden(state)

    def start_logits(self, state: Any) -> Float[Tensor, "R V"] | None:
        return self.captioner.start_logits(state)


class FromPixels(CaptionerWrapper):
    """An encoder in front of a captioner: it captions raw frames and can be trained end to end.

    Where the encoder needs no gradient and is in evaluation mode, it runs in its `inference_form`, if it has one.
    """

    def __init__(self, encoder: nn.Module, captioner: Captioner):
        super().__init__()
        self.encoder = encoder
        self.captioner = captioner
        self._inference_form = Derived[Callable[[Pixels], Features]]()

    def train(self, mode: bool = True) -> "FromPixels":
        """Set the mode.  A frozen encoder stays in evaluation mode: the statistics of its BatchNorm do not change."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def encode(self, inputs: Features | Pixels) -> Any:
        return self.captioner.encode(self.features(inputs) if isinstance(inputs, Pixels) else inputs)

    def features(self, pixels: Pixels) -> Features:
        """The cells of raw frames."""
        weights = list(self.encoder.parameters())
        trained = self.encoder.training or (torch.is_grad_enabled() and any(it.requires_grad for it in weights))
        form = None if trained else getattr(self.encoder, "inference_form", None)
        run = self.encoder if form is None else self._inference_form.get(weights, form)
        features: Features = run(pixels)
        return features
