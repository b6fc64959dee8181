"""Reader of features that other tools extracted: an HDF5 file with a dataset per id, or a folder with a file per id.

An array is (n, D), one row per frame; (D,), a single row; or (C, T, H, W), the un-pooled feature map of a 3-D network
with channels first.  Files per id are .npy, .npz (with one array) or .pth, .pt (with one tensor; no code in it can
run).  The channels of several sources are concatenated.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.fields import PositiveInt
from limner.core.types import Features, Layout, Medium
from limner.data.frames import FrameSampling, sample_indices
from limner.data.images import MediaError

HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")
CACHE_BYTES = 1 << 30  # of frames that are kept in memory
ARRAY_SUFFIXES = (".npy", ".npz", ".pth", ".pt")


@dataclass(frozen=True)
class FeatureRows:
    """The recipe's field `feature_rows`: how rows of a feature file are truncated and padded.

    max_rows  rows after the first `max_rows` ones are dropped before frames are sampled; None keeps all
    masked    True: padding is masked, and no model sees it.  False reproduces the published SA-LSTM: features with
              fewer rows are padded with zero rows to `max_rows` (60 there) before frames are sampled, and to the number
              of frames afterwards, and the model reads the padding as frames.
    """

    masked: bool = True  # False: padding is read as frames, as published
    max_rows: PositiveInt | None = None  # the most rows that are kept; null keeps all


DEFAULT_ROWS = FeatureRows()


class FeatureSource:
    """One HDF5 file or folder of features; `ids` is the set of ids in it."""

    def __init__(self, path: str | Path) -> None:
        """Raises ValueError when the path does not exist or holds no features."""
        self.path = Path(path)
        self._handle: tuple[int, Any] | None = None
        self._files: dict[str, Path] = {}
        self.ids: set[str] = set()
        if self.path.suffix.lower() in HDF5_SUFFIXES and self.path.is_file():
            self.ids = set(self._hdf5().keys())
        elif self.path.is_dir():
            for file in sorted(self.path.iterdir()):
                if file.suffix.lower() in ARRAY_SUFFIXES:
                    if file.stem in self._files:
                        raise ValueError(f"two files for the id {file.stem}: {self._files[file.stem]} and {file}")
                    self._files[file.stem] = file
            self.ids = set(self._files)
        if not self.ids:
            raise ValueError(_no_features(self.path))

    def __reduce__(self) -> tuple[type["FeatureSource"], tuple[Path]]:
        return FeatureSource, (self.path,)  # a spawned worker opens the file again

    def _hdf5(self) -> Any:
        """The open file.  Each process opens it once, because a handle does not survive a fork."""
        if self._handle is None or self._handle[0] != os.getpid():
            import h5py

            try:
                self._handle = os.getpid(), h5py.File(self.path, "r")
            except OSError as error:
                raise ValueError(f"{self.path} is not an HDF5 file, or is damaged ({error})") from error
        return self._handle[1]

    def array(self, id: str) -> Float[np.ndarray, "*shape"]:
        """The array of an id as float32, (n, D) or (C, T, H, W).

        Raises MediaError, which names file and id, when it is missing, damaged or of another shape.
        """
        where = f"{id}: in {self.path},"
        if id not in self.ids:
            examples = ", ".join(sorted(self.ids)[:2])
            raise MediaError(f"{id}: not in {self.path}, which has {len(self.ids)} ids ({examples}, ...)")
        try:
            array = np.asarray(_read_array(self._files[id]) if self._files else self._hdf5()[id][()])
        except Exception as error:  # h5py, numpy and torch raise KeyError, OSError, UnpicklingError, RuntimeError, ...
            raise MediaError(f"{where} the features cannot be read ({error})") from error
        if array.ndim not in (1, 2, 4) or 0 in array.shape or array.dtype.kind not in "fiu":
            raise MediaError(
                f"{where} the array is {array.dtype} {array.shape}; expected numbers (n, D) or (C, T, H, W)"
            )
        array = array.astype(np.float32)
        if bad := int(array.size - np.isfinite(array).sum()):
            raise MediaError(f"{where} {bad} of {array.size} values are NaN or infinite; extract the features again")
        return array[None] if array.ndim == 1 else array


class FeatureFiles:
    """Features of one or several sources; channels are concatenated and frames are sampled.

    `dim` is the number of channels D of all sources together, `widths` those of each.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        sampling: FrameSampling = FrameSampling(),
        rows: FeatureRows = DEFAULT_ROWS,
    ) -> None:
        """Raises ValueError when a path holds no features."""
        self.sources = [FeatureSource(path) for path in paths]
        self.sampling, self.rows = sampling, rows
        self.widths = [_channels(source) for source in self.sources]
        self._cache: dict[str, np.ndarray] = {}
        self._cache_left = CACHE_BYTES

    @property
    def dim(self) -> int:
        """Channels of a cell."""
        return sum(self.widths)

    def maps(self, medium: Medium) -> Float[np.ndarray, "T H W D"]:
        """The sampled frames of a medium: at most `sampling.frames`, or padded with zeros to it when `masked` is False.

        H and W are 1 for features of one vector per frame.  Raises MediaError (a ValueError), which names file and id,
        when a source lacks the id, or its array does not fit the others.
        """
        if medium.frame_seed is not None and self.sampling.policy == "random":
            return self._sampled(medium)
        if medium.id not in self._cache:
            frames = self._sampled(medium)
            self._cache_left -= frames.nbytes
            if self._cache_left < 0:
                return frames
            self._cache[medium.id] = frames
        return self._cache[medium.id]

    def _sampled(self, medium: Medium) -> Float[np.ndarray, "T H W D"]:
        arrays = [self._load(source, width, medium.id) for source, width in zip(self.sources, self.widths, strict=True)]
        counts = [len(array) for array in arrays]
        sizes = {array.shape[1:3] for array in arrays}
        if len(sizes) > 1 or (len(set(counts)) > 1 and self.sampling.policy != "uniform"):
            shapes = ", ".join(f"{source.path} {a.shape[:3]}" for source, a in zip(self.sources, arrays, strict=True))
            raise MediaError(f"{medium.id}: features of different shape (T, H, W) cannot be joined: {shapes}")
        # sources of different length give equally many frames, which are from the same moments of the clip
        frames = self.sampling.frames if len(set(counts)) == 1 else min(self.sampling.frames, *counts)
        sampling = replace(self.sampling, frames=frames)
        numbers = [list(sample_indices(count, sampling, medium.frame_seed)) for count in counts]
        joined = np.concatenate([array[chosen] for array, chosen in zip(arrays, numbers, strict=True)], -1)
        return joined if self.rows.masked else _pad(joined, self.sampling.frames)

    def _load(self, source: FeatureSource, width: int, id: str) -> Float[np.ndarray, "T H W D"]:
        """All rows of an id as (T, H, W, D), at most `max_rows` of them; with `masked` False exactly
        `max_rows`."""
        array = source.array(id)
        channels = array.shape[0 if array.ndim == 4 else 1]
        if channels != width:
            raise MediaError(
                f"{id}: in {source.path}, it has {channels} channels and the others have {width} "
                f"(its shape is {array.shape}; expected (n, {width}) or ({width}, T, H, W))"
            )
        array = array[:, None, None] if array.ndim == 2 else array.transpose(1, 2, 3, 0)
        array = array[: self.rows.max_rows]
        return array if self.rows.masked or self.rows.max_rows is None else _pad(array, self.rows.max_rows)

    def read(self, items: Sequence[tuple[Medium, str]]) -> Features:
        """The features of a batch of (medium, augmentation) pairs.

        The layout is (T, 1, 1), or (T, H, W) for maps; T is that of the longest medium, and padding is masked.  Raises
        ValueError for maps of different (H, W).
        """
        arrays = [self.maps(medium) for medium, _ in items]
        sizes = {array.shape[1:3] for array in arrays}
        if len(sizes) > 1:
            raise ValueError(f"maps of different (H, W), {sorted(sizes)}, cannot share a batch; resize them")
        layout = Layout(max(len(array) for array in arrays), *next(iter(sizes)))
        grid = np.zeros((len(arrays), *layout, self.dim), np.float32)
        mask = np.zeros((len(arrays), *layout), bool)
        for row, array in enumerate(arrays):
            grid[row, : len(array)], mask[row, : len(array)] = array, True
        cells = (len(arrays), layout.cells)
        return Features(torch.from_numpy(grid.reshape(*cells, -1)), torch.from_numpy(mask.reshape(cells)), layout)


