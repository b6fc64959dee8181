"""The conformance kit: limner's own captioners, encoders and metrics pass, and broken ones are named."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from limner.core.registry import Buildable, UnknownName
from limner.core.types import Features, Pixels
from limner.encoders import SmallCNN3DConfig, SmallCNNConfig, TinyConfig
from limner.metrics.bleu import bleu
from limner.metrics.cider import cider
from limner.metrics.references import Candidates, References, Score
from limner.metrics.rouge import rouge_l
from limner.models import CAPTIONERS
from limner.models.captioner import TeacherForced
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.runs.register import register
from limner.testing import CHECKS, check_captioner, check_encoder, check_metric
from tests.models.captioners import SMALL


@pytest.mark.parametrize("case", SMALL)
def test_our_own_captioners_pass(case: str) -> None:
    name = case.split(",", maxsplit=1)[0]
    config = CAPTIONERS[name].config(name=name, **SMALL[case])
    assert check_captioner(config) == [*CHECKS, "a large beam equals exhaustive search"]


@pytest.mark.parametrize(
    "config",
    [
        SmallCNNConfig(size=32, width=8, dim=12),
        SmallCNN3DConfig(size=32, width=8, dim=12),
        TinyConfig(size=32),
    ],
    ids=lambda config: config.name,
)
def test_our_own_encoders_pass(config: Any) -> None:
    features = check_encoder(config)
    assert features.layout.cells == features.grid.shape[1] and features.layout.t == 1


def test_our_own_metrics_pass() -> None:
    assert check_metric(rouge_l) == 1.0
    assert check_metric(partial(bleu, order=4)) == pytest.approx(1.0)
    assert check_metric(cider) > 1.0


@dataclass(frozen=True)
class BrokenConfig(ShowAttendTellConfig):
    name: Literal["broken"] = "broken"  # type: ignore[assignment]
    fault: str = ""


class Broken(ShowAttendTell):
    """Show, Attend and Tell with one broken promise."""

    def encode(self, inputs: Features | Pixels) -> Any:
        assert isinstance(inputs, Features)
        fault = self.config.fault  # type: ignore[attr-defined]
        if fault == "reads masked cells":
            inputs = replace(inputs, mask=torch.ones_like(inputs.mask))
        if fault == "mixes rows":
            inputs = replace(inputs, grid=inputs.grid + inputs.grid.mean(0))
        return super().encode(inputs)

    def forward_teacher_forced(self, memory: Any, tokens: Tensor) -> TeacherForced:
        forced = super().forward_teacher_forced(memory, tokens)
        fault = self.config.fault  # type: ignore[attr-defined]
        if fault == "another sum":
            return forced._replace(logits=forced.logits * 1.01)
        if fault == "speaks after the end":
            return forced._replace(attention=forced.attention + 0.1)
        return forced


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fault": "reads masked cells"}, "attention to masked cells|other values in masked cells"),
        ({"fault": "mixes rows"}, "captions of a medium share its memory|picked rows|row 0 alone"),
        ({"fault": "another sum"}, "teacher forcing equals stepping: logits"),
        ({"fault": "speaks after the end"}, "teacher forcing equals stepping: attention"),
        ({"mask_special_tokens": False}, "PAD or BOS can be predicted: use WordHead"),
    ],
)
def test_broken_promises_are_named(options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CAPTIONERS, "broken", Buildable(BrokenConfig, Broken))
    config = BrokenConfig(hidden=7, embed=5, attention=4, **options)
    with pytest.raises(AssertionError, match=f"broken: .*({message})"):
        check_captioner(config)


@pytest.mark.parametrize(
    ("corpus", "segments", "message"),
    [
        (float("nan"), [0.0] * 3, "the corpus score is nan"),
        (0.5, [0.5], "1 scores for 3 media"),
        (0.5, [0.5] * 3, "right captions score 0.5000, wrong ones 0.5000"),
    ],
)
def test_a_broken_metric_is_named(corpus: float, segments: list[float], message: str) -> None:
    def broken(candidates: Candidates, references: References) -> Score:
        return Score(corpus, np.array(segments))

    with pytest.raises(AssertionError, match=message):
        check_metric(broken)


def test_what_cannot_be_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'model'; known are captioner, encoder"):
        register("model")
    with pytest.raises(ValueError, match=r"there already is a captioner called 'show_attend_tell'"):
        register("captioner", ShowAttendTellConfig)(Broken)
    with pytest.raises(ValueError, match=r'a metric is registered by its name: register\("metric", "NAME"\)'):
        register("metric")(rouge_l)
    with pytest.raises(ValueError, match=r"a encoder is registered with its config class"):
        register("encoder", "mine")(Broken)
    with pytest.raises(ValueError, match=r'int needs a field like: name: Literal\["my_name"\]'):
        register("captioner", int)(Broken)
    with pytest.raises(UnknownName, match="unknown captioner 'nobody'; known are show_attend_tell, "):
        CAPTIONERS["nobody"]
