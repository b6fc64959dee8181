"""Random reads from a FeatureStore against HDF5 with one dataset per id; both in the page cache, CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/feature_store.py --rounds 7

2,048 entries of 49 x 1280 float16 (257 MB each way, in a temporary folder), read in the same shuffled order; the HDF5
file stays open.  The sum of every read is checked to be equal before anything is timed.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import torch
from torch import Tensor

from limits import report_reading
from limner.core.types import Layout
from limner.data.store import FeatureStore, StoreWriter
from paired import PUBLISHED, arguments, report, take_turns

ENTRIES, CELLS, CHANNELS = 2048, 49, 1280


def write_both(folder: Path) -> list[str]:
    """The same random cells as a store (`store/`) and as `cells.h5`, a dataset per id -> the ids."""
    draw = torch.Generator().manual_seed(0)
    ids = [f"picture-{i:05d}" for i in range(ENTRIES)]
    writer = StoreWriter(folder / "store", {"encoder": "random"})
    with h5py.File(folder / "cells.h5", "w") as file:
        for id in ids:
            grid = torch.randn(CELLS, CHANNELS, generator=draw).half()
            writer.add(id, "full", grid, Layout(1, 7, 7))
            file.create_dataset(id, data=grid.numpy())
    writer.finish()
    return ids


def main() -> int:
    rounds = arguments(__doc__, rounds=7).rounds
    with TemporaryDirectory() as name:
        folder = Path(name)
        ids = write_both(folder)
        random.Random(0).shuffle(ids)
        store = FeatureStore(folder / "store")
        with h5py.File(folder / "cells.h5") as file:

            def from_store(id: str) -> Tensor:
                return store.get(id)[0]

            def from_hdf5(id: str) -> Tensor:
                return torch.from_numpy(file[id][()])

            unequal = sum(from_store(id).double().sum() != from_hdf5(id).double().sum() for id in ids)
            print(f"{len(ids)} shuffled reads, unequal sums: {int(unequal)}")
            if unequal:
                return 1

            def read_all(read: Callable[[str], Tensor]) -> Callable[[], None]:
                def run() -> None:
                    for id in ids:
                        read(id)

                return run

            variants = {"FeatureStore": read_all(from_store), "HDF5, a dataset per id": read_all(from_hdf5)}
            seconds = take_turns(variants, rounds)
            report(seconds, {"HDF5, a dataset per id": 3}, paired_with=f"{PUBLISHED} of SA-LSTM and others")
            report_reading(ENTRIES * CELLS * CHANNELS * 2, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
