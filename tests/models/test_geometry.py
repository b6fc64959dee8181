"""How boxes lie to each other, by hand."""

from math import log

import pytest
import torch

from limner.models.geometry import GeometryBias, box_fourier_features, pairwise_geometry


def test_box_relations_by_hand():
    """Widths 1.5 and 1.2 (the + 1 is the published trap), heights 2 and 1.5; centres (.25, .5) and (.9, .25)."""
    pair = pairwise_geometry(torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.8, 0.0, 1.0, 0.5]]]))[0]
    expected = [log(0.65 / 1.5), log(0.25 / 2), log(1.5 / 1.2), log(2 / 1.5)]
    assert pair[0, 1].tolist() == pytest.approx(expected, abs=1e-6)
    backwards = [log(0.65 / 1.2), log(0.25 / 1.5), log(1.2 / 1.5), log(1.5 / 2)]
    assert pair[1, 0].tolist() == pytest.approx(backwards, abs=1e-6)
    for k in range(2):
        assert pair[k, k].tolist() == pytest.approx([log(1e-3), log(1e-3), 0, 0], abs=1e-6)


def test_box_fourier_features_by_hand():
    """Of x = .01 in every number: sin and cos of 1 / 1000^(i / 8)."""
    told = box_fourier_features(torch.full((1, 1, 1, 4), 0.01))[0, 0, 0]
    angles = torch.tensor([1000 ** (-i / 8) for i in range(8)]).repeat(4)
    torch.testing.assert_close(told, torch.cat([angles.sin(), angles.cos()]))


def test_the_bias_is_the_logarithm_of_the_non_negative_part():
    layer = GeometryBias(2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([2.0, -3.0]))
    bias = layer(torch.randn(1, 3, 3, 64))
    assert bias.shape == (1, 2, 3, 3)
    torch.testing.assert_close(bias[0, :, 0, 0], torch.tensor([log(2), log(1e-6)]))


def test_any_box_gives_finite_numbers():
    strange = torch.tensor([[[-5.0, -5, 9, 9], [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], [0, 0, 0, 0]]])
    assert pairwise_geometry(strange).isfinite().all()
    outside = torch.tensor([[[0.0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], [0, 0, 0, 0]]])
    torch.testing.assert_close(pairwise_geometry(strange)[0, :2, :2], pairwise_geometry(outside)[0, :2, :2])
