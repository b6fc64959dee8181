"""Near-duplicate pictures: a difference hash finds candidates, and their small grey copies confirm them.

The hash is the dHash that Neal Krawetz described ("Kind of Like That", 2013), in both directions: one bit for each pair
of neighbours in a picture shrunk to 9 x 8 and to 8 x 9 grey values, 128 bits in all.  It does not change when a picture
is encoded again, scaled, or made somewhat brighter.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt8
from PIL import Image

SIDE = 8  # bits of a row of the hash
SMALL = 16  # side of the grey copy in pixels
MAX_BITS = 15  # two pictures are candidates when at most so many of their 128 bits differ ...
LEAST_CORRELATION = 0.95  # ... and near-duplicates when their grey copies correlate at least so much
LEAST_CONTRAST = 6.0  # standard deviation of grey values in [0, 255]; a flatter picture has a hash of noise
BLOCK = 2048  # pictures that are compared with the others at a time


class PictureHash(NamedTuple):
    """What is kept of a picture: 16 + 256 bytes.

    `bits` are the 128 bits of the hash in 16 bytes; `grey` is the picture as 16 x 16 grey values in [0, 255].
    """

    bits: UInt8[np.ndarray, "16"]
    grey: UInt8[np.ndarray, "256"]

    @property
    def is_flat(self) -> bool:
        """Whether the picture has too little contrast for a hash that means something."""
        return float(self.grey.std()) < LEAST_CONTRAST


def hash_picture(frame: UInt8[np.ndarray, "H W 3"]) -> PictureHash:
    """Hash an RGB picture in [0, 255].

    >>> ramp = np.repeat(np.arange(0, 250, 2, dtype=np.uint8)[None, :, None], 3, 2).repeat(90, 0)  # bright to the right
    >>> hash_picture(ramp).bits[:4].tolist(), hash_picture(ramp[:, ::-1].copy()).bits[:4].tolist()
    ([255, 255, 255, 255], [0, 0, 0, 0])
    """
    image = Image.fromarray(frame).convert("L")
    across = np.asarray(image.resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    down = np.asarray(image.resize((SIDE, SIDE + 1), Image.Resampling.BOX), np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])
    grey = np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX), np.uint8).ravel()
    return PictureHash(np.packbits(bits), grey)


def near_pairs(hashes: Sequence[PictureHash]) -> Iterator[tuple[int, int]]:
    """The pairs (i, j), i < j, of near-duplicates among pictures, each once, in no order.

    Two hashes that differ in at most 15 bits have at least one of their 16 bytes in common, so only pictures with a
    common byte are compared: no table of all pairs is made.  Flat pictures are left out.
    """
    places = np.array([place for place, it in enumerate(hashes) if not it.is_flat], np.int64)
    if len(places) < 2:
        return
    bits = np.stack([hashes[place].bits for place in places])
    for column in range(bits.shape[1]):
        order = np.argsort(bits[:, column], kind="stable")
        starts = np.flatnonzero(np.diff(bits[order, column].astype(np.int16)))
        for group in np.split(order, starts + 1):
            for first, second in _close(bits, group, column):
                one, other = hashes[places[first]].grey, hashes[places[second]].grey
                if _correlation(one, other) >= LEAST_CORRELATION:
                    yield int(places[first]), int(places[second])


def _close(bits: UInt8[np.ndarray, "N 16"], group: Int[np.ndarray, " g"], column: int) -> Iterator[tuple[int, int]]:
    """The pairs of a group whose hashes differ in few bits, and that have no earlier byte in common."""
    words = bits.view(np.uint64)
    for start in range(0, len(group), BLOCK):
        left = group[start : start + BLOCK]
        for begin in range(start, len(group), BLOCK):
            right = group[begin : begin + BLOCK]
            differing = sum(np.bitwise_count(words[left, None, half] ^ words[None, right, half]) for half in (0, 1))
            for row, other in zip(*np.nonzero(differing <= MAX_BITS), strict=True):
                first, second = left[row], right[other]
                if first < second and not (bits[first, :column] == bits[second, :column]).any():
                    yield int(first), int(second)


def _correlation(first: UInt8[np.ndarray, "256"], second: UInt8[np.ndarray, "256"]) -> float:
    """The correlation of two grey copies, which does not depend on brightness and contrast."""
    a, b = (_standardised(grey) for grey in (first, second))
    return float(a @ b) / len(a)


def _standardised(grey: UInt8[np.ndarray, "256"]) -> Float32[np.ndarray, "256"]:
    values = grey.astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), 1e-6)
