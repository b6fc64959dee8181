"""The first-token captioner and ours over time and space, by hand and against plain computations."""

from math import cos, pi, sin

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.types import BOS, EOS, PAD, Features, Layout
from limner.decode.search import greedy
from limner.models.position_embedding import cell_centres, fourier_features
from limner.models.spatiotemporal import (
    FirstToken,
    FirstTokenConfig,
    SpatioTemporal,
    SpatioTemporalConfig,
    resample,
)
from tests.convert.published import start_logits

D, V = 5, 9


def first_token(seed: int = 0, **options: object) -> FirstToken:
    """In evaluation mode; no statistic or bias is at its usual 0 or 1."""
    torch.manual_seed(seed)
    model = FirstToken(FirstTokenConfig(embed=4, hidden=6, **options), V, D)  # type: ignore[arg-type]
    for norm in (model.conv_norm, model.norm):
        for tensor in (norm.weight, norm.running_var):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 1.5)
        for tensor in (norm.bias, norm.running_mean):
            assert tensor is not None
            nn.init.uniform_(tensor, -0.5, 0.5)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model.eval()


def maps(batch: int, t: int, h: int, w: int, seed: int = 1) -> Tensor:
    """(B, D, T, H, W)."""
    return torch.randn(batch, D, t, h, w, generator=torch.Generator().manual_seed(seed))


def features(grid: Tensor, lengths: list[int] | None = None) -> Features:
    b, _, t, h, w = grid.shape
    real = torch.arange(t)[None] < torch.tensor(lengths or [t] * b)[:, None]
    return Features(grid.flatten(2).transpose(1, 2), real.repeat_interleave(h * w, 1), Layout(t, h, w))


