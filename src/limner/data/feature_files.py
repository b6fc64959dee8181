"""Features that others have extracted, read where they lie: HDF5 with a dataset per id, or a folder of a file per id.

An array is (n, D), a row per frame; (C, T, H, W), the un-pooled map of a 3-D network, channels first; or (D,), one row.
Files per id end in .npy, .npz (one array in it) or .pth, .pt (one tensor; nothing else in it is executed).  Several
sources are joined on D.
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
CACHE = 1 << 30  # bytes of frames that are kept in memory
ARRAY_SUFFIXES = (".npy", ".npz", ".pth", ".pt")


@dataclass(frozen=True)
class FeatureRows:
    """How rows become the F = `recipe.frames` frames that a model sees.

    `cut`: rows beyond are left out before frames are picked.  `masked` False reproduces the published SA-LSTM: shorter
    features are padded with zero rows to `cut` (60 there) before frames are picked, and to F afterwards, and padding
    counts as frames.
    """

    masked: bool = True
    cut: PositiveInt | None = None


PLAIN = FeatureRows()


class Source:
    """Arrays by id: `names` lists what there is."""

    def __init__(self, path: str | Path) -> None:
        """Raises ValueError when the path holds no features."""
        self.path = Path(path)
        self._handle: tuple[int, Any] | None = None
        self._files: dict[str, Path] = {}
        self.names: set[str] = set()
        if self.path.suffix.lower() in HDF5_SUFFIXES and self.path.is_file():
            self.names = set(self._hdf5().keys())
        elif self.path.is_dir():
            for file in sorted(self.path.iterdir()):
                if file.suffix.lower() in ARRAY_SUFFIXES:
                    if file.stem in self._files:
                        raise ValueError(f"two files for the id {file.stem}: {self._files[file.stem]} and {file}")
                    self._files[file.stem] = file
            self.names = set(self._files)
        if not self.names:
            raise ValueError(_unknown(self.path))

    def __reduce__(self) -> tuple[type["Source"], tuple[Path]]:
        return Source, (self.path,)  # a spawned worker opens it anew

    def _hdf5(self) -> Any:
        """The file, opened once per process: a handle does not survive a fork."""
        if self._handle is None or self._handle[0] != os.getpid():
            import h5py

            try:
                self._handle = os.getpid(), h5py.File(self.path, "r")
            except OSError as error:
                raise ValueError(f"{self.path} is no HDF5 file, or is damaged ({error})") from error
        return self._handle[1]

    def array(self, id: str) -> Float[np.ndarray, "*shape"]:
        """The array of an id as float32.  Raises MediaError, naming file and id, when it is missing or unusable."""
        where = f"{id}: in {self.path}"
        if id not in self.names:
            some = ", ".join(sorted(self.names)[:2])
            raise MediaError(f"{id}: not in {self.path}, which has {len(self.names)} ids ({some}, ...)")
        try:
            array = np.asarray(_read_array(self._files[id]) if self._files else self._hdf5()[id][()])
        except Exception as error:  # h5py, numpy and torch raise KeyError, OSError, UnpicklingError, RuntimeError, ...
            raise MediaError(f"{where} the features cannot be read ({error})") from error
        if array.ndim not in (1, 2, 4) or 0 in array.shape or array.dtype.kind not in "fiu":
            raise MediaError(
                f"{where} stands {array.dtype} {array.shape}; expected numbers (n, D), or (C, T, H, W) for 3-D maps"
            )
        array = array.astype(np.float32)
        if bad := int(array.size - np.isfinite(array).sum()):
            raise MediaError(f"{where} {bad} of {array.size} values are NaN or infinite; extract it again")
        return array[None] if array.ndim == 1 else array


class FeatureFiles:
    """One or several sources, joined on D, F frames of each."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        sampling: FrameSampling = FrameSampling(),
        rows: FeatureRows = PLAIN,
    ) -> None:
        """Raises ValueError when a path holds no features."""
        self.sources = [Source(path) for path in paths]
        self.sampling, self.rows = sampling, rows
        self.widths = [_width(source) for source in self.sources]
        self._kept: dict[str, np.ndarray] = {}
        self._room = CACHE

    @property
    def dim(self) -> int:
        return sum(self.widths)

    def maps(self, medium: Medium) -> Float[np.ndarray, "T H W D"]:
        """The frames of a medium, T <= F; unmasked, with the rows of zeros that pass for frames.

        Raises MediaError (a ValueError), naming file and id, when a source lacks them or they do not fit.
        """
        if medium.frame_seed is not None and self.sampling.policy == "random":
            return self._maps(medium)
        if medium.id not in self._kept:
            found = self._maps(medium)
            self._room -= found.nbytes
            if self._room < 0:
                return found
            self._kept[medium.id] = found
        return self._kept[medium.id]

    def _maps(self, medium: Medium) -> Float[np.ndarray, "T H W D"]:
        arrays = [self._grid(source, width, medium.id) for source, width in zip(self.sources, self.widths, strict=True)]
        counts = [len(array) for array in arrays]
        sides = {array.shape[1:3] for array in arrays}
        if len(sides) > 1 or (len(set(counts)) > 1 and self.sampling.policy != "uniform"):
            shapes = ", ".join(f"{source.path} {a.shape[:3]}" for source, a in zip(self.sources, arrays, strict=True))
            raise MediaError(f"{medium.id}: features of different shape (T, H, W) cannot be joined: {shapes}")
        # of sources that differ in length so many each, so that they are the same moments
        frames = self.sampling.frames if len(set(counts)) == 1 else min(self.sampling.frames, *counts)
        sampling = replace(self.sampling, frames=frames)
        numbers = [list(sample_indices(count, sampling, medium.frame_seed)) for count in counts]
        joined = np.concatenate([array[chosen] for array, chosen in zip(arrays, numbers, strict=True)], -1)
        return joined if self.rows.masked else _padded(joined, self.sampling.frames)

    def _grid(self, source: Source, width: int, id: str) -> Float[np.ndarray, "T H W D"]:
        array = source.array(id)
        channels = array.shape[0 if array.ndim == 4 else 1]
        if channels != width:
            raise MediaError(
                f"{id}: in {source.path} it has {channels} channels, the others have {width} "
                f"(its shape is {array.shape}; expected (n, {width}) or ({width}, T, H, W))"
            )
        array = array[:, None, None] if array.ndim == 2 else array.transpose(1, 2, 3, 0)
        array = array[: self.rows.cut]
        return array if self.rows.masked or self.rows.cut is None else _padded(array, self.rows.cut)

    def read(self, items: Sequence[tuple[Medium, str]]) -> Features:
        """A reader of batches: layout (T, 1, 1), or (T, H, W) for maps; T is the longest one, padding is masked."""
        found = [self.maps(medium) for medium, _ in items]
        sides = {maps.shape[1:3] for maps in found}
        if len(sides) > 1:
            raise ValueError(f"maps of different (H, W), {sorted(sides)}, cannot share a batch; resize them")
        layout = Layout(max(len(maps) for maps in found), *next(iter(sides)))
        grid = np.zeros((len(found), *layout, self.dim), np.float32)
        mask = np.zeros((len(found), *layout), bool)
        for row, maps in enumerate(found):
            grid[row, : len(maps)], mask[row, : len(maps)] = maps, True
        cells = (len(found), layout.cells)
        return Features(torch.from_numpy(grid.reshape(*cells, -1)), torch.from_numpy(mask.reshape(cells)), layout)


