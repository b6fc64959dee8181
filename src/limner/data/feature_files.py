"""Reader of features that other tools extracted: an HDF5 file with a dataset per id, or a folder with a file per id.

An array is (n, D), one row per frame; (D,), a single row; (h, w, D), the grid of an image; or (C, T, H, W), the
un-pooled feature map of a 3-D network with channels first.  Files per id are .npy, .npz or .pth, .pt (with one tensor;
no code in it can run).  An .npz file holds one array, or a detector's features (N, D) and boxes (N, 4) by their usual
names; then the rows are regions, and all of them are read.  An entry of an HDF5 file may be a group of such arrays.
The channels of several sources are concatenated.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from limner.core.fields import PositiveInt
from limner.core.types import Features, Layout, Medium
from limner.data.frames import FrameSampling, sample_indices
from limner.data.images import MediaError
from limner.data.media_folder import visible_files
from limner.data.regions import BOX_ARRAYS, CHANNELS_FIRST, FEATURE_ARRAYS, KNOWN_ARRAYS, read_arrays, regions_of
from limner.data.stored_images import HDF5_SUFFIXES, open_hdf5

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
SHAPES = "numbers (n, D), (h, w, D) or (C, T, H, W)"


class Cells(NamedTuple):
    """The features of one medium; `boxes` are those of a detector's regions, for which T and H are 1 and W is N."""

    grid: Float[np.ndarray, "T H W D"]
    boxes: Float[np.ndarray, "N 4"] | None = None  # relative xyxy in [0, 1]


class FeatureSource:
    """One HDF5 file or folder of features; `ids` is the set of ids in it."""

    def __init__(self, path: str | Path) -> None:
        """Raises ValueError when the path does not exist or holds no features."""
        self.path = Path(path)
        self._handle: tuple[int, Any] | None = None
        self._files: dict[str, Path] = {}
        self.ids: set[str] = set()
        if self.path.suffix.lower() in HDF5_SUFFIXES and self.path.is_file():
            try:
                self.ids = set(self._hdf5().keys())
            except (RuntimeError, KeyError, OSError) as error:
                raise ValueError(f"{self.path} is a damaged HDF5 file ({error}): download it again") from error
        elif self.path.is_dir():
            for file in visible_files(self.path, ARRAY_SUFFIXES):
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
            self._handle = os.getpid(), open_hdf5(self.path)
        return self._handle[1]

    def cells(self, id: str) -> Cells:
        """The features of an id as float32.

        Raises MediaError, which names file and id, when they are missing, damaged or of another shape.
        """
        where = f"{id}: in {self.path},"
        if id not in self.ids:
            examples = ", ".join(sorted(self.ids)[:2])
            raise MediaError(f"{id}: not in {self.path}, which has {len(self.ids)} ids ({examples}, ...)")
        try:
            arrays = _load_file(self._files[id]) if self._files else _load_entry(self._hdf5()[id])
        except Exception as error:  # h5py, numpy and torch raise KeyError, OSError, UnpicklingError, RuntimeError, ...
            raise MediaError(f"{where} the features cannot be read ({error})") from error
        if any(name in arrays for name in BOX_ARRAYS):
            try:
                regions = regions_of(arrays, where.rstrip(","), id=id)
            except ValueError as error:
                raise MediaError(f"{error}") from error
            return Cells(regions.features[None, None], regions.boxes)
        features = next((arrays[name] for name in FEATURE_ARRAYS if name in arrays), next(iter(arrays.values())))
        return Cells(_as_maps(features, where))


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
        self._cache: dict[str, Cells] = {}
        self._cache_left = CACHE_BYTES

    @property
    def dim(self) -> int:
        """Channels of a cell."""
        return sum(self.widths)

    def cells(self, medium: Medium) -> Cells:
        """The sampled frames of a medium: at most `sampling.frames`, or padded with zeros to it when `masked` is False.

        H and W are 1 for features of one vector per frame, T is 1 for a grid and for regions, of which none is dropped.
        Raises MediaError (a ValueError), which names file and id, when a source lacks the id, or its array does not fit
        the others.
        """
        if medium.frame_seed is not None and self.sampling.policy == "random":
            return self._sampled(medium)
        if medium.id not in self._cache:
            cells = self._sampled(medium)
            self._cache_left -= cells.grid.nbytes
            if self._cache_left < 0:
                return cells
            self._cache[medium.id] = cells
        return self._cache[medium.id]

    def _sampled(self, medium: Medium) -> Cells:
        loaded = [self._load(source, width, medium.id) for source, width in zip(self.sources, self.widths, strict=True)]
        arrays = [cells.grid for cells in loaded]
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
        boxes = next((cells.boxes for cells in loaded if cells.boxes is not None), None)
        if self.rows.masked or joined.shape[1:3] != (1, 1):  # an image has no rows of frames to be padded
            return Cells(joined, boxes)
        return Cells(_pad(joined, self.sampling.frames))

    def _load(self, source: FeatureSource, width: int, id: str) -> Cells:
        """All rows of an id as (T, H, W, D), at most `max_rows` of them; with `masked` False exactly
        `max_rows`."""
        array, boxes = source.cells(id)
        if (channels := array.shape[-1]) != width:
            raise MediaError(
                f"{id}: in {source.path}, it has {channels} channels and the others have {width} "
                f"(as (T, H, W, D) it is {array.shape})"
            )
        array = array[: self.rows.max_rows]
        padded = not self.rows.masked and self.rows.max_rows is not None and array.shape[1:3] == (1, 1)
        return Cells(_pad(array, self.rows.max_rows) if padded and self.rows.max_rows else array, boxes)

    def read(self, items: Sequence[tuple[Medium, str]]) -> Features:
        """The features of a batch of (medium, augmentation) pairs.

        The layout is (T, 1, 1), or (T, H, W) for maps; T is that of the longest medium, and padding is masked.
        Regions, and grids of different (H, W), become one row of cells with boxes, (1, 1, N).  Raises ValueError for
        maps over time of different (H, W).
        """
        loaded = [self.cells(medium) for medium, _ in items]
        sizes = {cells.grid.shape[1:3] for cells in loaded}
        has_boxes = any(cells.boxes is not None for cells in loaded)
        if has_boxes or len(sizes) > 1:
            if any(len(cells.grid) > 1 for cells in loaded):
                raise ValueError(f"maps of different (H, W), {sorted(sizes)}, cannot share a batch; resize them")
            return _one_row(loaded)
        arrays = [cells.grid for cells in loaded]
        layout = Layout(max(len(array) for array in arrays), *next(iter(sizes)))
        grid = np.zeros((len(arrays), *layout, self.dim), np.float32)
        mask = np.zeros((len(arrays), *layout), bool)
        for row, array in enumerate(arrays):
            grid[row, : len(array)], mask[row, : len(array)] = array, True
        cells = (len(arrays), layout.cells)
        return Features(torch.from_numpy(grid.reshape(*cells, -1)), torch.from_numpy(mask.reshape(cells)), layout)


