"""Searches that begin without a start token: the model predicts the first token from the medium alone.

VideoCaptioning (yiskw713) is trained to predict <start> from the clip, and its generator takes whatever word it
predicts there.  limner's own searches begin with BOS instead.

Example: the clip's likeliest first token is <start>, then follow "a man <end>".  The tokens of the caption are
<start> a man <end>, those of limner's own search a man <end>; both are written "a man".
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from limner.decode.ensemble import Inputs
from limner.decode.options import Beam
from limner.models.captioner import Captioner, CaptionerWrapper, Step, first_tensor


class PredictedStart(CaptionerWrapper):
    """A captioner whose first step does not read its token: it predicts the first token from the medium alone."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    def encode(self, inputs: Any) -> Any:
        return self.captioner.encode(inputs)

    def init_state(self, memory: Any) -> Any:
        """The captioner's state, and for every row whether nothing has been predicted yet."""
        state = self.captioner.init_state(memory)
        rows = first_tensor(state)
        return state, torch.ones(len(rows), dtype=torch.bool, device=rows.device)

    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        inner, first = state
        following = self.captioner.step(token, inner, memory)
        if not first.all():
            return following._replace(state=(following.state, first))
        logits = self.captioner.start_logits(inner)
        if logits is None:
            raise ValueError(
                "this model does not predict its first token (only converted VideoCaptioning does): "
                "set decoding.predict_start to false"
            )
        return Step(logits, (inner, torch.zeros_like(first)), following.attention)


def with_predicted_start(model: Captioner, inputs: Inputs, options: Beam) -> tuple[Captioner, Inputs, Beam]:
    """The arguments of `beam` for a search in which the model predicts its first token, in one more step."""
    rules = replace(options.rules, max_length=options.rules.max_length + 1)
    return PredictedStart(model), inputs, replace(options, predict_start=False, rules=rules)