def _padded(array: Float[np.ndarray, "t H W D"], length: int) -> Float[np.ndarray, "T H W D"]:
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def are_feature_files(path: str | Path) -> bool:
    """Is it an HDF5 file or a folder of arrays, rather than a feature store of ours?"""
    path = Path(path)
    if path.suffix.lower() in HDF5_SUFFIXES:
        return True
    return path.is_dir() and any(file.suffix.lower() in ARRAY_SUFFIXES for file in path.iterdir())


def _width(source: Source) -> int:
    """The D that most of the first few arrays have."""
    found: Counter[int] = Counter()
    for id in islice(sorted(source.names), 9):
        try:
            array = source.array(id)
        except MediaError:
            continue
        found[array.shape[0 if array.ndim == 4 else 1]] += 1
    if not found:
        source.array(min(source.names))  # says what is wrong
    return found.most_common(1)[0][0]


def _read_array(path: Path) -> Any:
    if path.suffix.lower() in (".pth", ".pt"):
        saved = torch.load(path, map_location="cpu", weights_only=True)
        values = list(saved.values()) if isinstance(saved, dict) else [saved]
        if len(values) != 1 or not isinstance(values[0], Tensor):
            raise ValueError("expected one tensor in it")
        return values[0].float().numpy()
    saved = np.load(path, allow_pickle=False)
    if isinstance(saved, np.ndarray):
        return saved
    with saved:
        if len(saved.files) != 1:
            raise ValueError(f"expected one array in it, found {', '.join(saved.files)}")
        return saved[saved.files[0]]


def _unknown(path: Path) -> str:
    state = "is not there" if not path.exists() else "holds no features"
    return (
        f"features: '{path}' {state}; expected a feature store, an HDF5 file ({' '.join(HDF5_SUFFIXES)}) with a "
        f"dataset per id, or a folder with a {' '.join(ARRAY_SUFFIXES)} file per id"
    )