def _one_row(loaded: Sequence[Cells]) -> Features:
    """Images with different numbers of cells as one row of cells; each cell keeps its box."""
    grids = [torch.from_numpy(np.ascontiguousarray(cells.grid)).flatten(0, 2) for cells in loaded]
    boxes = [
        Layout(*cells.grid.shape[:3]).boxes() if cells.boxes is None else torch.from_numpy(cells.boxes)
        for cells in loaded
    ]
    mask = pad_sequence([torch.ones(len(grid), dtype=torch.bool) for grid in grids], batch_first=True)
    layout = Layout(1, 1, mask.shape[1])
    return Features(pad_sequence(grids, batch_first=True), mask, layout, pad_sequence(boxes, batch_first=True))


def _pad(array: Float[np.ndarray, "t H W D"], length: int) -> Float[np.ndarray, "T H W D"]:
    """`array` with zero rows at its end, `length` rows in all."""
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def are_feature_files(path: str | Path) -> bool:
    """Whether a path is an HDF5 file or a folder of arrays, and not a feature store of limner."""
    path = Path(path)
    if path.suffix.lower() in HDF5_SUFFIXES:
        return True
    return path.is_dir() and bool(visible_files(path, ARRAY_SUFFIXES))


def _channels(source: FeatureSource) -> int:
    """The most frequent number of channels among the first nine arrays."""
    counts: Counter[int] = Counter()
    for id in islice(sorted(source.ids), 9):
        try:
            counts[source.cells(id).grid.shape[-1]] += 1
        except MediaError:
            continue
    if not counts:
        source.cells(min(source.ids))  # raises the error of the first array
    return counts.most_common(1)[0][0]


def _as_maps(array: np.ndarray, where: str) -> Float[np.ndarray, "T H W D"]:
    """An array in one of the known shapes as float32 maps.  Raises MediaError for another shape, NaN or infinity."""
    if not 1 <= array.ndim <= 4 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise MediaError(f"{where} the array is {array.dtype} {array.shape}; expected {SHAPES}")
    array = array.astype(np.float32)
    if bad := int(array.size - np.isfinite(array).sum()):
        raise MediaError(f"{where} {bad} of {array.size} values are NaN or infinite; extract the features again")
    if array.ndim == 3:
        if array.shape[0] >= CHANNELS_FIRST and array.shape[1] == array.shape[2] < array.shape[0]:
            raise MediaError(
                f"{where} the array {array.shape} has its channels first; expected (h, w, D): transpose it"
            )
        return array[None]
    return array.transpose(1, 2, 3, 0) if array.ndim == 4 else array.reshape(-1, 1, 1, array.shape[-1])


def _load_entry(entry: Any) -> dict[str, np.ndarray]:
    """The array of an HDF5 dataset, or the arrays of a group by name."""
    if not hasattr(entry, "keys"):
        return {"": np.asarray(entry[()])}
    names = [name for name in entry if name in KNOWN_ARRAYS]
    if not names:
        raise ValueError(f"the group holds {', '.join(entry) or 'nothing'}; expected features and boxes")
    return {name: np.asarray(entry[name][()]) for name in names}


def _load_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix.lower() not in (".pth", ".pt"):
        return read_arrays(path)
    saved = torch.load(path, map_location="cpu", weights_only=True)
    values = list(saved.values()) if isinstance(saved, dict) else [saved]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise ValueError("expected a file with one tensor")
    return {"": values[0].float().numpy()}


def _no_features(path: Path) -> str:
    """The message for a path without features."""
    state = "does not exist" if not path.exists() else "holds no features"
    return (
        f"features: '{path}' {state}; expected a feature store, an HDF5 file ({' '.join(HDF5_SUFFIXES)}) with one "
        f"dataset per id, or a folder with one {' '.join(ARRAY_SUFFIXES)} file per id"
    )
