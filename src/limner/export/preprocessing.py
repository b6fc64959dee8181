"""An encoder's preprocessing in two parts: bytes that NumPy and Pillow make, and a number per channel in the graph.

What an encoder tells about itself (`provenance`) says how it resizes and crops; what a channel becomes is measured on
an all-black and an all-white picture.  Then both parts together are held against the encoder's own pixels.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from limner.encoders.encoder import Encoder
from limner.inference.onnx.pixels import Preprocess

SIZES = ((375, 500), (500, 333), (60, 41), (224, 224))  # pictures that both are tried on, height x width
TOLERANCE = 1e-5  # of numbers of about 1; float32 rounds some of them at 1e-7
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
Numbers = tuple[float, float, float]


def preprocessing_of(encoder: Encoder) -> tuple[Preprocess, Numbers, Numbers]:
    """-> the first part, and of the second scale and shift: channel = scale * byte + shift.

    Raises ValueError when the two do not give the encoder's pixels.
    """
    plan = _plan(encoder)
    middle = plan.side[0] // 2, plan.side[1] // 2  # a crop may have a black rim
    black, white = (
        encoder.preprocess(np.full((1, *plan.side, 3), value, np.uint8))[0, :, middle[0], middle[1]].double().tolist()
        for value in (0, 255)
    )
    scale = tuple((high - low) / 255 for low, high in zip(black, white, strict=True))
    shift = tuple(black)
    off = max(_difference(encoder, plan, scale, shift, size) for size in SIZES)
    if off > TOLERANCE:
        raise ValueError(
            f"the preprocessing of {_name(encoder)} cannot be exported: resizing, cropping and a number per channel "
            f"give other pixels than its own, by up to {off:.2g}"
        )
    return plan, scale, shift


def _plan(encoder: Encoder) -> Preprocess:
    told = encoder.provenance().get("preprocessing", {})
    resample = told.get("resample", "bilinear")
    channels = told.get("channels", "RGB")
    try:
        size, edge = _size(told.get("size")) if told.get("do_resize", True) else (None, None)
        crop = _size(told.get("crop_size"))[0] if told.get("do_center_crop") else None
        if edge and "crop_pct" in told:  # ConvNeXT's processor: a crop for small sides, from 384 on the whole
            size, edge, crop = (
                (None, int(edge / told["crop_pct"]), (edge, edge)) if edge < 384 else ((edge, edge), None, None)
            )
        return Preprocess(size, edge, RESAMPLE.get(resample, resample), crop, channels)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"the preprocessing of {_name(encoder)} cannot be exported ({error}): {told}") from error


def _size(told: Any) -> tuple[tuple[int, int] | None, int | None]:
    """-> (height, width) or the length of the shorter side."""
    if isinstance(told, int):
        return (told, told), None
    if isinstance(told, dict) and "shortest_edge" in told:
        return None, int(told["shortest_edge"])
    if isinstance(told, dict) and {"height", "width"} <= told.keys():
        return (int(told["height"]), int(told["width"])), None
    raise ValueError(f"no size that is known here: {told}")


def _difference(
    encoder: Encoder, plan: Preprocess, scale: tuple[float, ...], shift: tuple[float, ...], size: tuple[int, int]
) -> float:
    """The largest difference of a pixel of a random picture."""
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    theirs = encoder.preprocess(frames).numpy()
    ours = channels_of(plan(frames), scale, shift)
    return float(np.abs(theirs - ours).max()) if theirs.shape == ours.shape else float("inf")


def channels_of(pixels: np.ndarray, scale: tuple[float, ...], shift: tuple[float, ...]) -> Float[np.ndarray, "T 3 h w"]:
    """What the graph makes of the bytes (T, h, w, 3)."""
    factors, offsets = (np.asarray(x, np.float32)[:, None, None] for x in (scale, shift))
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) * factors + offsets


def _name(encoder: Encoder) -> str:
    return str(encoder.provenance().get("architecture", type(encoder).__name__))
