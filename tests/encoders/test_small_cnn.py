"""Our own encoder: scale, grid, a sense of place, and enough sight to learn colour and shape."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from limner.core.types import Layout, Pixels
from limner.encoders import SmallCNN, SmallCNNConfig, build_encoder


def test_preprocessing_by_hand() -> None:
    encoder = SmallCNN(SmallCNNConfig(size=8))
    assert encoder.preprocess(np.full((2, 5, 9, 3), 255, np.uint8)).unique().tolist() == [1.0]
    assert encoder.preprocess(np.zeros((1, 8, 8, 3), np.uint8)).unique().tolist() == [-1.0]
    checks = np.indices((16, 16)).sum(0) % 2 * np.uint8(255)  # antialiased: away from the rim it averages to grey
    shrunk = encoder.preprocess(np.repeat(checks.astype(np.uint8)[None, ..., None], 3, -1))
    assert shrunk.shape == (1, 3, 8, 8) and shrunk[..., 1:-1, 1:-1].abs().max() < 0.05


def test_stride_8_and_the_layout_of_clips_and_wide_pictures() -> None:
    encoder = build_encoder(SmallCNNConfig(width=8, dim=24))
    features = encoder(Pixels(torch.zeros(2, 3, 3, 64, 32)))
    assert features.layout == Layout(3, 8, 4) and features.grid.shape == (2, 96, 24) and features.mask.all()
    assert encoder.dim == 24


def test_cells_follow_the_frames_row_by_row() -> None:
    encoder = SmallCNN(SmallCNNConfig(width=8, dim=6)).eval()
    frames = torch.randn(2, 3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    together = encoder(Pixels(frames)).grid.reshape(2, 3, 32, 6)
    alone = encoder(Pixels(frames[1:, 2:])).grid[0]
    torch.testing.assert_close(together[1, 2], alone, rtol=1e-4, atol=1e-5)


def test_equal_patches_differ_only_by_their_place() -> None:
    encoder = SmallCNN(SmallCNNConfig(width=8, dim=6)).eval()
    grid = encoder(Pixels(torch.zeros(1, 1, 3, 64, 64))).grid.reshape(8, 8, 6)
    right = grid[3, 4] - grid[3, 3]  # in the middle, where padding is out of sight: one step to the right
    torch.testing.assert_close(right, encoder.out.weight[:, -2, 0, 0] * 2 / 7, rtol=1e-4, atol=1e-5)


def test_it_learns_colour_shape_and_position_quickly() -> None:
    torch.manual_seed(0)
    encoder, head = SmallCNN(SmallCNNConfig(size=32, width=16, dim=32)), nn.Linear(32, 8)
    draw = np.random.default_rng(0)
    labels = torch.from_numpy(draw.integers(0, 8, 160))
    pictures = []
    for label in labels.tolist():
        picture = np.full((32, 32, 3), 128, np.uint8)
        y, x = np.indices((32, 32)) - np.array([draw.integers(8, 24), 8 if label & 4 else 24])[:, None, None]
        inside = (np.maximum(abs(y), abs(x)) < 6) if label & 2 else (abs(y) + abs(x) < 8)
        picture[inside] = (230, 20, 20) if label & 1 else (20, 20, 230)
        pictures.append(encoder.preprocess(picture[None]))
    inputs = torch.stack(pictures)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    for step in range(60):
        rows = torch.arange(32) + 32 * (step % 4)
        loss = nn.functional.cross_entropy(head(encoder(Pixels(inputs[rows])).grid.mean(1)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        unseen = head(encoder(Pixels(inputs[128:])).grid.mean(1))
    assert (unseen.argmax(1) == labels[128:]).float().mean() > 0.7  # chance is 1/8


def test_provenance_follows_the_weights() -> None:
    torch.manual_seed(0)
    one, other = SmallCNN(SmallCNNConfig()), SmallCNN(SmallCNNConfig())
    assert one.provenance()["sha256"] != other.provenance()["sha256"]
    other.load_state_dict(one.state_dict())
    assert one.provenance() == other.provenance()
    assert one.provenance()["preprocessing"]["size"] == 64 and one.provenance()["dim"] == 128


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 60; it must be a positive multiple of 8"):
        SmallCNN(SmallCNNConfig(size=60))
    with pytest.raises(ValueError, match="width is 0"):
        SmallCNN(SmallCNNConfig(width=0))


def test_resizing_is_pillows_bilinear() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(frame[0]).resize((64, 64), Image.Resampling.BILINEAR))
    found = (SmallCNN(SmallCNNConfig()).preprocess(frame)[0].permute(1, 2, 0) + 1) * 127.5
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