def _pad(array: Float[np.ndarray, "t H W D"], length: int) -> Float[np.ndarray, "T H W D"]:
    """`array` with zero rows at its end, `length` rows in all."""
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def are_feature_files(path: str | Path) -> bool:
    """Whether a path is an HDF5 file or a folder of arrays, and not a feature store of limner."""
    path = Path(path)
    if path.suffix.lower() in HDF5_SUFFIXES:
        return True
    return path.is_dir() and any(file.suffix.lower() in ARRAY_SUFFIXES for file in path.iterdir())


def _channels(source: FeatureSource) -> int:
    """The most frequent number of channels among the first nine arrays."""
    counts: Counter[int] = Counter()
    for id in islice(sorted(source.ids), 9):
        try:
            array = source.array(id)
        except MediaError:
            continue
        counts[array.shape[0 if array.ndim == 4 else 1]] += 1
    if not counts:
        source.array(min(source.ids))  # raises the error of the first array
    return counts.most_common(1)[0][0]


def _read_array(path: Path) -> Any:
    if path.suffix.lower() in (".pth", ".pt"):
        saved = torch.load(path, map_location="cpu", weights_only=True)
        values = list(saved.values()) if isinstance(saved, dict) else [saved]
        if len(values) != 1 or not isinstance(values[0], Tensor):
            raise ValueError("expected a file with one tensor")
        return values[0].float().numpy()
    saved = np.load(path, allow_pickle=False)
    if isinstance(saved, np.ndarray):
        return saved
    with saved:
        if len(saved.files) != 1:
            raise ValueError(f"expected a file with one array, found {', '.join(saved.files)}")
        return saved[saved.files[0]]


def _no_features(path: Path) -> str:
    """The message for a path without features."""
    state = "does not exist" if not path.exists() else "holds no features"
    return (
        f"features: '{path}' {state}; expected a feature store, an HDF5 file ({' '.join(HDF5_SUFFIXES)}) with one "
        f"dataset per id, or a folder with one {' '.join(ARRAY_SUFFIXES)} file per id"
    )
