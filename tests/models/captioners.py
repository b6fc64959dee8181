"""Small random captioners of every kind: a new model adds one line to SMALL and passes the shared suite."""

from typing import Any

import pytest
import torch

from limner.core.types import Features, Layout, Pixels
from limner.models import CAPTIONERS, build_model
from limner.models.captioner import Captioner, CaptionerWrapper, TeacherForced, map_tensors

V, D, N = 9, 10, 6  # words, channels, cells

SMALL: dict[str, dict[str, Any]] = {  # case -> the model's name and its sizes
    "show_attend_tell": {"hidden": 7, "embed": 5, "attention": 4},
    "show_attend_tell, all options": {
        **{"hidden": 7, "embed": 5, "attention": 4, "project": 6, "activation": "tanh"},
        **{"deep_output": True, "word_dropout": 0.3, "cell_dropout": 0.3},
    },
    "first_token": {"hidden": 7, "embed": 5, "noise": 0.1},
    "first_token, all options": {"hidden": 7, "embed": 5, "layers": 2, "pool": "max", "dropout": 0.3},
    "spatio_temporal": {"hidden": 7, "embed": 5, "attention": 4, "noise": 0.1},
    "sa_lstm": {"hidden": 7, "embed": 5, "attention": 4},
    "sa_lstm, all options": {
        **{
            "rnn": "gru",
            "layers": 2,
            "hidden": 7,
            "embed": 5,
            "attention": 4,
            "project": 6,
            "position_embedding": True,
        },
        **{"word_dropout": 0.3, "cell_dropout": 0.3},
    },
    "sft": {"hidden": 24, "embed": 6, "width": 16, "heads": 2},
    "sft, teacher with slots": {
        **{"hidden": 24, "embed": 6, "width": 16, "heads": 2, "side": "teacher", "max_objects": 3, "layers": 3},
    },
    "sft, published, shared": {
        **{"hidden": 24, "embed": 6, "width": 16, "heads": 2, "side": "teacher", "shared": "all", "published": True},
    },
    "sft, lstm without HAM, nothing shared": {
        **{"hidden": 24, "embed": 6, "width": 16, "heads": 2, "side": "teacher", "module": "lstm"},
        **{"shared": "nothing", "ham": False},
    },
    "spatial_transformer": {
        **{"encoder_layers": 1, "decoder_layers": 2, "dim": 8, "hidden": 9, "heads": 2, "positions": "none"},
    },
    "spatial_transformer, all options": {
        **{"encoder_layers": 1, "decoder_layers": 1, "dim": 8, "hidden": 9, "heads": 2},
        **{"activation": "gelu", "cross_attention": "xlinear", "positions": "none", "position_embedding": True},
    },
    "xlan": {"layers": 2, "dim": 8, "heads": 2, "mid": 3},
    "up_down": {"hidden": 6, "embed": 5, "attention": 4},
}
assert {case.split(",")[0] for case in SMALL} == set(CAPTIONERS), "every model has a small version here"


def small(case: str, seed: int = 0, **options: Any) -> Captioner:
    """A random captioner in evaluation mode; its word head is spread out, so that captions differ."""
    torch.manual_seed(seed)
    name = case.split(",", maxsplit=1)[0]
    model = build_model(CAPTIONERS[name].config(name=name, **(SMALL[case] | options)), V, D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):  # gains of 3 on top of each other drown float32 in rounding
                module.weight.div_(3)
    return model.eval()


class Mute(CaptionerWrapper):
    """A captioner that shows no hidden states."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    def encode(self, inputs: Features | Pixels) -> Any:
        return self.captioner.encode(inputs)

    def forward_teacher_forced(self, memory: Any, tokens: torch.Tensor) -> TeacherForced:
        return self.captioner.forward_teacher_forced(memory, tokens)._replace(hidden=None)

    def hidden(self, state: Any) -> None:
        return None


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> Captioner:
    return small(request.param)


def random_features(media: int = 4, seed: int = 1, ragged: bool = True) -> Features:
    """Random cells; medium 1 has four real ones and medium 2 a hole in the middle."""
    grid = torch.randn(media, N, D, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(media, N, dtype=torch.bool)
    if ragged:
        mask[1:2, 4:] = False
        mask[2:3, 2:4] = False
    return Features(grid, mask, Layout(1, 2, 3))


@pytest.fixture
def features() -> Features:
    return random_features()


def pick(features: Features, rows: list[int]) -> Features:
    return features.map(lambda x: x[rows])


def repeat(tree: Any, count: int) -> Any:
    return map_tensors(lambda x: x.repeat_interleave(count, 0), tree)
