"""Values of more than 8 bits -> 8 bits, so that an image is as light as viewers show it.

A file seldom says which of its values is white.  A camera with 12 bits writes values up to 4095 into 16 bits, and a
reader who takes 65535 for white shows black.  Therefore the largest value decides:

    integers  white is the largest value of the smallest depth of 8, 10, 12, 14 or 16 bits that holds all values
    floats    white is 1 when the largest value is from 1/32 to 1.5, and 255 when it is from 32 to 255
    others    (negative values, more than 16 bits, other floats) the range of the values becomes black to white
"""

import numpy as np
from jaxtyping import Shaped, UInt8

DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras, scanners and microscopes
DARKEST = 1 / 32  # floats whose largest value is smaller do not take 1 for white; all of them would be black
UNDERSHOOT = 0.05  # of the largest value: so far below 0 resampling filters go; such values are black


def to_8_bit(values: Shaped[np.ndarray, "*shape"], full_range: bool = False) -> tuple[UInt8[np.ndarray, "*shape"], str]:
    """Scale integers or floats to [0, 255]; the second result says how when that is a guess, else it is "".

    full_range  the values are known to use 16 bits: white is 65535

    >>> to_8_bit(np.array([[0, 2048, 4095]]))
    (array([[  0, 127, 255]], dtype=uint8), 'values from 0 to 4095 were taken as 12 bits of grey')
    """
    if values.dtype.kind == "f":
        return _floats_to_8_bit(values)
    low, high = int(values.min()), int(values.max())
    if low < -UNDERSHOOT * high or high > 65535:
        return _stretched(values, min(low, 0), high)
    bits = 16 if full_range else next(bits for bits in DEPTHS if high < 1 << bits)
    values = np.maximum(values, 0)
    note = f"values from {low} to {high} were taken as {bits} bits of grey" if bits < 16 and high else ""
    # 65535 = 255 * 257
    scaled = values // 257 if bits == 16 else values.astype(np.int32) * 255 // ((1 << bits) - 1)
    return scaled.astype(np.uint8), note


def _floats_to_8_bit(values: Shaped[np.ndarray, "*shape"]) -> tuple[UInt8[np.ndarray, "*shape"], str]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, posinf=high, neginf=low)
    lost = _lost(finite.size, values.size)
    if low < -UNDERSHOOT * high or high > 255 or 1.5 < high < 32 or 0 < high < DARKEST:
        pixels, note = _stretched(values, min(low, 0.0), high)
        return pixels, note + lost
    white = 1 if high <= 1.5 else 255
    note = "" if low >= 0 and (high <= 1 or white == 255) else f"values from {low:.3g} to {high:.3g} were cut to [0, 1]"
    return np.clip(values * (255 / white), 0, 255).astype(np.uint8), (note + lost).removeprefix("; ")


def _lost(finite: int, size: int) -> str:
    """A note about values that are no numbers; "" when all are finite."""
    return f"; {size - finite} of {size} values are NaN or infinite" if finite < size else ""


def _stretched(
    values: Shaped[np.ndarray, "*shape"], low: float, high: float
) -> tuple[UInt8[np.ndarray, "*shape"], str]:
    scaled = (values - np.float64(low)) * (255 / max(high - low, 1e-30))
    note = f"values from {low:.6g} to {high:.6g} were stretched from black to white"
    return np.clip(scaled, 0, 255).astype(np.uint8), note
