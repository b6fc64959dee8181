"""Split an encoder's preprocessing into resizing, done by NumPy and Pillow, and normalisation, done in the graph.

The encoder's `provenance` says how it resizes and crops.  Scale and shift of each channel are measured on an all-black
and an all-white image.  Then both parts together are compared with the encoder's own pixels.

Worked example: an encoder that maps [0, 255] to [-1, 1] gives -1 for black and 1 for white, so scale = 2 / 255 and
shift = -1.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from limner.encoders.encoder import Encoder
from limner.inference.onnx.pixels import Preprocess

SIZES = ((375, 500), (500, 333), (60, 41), (224, 224))  # test images, (height, width)
TOLERANCE = 1e-5  # for values of about 1; float32 has a relative precision of 1e-7
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
PerChannel = tuple[float, float, float]  # red, green, blue


def split_preprocessing(encoder: Encoder) -> tuple[Preprocess, PerChannel, PerChannel]:
    """Split the preprocessing of an encoder -> resizing, scale, shift, where channel = scale * byte + shift.

    Raises ValueError when this does not reproduce the encoder's pixels.
    """
    resize = _resize_plan(encoder)
    middle = resize.side[0] // 2, resize.side[1] // 2  # not a corner, because a crop can have a black border
    black, white = (
        encoder.preprocess(np.full((1, *resize.side, 3), value, np.uint8))[0, :, middle[0], middle[1]].double().tolist()
        for value in (0, 255)
    )
    scale = tuple((high - low) / 255 for low, high in zip(black, white, strict=True))
    shift = tuple(black)
    difference = max(_max_difference(encoder, resize, scale, shift, size) for size in SIZES)
    if difference > TOLERANCE:
        raise ValueError(
            f"the preprocessing of {_architecture(encoder)} cannot be exported: resizing, cropping, scale and "
            f"shift do not reproduce its pixels, which differ by up to {difference:.2g}"
        )
    return resize, scale, shift


def _resize_plan(encoder: Encoder) -> Preprocess:
    """Read resizing and cropping from the provenance.  Raises ValueError for settings that are not supported."""
    settings = encoder.provenance().get("preprocessing", {})
    resample = settings.get("resample", "bilinear")
    channels = settings.get("channels", "RGB")
    try:
        size, edge = _size(settings.get("size")) if settings.get("do_resize", True) else (None, None)
        crop = _size(settings.get("crop_size"))[0] if settings.get("do_center_crop") else None
        if edge and "crop_pct" in settings:  # ConvNeXT's processor crops for edges below 384 and resizes from 384 on
            size, edge, crop = (
                (None, int(edge / settings["crop_pct"]), (edge, edge)) if edge < 384 else ((edge, edge), None, None)
            )
        return Preprocess(size, edge, RESAMPLE.get(resample, resample), crop, channels)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"the preprocessing of {_architecture(encoder)} cannot be exported ({error}): {settings}"
        ) from error


def _size(settings: Any) -> tuple[tuple[int, int] | None, int | None]:
    """A size setting -> ((height, width), None) or (None, length of the shorter side).  Raises ValueError."""
    if isinstance(settings, int):
        return (settings, settings), None
    if isinstance(settings, dict) and "shortest_edge" in settings:
        return None, int(settings["shortest_edge"])
    if isinstance(settings, dict) and {"height", "width"} <= settings.keys():
        return (int(settings["height"]), int(settings["width"])), None
    raise ValueError(f"unknown kind of size: {settings}")


def _max_difference(
    encoder: Encoder, resize: Preprocess, scale: tuple[float, ...], shift: tuple[float, ...], size: tuple[int, int]
) -> float:
    """The largest difference between both results on a random image; inf where the shapes differ."""
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    expected = encoder.preprocess(frames).numpy()
    actual = scale_channels(resize(frames), scale, shift)
    return float(np.abs(expected - actual).max()) if expected.shape == actual.shape else float("inf")


def scale_channels(
    pixels: np.ndarray, scale: tuple[float, ...], shift: tuple[float, ...]
) -> Float[np.ndarray, "T 3 h w"]:
    """Normalise uint8 pixels (T, h, w, 3) as the graph does: scale * byte + shift, channels first."""
    factors, offsets = (np.asarray(x, np.float32)[:, None, None] for x in (scale, shift))
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) * factors + offsets


def _architecture(encoder: Encoder) -> str:
    """Name of the encoder for messages."""
    return str(encoder.provenance().get("architecture", type(encoder).__name__))
