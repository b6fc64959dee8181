"""`check_encoder`: what every encoder must do."""

import json

import numpy as np
import torch

from limner.core.types import Features, Pixels
from limner.encoders import build_encoder
from limner.encoders.encoder import Encoder, EncoderConfig


def check_encoder(config: EncoderConfig) -> Features:
    """Build an encoder from a registered config and check it on random frames -> the features of the last batch.

    Checked: preprocessing takes frames of any size; there is one cell per place of the layout, with `dim` channels and
    without a mask; rows of a batch are independent; evaluation mode is deterministic; the inference form gives the
    same cells; the provenance is JSON and names the encoder.
    Raises AssertionError that says what was expected.

    >>> from limner.encoders import SmallCNNConfig
    >>> check_encoder(SmallCNNConfig(size=32, width=8, dim=8)).layout
    Layout(t=1, h=4, w=4)
    """
    torch.manual_seed(0)
    encoder = build_encoder(config).eval()
    random = np.random.default_rng(0)
    sizes = [(48, 64), (100, 40)]
    seen = [encoder.preprocess(random.integers(0, 256, (1, *size, 3), dtype=np.uint8)) for size in sizes]
    assert all(pixels.dtype == torch.float32 and pixels.shape[:2] == (1, 3) for pixels in seen), (
        f"preprocess must return float32 (T, 3, h, w), got {[(pixels.dtype, tuple(pixels.shape)) for pixels in seen]}"
    )
    for height, width in sizes:
        left, top, right, bottom = encoder.kept_region(height, width)
        assert left < right and top < bottom, f"kept_region({height}, {width}) is empty"
    if seen[0].shape == seen[1].shape:
        features = _encode(encoder, torch.stack(seen))
        for row, pixels in enumerate(seen):
            alone = _encode(encoder, pixels[None])
            assert torch.allclose(alone.grid[0], features.grid[row], rtol=1e-4, atol=1e-4), (
                f"the cells of image {row} depend on the other images in its batch"
            )
    else:
        features = _encode(encoder, seen[0][None])
    assert features.grid.shape[-1] == encoder.dim, (
        f"cells have {features.grid.shape[-1]} channels, but dim is {encoder.dim}"
    )
    assert bool(features.mask.all()), "some cells are masked, but all cells of an encoder must be real"
    assert features.grid.isfinite().all(), "cells are not finite"
    _check_provenance(encoder, config)
    return features


def _encode(encoder: Encoder, pixels: torch.Tensor) -> Features:
    with torch.no_grad():
        first, second = (encoder(Pixels(pixels)) for _ in range(2))
    assert torch.equal(first.grid, second.grid), "two calls differ in evaluation mode"
    with torch.no_grad():
        form = encoder.inference_form()(Pixels(pixels))
    assert torch.allclose(form.grid, first.grid, rtol=1e-4, atol=1e-4), "the cells of the inference form differ"
    assert isinstance(first, Features), f"forward must return Features, got {type(first).__name__}"
    return first


def _check_provenance(encoder: Encoder, config: EncoderConfig) -> None:
    provenance = encoder.provenance()
    try:
        read_back = json.loads(json.dumps(provenance))
    except TypeError as error:
        raise AssertionError(f"provenance is not plain JSON: {error}") from error
    for key in ("name", "sha256"):
        assert key in read_back, f"provenance has no {key!r}"
    assert read_back["name"] == config.name, f"provenance names {read_back['name']!r}, the config {config.name!r}"
