"""limner-tiny's encoder: scale, grid, size, and that every cell is told by its own part of the picture."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from limner.core.types import Layout, Pixels
from limner.encoders import Tiny, TinyConfig, build_encoder
from limner.encoders.tiny import jitter_colours

SMALL = TinyConfig(size=64, widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1), dim=6)


def test_stride_32_and_the_layout_of_clips() -> None:
    features = build_encoder(SMALL)(Pixels(torch.zeros(2, 3, 3, 64, 96)))
    assert features.layout == Layout(3, 2, 3) and features.grid.shape == (2, 18, 6) and features.mask.all()


def test_cells_follow_the_frames_row_by_row() -> None:
    encoder = Tiny(SMALL).eval()
    frames = torch.randn(2, 3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    together = encoder(Pixels(frames)).grid.reshape(2, 3, 6, 6)
    torch.testing.assert_close(together[1, 2], encoder(Pixels(frames[1:, 2:])).grid[0], rtol=1e-4, atol=1e-5)


def test_preprocessing_by_hand() -> None:
    encoder = Tiny(SMALL)
    assert encoder.preprocess(np.full((2, 5, 9, 3), 255, np.uint8)).unique().tolist() == [1.0]
    assert encoder.preprocess(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3, 64, 64)


def test_the_weights_of_the_default_by_hand() -> None:
    def block(inputs: int, width: int) -> int:  # two 3x3 convolutions, their norms, and a shortcut where widths differ
        return 9 * width * (inputs + width) + 4 * width + (inputs != width) * (inputs * width + 2 * width)

    stem = 9 * 32 * (3 + 32) + 4 * 32
    body = block(32, 32) + sum(block(w // 2, w) + block(w, w) for w in (64, 128, 256))
    count = stem + body + 256 * 384 + 2 * 384
    assert sum(p.numel() for p in Tiny(TinyConfig()).parameters()) == count == 2_884_832


def test_jitter_keeps_grey_grey_a_clip_a_clip_and_stays_in_bounds() -> None:
    torch.manual_seed(0)
    frames = torch.rand(64, 1, 3, 4, 4).repeat(1, 2, 1, 1, 1)
    seen = jitter_colours(frames, 0.3)
    torch.testing.assert_close(seen[:, 0], seen[:, 1])
    moved = (seen - frames).mean((1, 2, 3, 4))  # contrast and saturation keep the mean
    assert moved.abs().max() <= 0.3 and 0.14 < moved.std() < 0.21  # U(-.3, .3) has .3 / sqrt(3) = .173
    grey = torch.rand(2, 1, 1, 4, 4).expand(-1, -1, 3, -1, -1)
    red, _, blue = jitter_colours(grey, 0.3).unbind(2)
    torch.testing.assert_close(red, blue)
    assert jitter_colours(frames, 0.0) is frames


def test_jitter_is_for_training_only() -> None:
    encoder = Tiny(replace(SMALL, colour_jitter=0.3))
    pixels = Pixels(torch.randn(2, 1, 3, 64, 64))
    torch.testing.assert_close(*(encoder.eval()(pixels).grid for _ in range(2)))
    assert not torch.equal(*(encoder.train()(pixels).grid for _ in range(2)))


def test_provenance_follows_the_weights() -> None:
    encoder = Tiny(SMALL)
    before = encoder.provenance()
    with torch.no_grad():
        encoder.head[0].weight[0, 0] += 1
    after = encoder.provenance()
    assert before["sha256"] != after["sha256"]
    assert {**before, "sha256": ""} == {**after, "sha256": ""}


@pytest.mark.parametrize(
    ("values", "told"),
    [({"size": 100}, "multiple of 32"), ({"blocks": (1, 0, 1, 1)}, "at least 1"), ({"dim": 0}, "at least 1")],
)
def test_sizes_that_make_no_network(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TinyConfig(**values)