def normalise(norm: nn.BatchNorm1d, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    assert norm.running_mean is not None and norm.running_var is not None
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    return x * norm.weight.view(shape) + norm.bias.view(shape)


def embedding(model: FirstToken, grid: Tensor) -> Tensor:
    """The published encoder's chain on (B, D, T, H, W): real 3-D operations."""
    x = F.conv3d(grid, model.conv.weight[..., None, None, None], model.conv.bias)
    x = normalise(model.conv_norm, x, (1, -1, 1, 1, 1)).relu()
    pooled = F.adaptive_avg_pool3d(x, 1).flatten(1)
    return normalise(model.norm, model.linear(pooled), (1, -1))


def test_the_vector_of_a_clip_equals_the_published_encoder() -> None:
    model, grid = first_token(), maps(3, 4, 2, 3)
    memory = model.encode(features(grid))
    torch.testing.assert_close(memory.video, embedding(model, grid), rtol=1e-5, atol=1e-6)
    convolved = F.conv3d(grid, model.conv.weight[..., None, None, None], model.conv.bias)
    torch.testing.assert_close(memory.cells, convolved.flatten(2).transpose(1, 2))  # before norm and ReLU
    assert (memory.cells < 0).any()
    torch.testing.assert_close(memory.attention, torch.full((3, 24), 1 / 24))


@pytest.mark.parametrize("layers", [1, 2])
def test_the_clip_comes_first_and_the_words_follow(layers: int) -> None:
    """Position 0 of one LSTM pass over [clip, words] reads the clip; position j reads token j - 1."""
    model, grid = first_token(layers=layers), maps(2, 2, 2, 2)
    tokens = torch.tensor([[BOS, 5, 6, EOS], [BOS, 7, EOS, PAD]])
    memory = model.encode(features(grid))
    whole, _ = model.lstm(torch.cat([embedding(model, grid)[:, None], model.embed(tokens)], 1))
    expected = model.head(whole)
    torch.testing.assert_close(start_logits(model, memory), expected[:, 0], rtol=1e-5, atol=1e-6)
    forced = model.forward_teacher_forced(memory, tokens).logits
    torch.testing.assert_close(forced[0, :3], expected[0, 1:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(forced[1, :2], expected[1, 1:3], rtol=1e-5, atol=1e-6)


def test_decoding_begins_with_bos_and_ends() -> None:
    model = first_token()
    found = greedy(model, features(maps(4, 2, 2, 2)))
    assert found.tokens.shape[0] == 4 and not (found.tokens == BOS).any()
    model.head.bias.data[EOS] = 50.0
    assert greedy(model, features(maps(4, 2, 2, 2))).tokens[:, 1].tolist() == [EOS] * 4  # after one word at least


def test_the_maximum_is_over_the_real_cells() -> None:
    model = first_token(pool="max")
    grid = maps(2, 4, 2, 2)
    cut = model.encode(features(grid, [4, 2])).video
    torch.testing.assert_close(cut[1], model.encode(features(grid[1:, :, :2])).video[0], rtol=1e-5, atol=1e-6)
    cells = normalise(model.conv_norm, model.encode(features(grid)).cells, (1, 1, -1)).relu()
    torch.testing.assert_close(cut[0], normalise(model.norm, model.linear(cells.amax(1)), (1, -1))[0])


def test_padding_has_no_part_in_the_statistics() -> None:
    """In training: a padded clip beside a whole one gives what the two give without padding."""
    model, grid = first_token().train(), maps(2, 4, 1, 1)
    model.encode(features(grid, [4, 2]))
    mean = model.conv_norm.running_mean
    assert mean is not None
    real = torch.cat([model.conv(grid[0].flatten(1).T), model.conv(grid[1, :, :2].flatten(1).T)])
    fresh = first_token().conv_norm.running_mean
    assert fresh is not None
    torch.testing.assert_close(mean, 0.9 * fresh + 0.1 * real.mean(0))


def test_a_batch_of_one_clip_can_be_trained_on() -> None:
    """A last batch of one clip: its one row has no variance, so the running statistics serve and do not move."""
    model = first_token().train()
    before = model.norm.running_mean.clone()  # type: ignore[union-attr]
    alone = model.encode(features(maps(1, 2, 2, 2)))
    alone.video.sum().backward()
    assert torch.equal(model.norm.running_mean, before) and alone.video.isfinite().all()  # type: ignore[arg-type]
    model.encode(features(maps(2, 2, 2, 2)))
    assert not torch.equal(model.norm.running_mean, before)  # type: ignore[arg-type]


def test_alignment_resizes_each_clip_s_own_frames_trilinearly() -> None:
    grid = maps(3, 6, 3, 4)
    found = resample(features(grid, [6, 2, 6]), Layout(5, 2, 2))
    for row, length in enumerate([6, 2, 6]):
        own = F.interpolate(grid[row : row + 1, :, :length], (5, 2, 2), mode="trilinear", align_corners=False)
        torch.testing.assert_close(found[row], own.flatten(2)[0].T)
    same = resample(features(grid), Layout(6, 3, 4))  # the published code always resizes: to its own size it is itself
    torch.testing.assert_close(same, features(grid).grid, rtol=1e-5, atol=1e-6)


def test_a_model_with_alignment_reads_clips_of_any_length() -> None:
    model, plain = first_token(align=(2, 2, 2)), first_token()
    grid = maps(2, 5, 3, 3)
    small = F.interpolate(grid, (2, 2, 2), mode="trilinear", align_corners=False)
    memory = model.encode(features(grid))
    torch.testing.assert_close(memory.video, plain.encode(features(small)).video)
    assert memory.cells.shape == (2, 8, D) and memory.attention.shape == (2, 45)  # attention is over what was given


def test_maps_with_masked_cells_cannot_be_aligned() -> None:
    given = features(maps(2, 2, 2, 2))
    holes = given.mask.clone()
    holes[1, 3] = False
    with pytest.raises(ValueError, match=r"cells are missing within the layout \(2, 2, 2\)"):
        resample(Features(given.grid, holes, given.layout), Layout(1, 1, 1))


def test_noise_has_the_given_size_and_is_added_in_training_only() -> None:
    model = first_token(noise=0.5)
    x = torch.zeros(20_000)
    assert torch.equal(model.noise(x), x)
    torch.manual_seed(0)
    assert model.noise.train()(x).std().item() == pytest.approx(0.5, rel=0.03)  # 6 standard errors


def test_initial_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    model = FirstToken(FirstTokenConfig(embed=64, hidden=128), 500, 256)
    biases = (model.conv.bias, model.linear.bias, model.head.bias, model.lstm.bias_hh_l0)
    assert all(bias.eq(0).all() for bias in biases)
    assert model.conv.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)  # Xavier normal
    bound = (6 / (64 + 256)) ** 0.5  # Xavier uniform
    assert bound * 0.99 < model.linear.weight.abs().max() <= bound
    assert model.embed.weight.min() >= 0 and 0.99 < model.embed.weight.max() <= 1


def test_the_memory_holds_the_cells_for_grad_cam() -> None:
    """d score / d cells of a linear score: by the chain rule through ReLU, pooling and the two affine maps."""
    model = first_token()
    memory = model.encode(features(maps(1, 2, 2, 2)))
    (found,) = torch.autograd.grad(memory.video.sum(), memory.cells)
    normed = normalise(model.conv_norm, memory.cells, (1, 1, -1))
    gain = (model.norm.weight / (model.norm.running_var + 1e-5).sqrt()) @ model.linear.weight  # type: ignore[operator]
    inner = model.conv_norm.weight / (model.conv_norm.running_var + 1e-5).sqrt()  # type: ignore[operator]
    torch.testing.assert_close(found, (normed > 0) * gain * inner / 8, rtol=1e-4, atol=1e-6)


def test_positions_are_cell_centres_relative_to_the_real_clip() -> None:
    found = cell_centres(features(torch.zeros(2, D, 4, 1, 2), [4, 2])).reshape(2, 4, 2, 3)
    assert found[0, 0, 0].tolist() == [0.125, 0.5, 0.25] and found[0, 3, 1].tolist() == [0.875, 0.5, 0.75]
    assert found[1, 0, 0].tolist() == [0.25, 0.5, 0.25] and found[1, 1, 1].tolist() == [0.75, 0.5, 0.75]


def test_fourier_features_by_hand() -> None:
    found = fourier_features(torch.tensor([[[0.25, 0.5, 1.0]]]))[0, 0].tolist()
    angles = [p * pi * 2**k for p in (0.25, 0.5, 1.0) for k in range(4)]
    assert found == pytest.approx([sin(a) for a in angles] + [cos(a) for a in angles], abs=1e-5)


def test_equal_cells_differ_by_their_time_and_place() -> None:
    """Show, Attend and Tell alone could only attend to them equally."""
    torch.manual_seed(0)
    model = SpatioTemporal(SpatioTemporalConfig(hidden=6, embed=4, attention=4, dropout=0.0), V, D).eval()
    given = features(torch.ones(1, D, 3, 2, 2))
    memory = model.encode(given)
    cells = model.captioner.step(torch.tensor([BOS]), model.init_state(memory), memory)
    assert cells.attention.unique().numel() == 12
    with torch.no_grad():
        model.position_embedding.weight.zero_()
    memory = model.encode(given)
    alike = model.step(torch.tensor([BOS]), model.init_state(memory), memory).attention
    torch.testing.assert_close(alike, torch.full((1, 12), 1 / 12))


def test_the_order_of_events_matters() -> None:
    """Two contents in either order: without their time it is the same set of cells, and the same scores."""
    torch.manual_seed(0)
    model = SpatioTemporal(SpatioTemporalConfig(hidden=6, embed=4, attention=4, dropout=0.0), V, D).eval()
    grid, tokens = maps(1, 2, 1, 1), torch.tensor([[BOS, 4]])
    one, other = (model(features(x), tokens)[..., EOS:] for x in (grid, grid.flip(2)))
    assert (one - other).abs().max() > 1e-3
    with torch.no_grad():
        model.position_embedding.weight.zero_()
    one, other = (model(features(x), tokens)[..., EOS:] for x in (grid, grid.flip(2)))
    torch.testing.assert_close(one, other)
