"""Our own encoder of clips: strides, a sense of time and place, and enough sight to learn what moves where."""

import numpy as np
import pytest
import torch
from torch import nn

from limner.core.types import Layout, Pixels
from limner.encoders import SmallCNN3D, SmallCNN3DConfig, build_encoder


@pytest.mark.parametrize(("frames", "layout"), [(16, (8, 8, 4)), (5, (3, 8, 4)), (1, (1, 8, 4))])
def test_strides(frames: int, layout: tuple[int, int, int]) -> None:
    encoder = build_encoder(SmallCNN3DConfig(width=8, dim=24))
    features = encoder(Pixels(torch.zeros(2, frames, 3, 64, 32)))
    assert features.layout == Layout(*layout) and features.grid.shape == (2, features.layout.cells, 24)
    assert features.mask.all() and encoder.dim == 24


def test_equal_patches_differ_only_by_their_time_and_place() -> None:
    encoder = SmallCNN3D(SmallCNN3DConfig(width=8, dim=6)).eval()
    grid = encoder(Pixels(torch.zeros(1, 24, 3, 64, 64))).grid.reshape(12, 8, 8, 6)
    later = grid[6, 3, 3] - grid[5, 3, 3]  # in the middle, where padding is out of sight
    torch.testing.assert_close(later, encoder.out.weight[:, -3, 0, 0, 0] * 2 / 11, rtol=1e-4, atol=1e-5)
    down = grid[6, 4, 3] - grid[6, 3, 3]
    torch.testing.assert_close(down, encoder.out.weight[:, -2, 0, 0, 0] * 2 / 7, rtol=1e-4, atol=1e-5)
    right = grid[6, 3, 4] - grid[6, 3, 3]
    torch.testing.assert_close(right, encoder.out.weight[:, -1, 0, 0, 0] * 2 / 7, rtol=1e-4, atol=1e-5)


def test_a_cell_sees_the_neighbouring_frames() -> None:
    encoder = SmallCNN3D(SmallCNN3DConfig(width=8, dim=6)).eval()
    clip = torch.zeros(1, 24, 3, 32, 32)
    other = clip.clone()
    other[0, 12] = 1.0
    before, after = (encoder(Pixels(x)).grid.reshape(12, 16, 6) for x in (clip, other))
    seen = [t for t in range(12) if not torch.allclose(before[t], after[t], atol=1e-6)]
    # frame 12 is read at 6 (stride 2, kernel 3: 11 .. 13), then four kernels of 3 frames: 4 more to each side
    assert seen == list(range(2, 11))


def test_it_learns_which_of_two_events_comes_first() -> None:
    """A flash on the left and one on the right, in either order."""
    torch.manual_seed(0)
    encoder, head = SmallCNN3D(SmallCNN3DConfig(size=16, width=8, dim=16)), nn.Linear(16, 2)
    draw, labels = np.random.default_rng(0), torch.arange(64) % 2
    clips = []
    for label in labels.tolist():
        clip = np.full((12, 16, 16, 3), 100, np.uint8)
        for k, half in enumerate((0, 8) if label else (8, 0)):
            at, y = 6 * k + draw.integers(0, 4), draw.integers(2, 12)
            clip[at : at + 2, y : y + 4, half + 2 : half + 6] = 250
        clips.append(encoder.preprocess(clip))
    inputs = torch.stack(clips)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(head(encoder(Pixels(inputs[:48])).grid.mean(1)), labels[:48])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        unseen = head(encoder.eval()(Pixels(inputs[48:])).grid.mean(1)).argmax(1)
    assert (unseen == labels[48:]).float().mean() > 0.8  # chance is 1/2


def test_provenance_and_sizes() -> None:
    torch.manual_seed(0)
    one, other = SmallCNN3D(SmallCNN3DConfig()), SmallCNN3D(SmallCNN3DConfig())
    assert one.provenance()["sha256"] != other.provenance()["sha256"]
    other.load_state_dict(one.state_dict())
    assert one.provenance() == other.provenance() and one.provenance()["dim"] == 128
    pixels = one.preprocess(np.full((2, 5, 9, 3), 255, np.uint8))
    assert pixels.shape == (2, 3, 64, 64) and pixels.unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="size is 60; it must be a positive multiple of 8"):
        SmallCNN3D(SmallCNN3DConfig(size=60))
