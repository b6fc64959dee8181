"""Images in an HDF5 file: a dataset of uint8 pixels with an image per row, as Show-Attend-Tell's preparation writes it.

The name of an image is `DATASET/ROW`, for example `images/17`; `images/17/BGR` says that blue is the first channel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")
BGR = "BGR"


class StoredImages:
    """The images of an HDF5 file.  It is opened for every read: a handle does not survive a fork, and this is cheap."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when the file cannot be opened."""
        self.path = path
        self.problems: list[str] = []  # such a file is whole or unreadable
        self.counts: dict[str, int] = {}  # dataset -> images
        with reading_hdf5(path) as file:
            for name, dataset in file.items():
                if getattr(dataset, "ndim", 0) == 4 and dataset.dtype == np.uint8 and 3 in dataset.shape[1::2]:
                    self.counts[name] = len(dataset)

    def names(self) -> list[str]:
        """The names of all images."""
        return [f"{name}/{row}" for name, count in self.counts.items() for row in range(count)]

    def read(self, name: str) -> UInt8[np.ndarray, "H W 3"]:
        """The pixels of an image.  Raises ValueError when there is none of this name."""
        dataset, _, rest = name.partition("/")
        row, _, order = rest.partition("/")
        if not (row.isdecimal() and int(row) < self.counts.get(dataset, 0) and order in ("", BGR)):
            known = ", ".join(f"{name} with {count} images" for name, count in self.counts.items()) or "no images"
            raise ValueError(f"there is no such image; the file has {known}")
        with reading_hdf5(self.path) as file:
            pixels = np.asarray(file[dataset][int(row)])
        pixels = pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels  # (3, H, W), as it is published
        return np.ascontiguousarray(pixels[..., ::-1] if order == BGR else pixels)


@contextmanager
def reading_hdf5(path: Path) -> Iterator[Any]:
    """Context manager that yields an open HDF5 file.

    h5py finds damage only where it reads, and raises errors of many kinds.  Raises FileNotFoundError, or ValueError
    when the file is no HDF5 file, or is damaged where it is read.
    """
    with open_hdf5(path) as file:
        try:
            yield file
        except (RuntimeError, OSError, KeyError) as error:
            raise ValueError(f"{path} is a damaged HDF5 file ({error}): download it again") from error


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading.  Raises FileNotFoundError, or ValueError when it is no HDF5 file."""
    import h5py

    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or is damaged ({error})") from error
