"""Features of others, in place: HDF5 and files per id, picked, joined, padded; every fault names file and id."""

import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from limner.core.types import Layout, Medium
from limner.data.feature_files import FeatureFiles, FeatureRows, FeatureSource, are_feature_files
from limner.data.frames import FrameSampling
from limner.data.media import MediaError


def rows(count: int, width: int = 3, base: float = 0) -> np.ndarray:
    """Row k holds base + k in all channels."""
    return np.repeat(base + np.arange(count, dtype=np.float32)[:, None], width, 1)


def hdf5(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for id, array in arrays.items():
            file.create_dataset(id, data=array)
    return path


def read(files: FeatureFiles, *ids: str, seed: int | None = None):
    return files.read([(Medium(id, "", frame_seed=seed), "full") for id in ids])


def test_every_file_format_gives_the_same_array(tmp_path: Path):
    array = rows(5).astype(np.float16)
    for name in ("npy", "npz", "pth", "pt"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "npy" / "v1.npy", array)
    np.savez(tmp_path / "npz" / "v1.npz", anything=array)
    torch.save(torch.from_numpy(array), tmp_path / "pth" / "v1.pth")
    torch.save({"features": torch.from_numpy(array)}, tmp_path / "pt" / "v1.pt")
    for path in (hdf5(tmp_path / "a.hdf5", v1=array), *(tmp_path / name for name in ("npy", "npz", "pth", "pt"))):
        assert are_feature_files(path)
        files = FeatureFiles([path], FrameSampling(8))
        features = read(files, "v1")
        assert files.dim == 3 and features.layout == Layout(5, 1, 1) and features.mask.all()
        assert features.grid.dtype == torch.float32 and features.grid[0, :, 0].tolist() == [0, 1, 2, 3, 4]
    assert not are_feature_files(tmp_path) and not are_feature_files(tmp_path / "nowhere")


def test_frames_are_picked_or_padded_and_padding_is_masked(tmp_path: Path):
    path = hdf5(tmp_path / "a.h5", long=rows(10), short=rows(2, base=1), one=np.full(3, 7.0))
    features = read(FeatureFiles([path], FrameSampling(4)), "long", "short", "one")
    assert features.layout == Layout(4, 1, 1)
    assert features.grid[:, :, 0].tolist() == [[0, 3, 6, 9], [1, 2, 0, 0], [7, 0, 0, 0]]
    assert features.mask.tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    for policy, expected in (("head", [0, 1, 2, 3]), ("tail", [6, 7, 8, 9]), ("every", [0, 5])):
        found = read(FeatureFiles([path], FrameSampling(4, policy)), "long")
        assert found.grid[0, :, 0].tolist() == expected


def test_padding_and_truncation_as_published(tmp_path: Path):
    """SA-LSTM: zero rows up to 60, or a cut there, then 28 by linspace; zero rows are frames like others."""
    path = hdf5(tmp_path / "a.h5", long=rows(90, base=1), short=rows(50, base=1))
    features = read(
        FeatureFiles([path], FrameSampling(28), rows=FeatureRows(masked=False, max_rows=60)), "long", "short"
    )
    numbers = np.linspace(0, 59, 28).astype(int)
    assert features.mask.all() and features.layout == Layout(28, 1, 1)
    assert features.grid[0, :, 0].tolist() == (numbers + 1).tolist()
    assert features.grid[1, :, 0].tolist() == np.where(numbers < 50, numbers + 1, 0).tolist()
    unmasked = read(FeatureFiles([path], FrameSampling(64), rows=FeatureRows(masked=False)), "short")
    assert unmasked.mask.all() and unmasked.grid[0, :, 0].tolist() == [*range(1, 51)] + [0] * 14
    masked = read(FeatureFiles([path], FrameSampling(28), rows=FeatureRows(max_rows=60)), "long")
    assert masked.grid[0, -1, 0] == 60


def test_random_rows_come_from_their_parts_and_depend_on_the_seed(tmp_path: Path):
    files = FeatureFiles([hdf5(tmp_path / "a.h5", v=rows(20))], FrameSampling(2, "random"))
    seen = {tuple(read(files, "v", seed=k).grid[0, :, 0].tolist()) for k in range(20)}
    assert len(seen) > 10 and all(a < 10 <= b for a, b in seen)
    assert read(files, "v").grid[0, :, 0].tolist() == [5, 15] == read(files, "v").grid[0, :, 0].tolist()
    assert torch.equal(read(files, "v", seed=3).grid, read(files, "v", seed=3).grid)


def test_feature_maps_are_stored_channels_first(tmp_path: Path):
    array = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)  # C, T, H, W
    torch.save(torch.from_numpy(array), tmp_path / "v.pth")
    torch.save(torch.from_numpy(array[:, :1]), tmp_path / "w.pth")
    files = FeatureFiles([tmp_path], FrameSampling(8))
    features = read(files, "v", "w")
    assert files.dim == 5 and features.layout == Layout(3, 2, 2)
    np.testing.assert_array_equal(features.grid[0].reshape(3, 2, 2, 5).numpy(), array.transpose(1, 2, 3, 0))
    assert features.mask.tolist() == [[True] * 12, [True] * 4 + [False] * 8]


def test_features_of_several_files_are_concatenated(tmp_path: Path):
    a = hdf5(tmp_path / "a.h5", v=rows(9), w=rows(2))
    b = hdf5(tmp_path / "b.h5", v=rows(9, 2, 100), w=rows(2, 2, 100))
    c = hdf5(tmp_path / "c.h5", v=rows(3, 1, 1000), w=rows(5, 1, 1000))
    both = FeatureFiles([a, b], FrameSampling(4))
    features = read(both, "v", "w")
    assert both.dim == 5 and features.grid[0, 1].tolist() == [2, 2, 2, 102, 102]
    assert features.grid[1].tolist() == [[0] * 3 + [100] * 2, [1] * 3 + [101] * 2, [0] * 5, [0] * 5]
    # of unequal lengths the shorter one gives the number, and the rows are of the same moments
    uneven = read(FeatureFiles([a, c], FrameSampling(4)), "v", "w")
    assert (
        uneven.grid[0, :3, 2:].tolist() == [[0, 1000], [4, 1001], [8, 1002]] and uneven.mask[0].tolist() == [True] * 3
    )
    assert uneven.grid[1, :2, 2:].tolist() == [[0, 1000], [1, 1004]]
    with pytest.raises(
        MediaError, match=r"v: features of different shape .* cannot be joined: .*a\.h5 \(9, 1, 1\), .*c\.h5"
    ):
        read(FeatureFiles([a, c], FrameSampling(4, "head")), "v")


def test_errors_name_the_file_and_the_id(tmp_path: Path):
    spoilt = rows(4)
    spoilt[2, 1] = np.nan
    fine = {f"v{k}": rows(4) for k in range(5)}
    path = hdf5(tmp_path / "a.h5", nan=spoilt, wide=rows(4, 5), cube=np.zeros((2,) * 5), text=np.array([b"a"]), **fine,
                none=np.zeros((0, 3)))  # fmt: skip
    with h5py.File(path, "a") as file:
        file.create_group("group")
    files = FeatureFiles([path], FrameSampling(4))
    assert files.dim == 3  # what most have
    for id, message in (
        ("gone", r"gone: not in .*a\.h5, which has 11 ids \(cube, group, \.\.\.\)"),
        ("nan", r"nan: in .*a\.h5, 1 of 12 values are NaN or infinite; extract the features again"),
        (
            "wide",
            r"wide: in .*a\.h5, it has 5 channels and the others have 3 \(as \(T, H, W, D\) it is \(4, 1, 1, 5\)\)",
        ),
        (
            "cube",
            r"cube: in .*a\.h5, the array is float64 \(2, 2, 2, 2, 2\); expected numbers \(n, D\), \(h, w, D\) or",
        ),
        ("text", r"text: in .*a\.h5, the array is .*; expected numbers"),
        ("none", r"none: in .*a\.h5, the array is float64 \(0, 3\); expected"),
        ("group", r"group: in .*a\.h5, the features cannot be read"),
    ):
        with pytest.raises(MediaError, match=message):
            read(files, id)
    assert read(files, "v1").mask.all()


def test_nothing_in_a_file_is_executed(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    with open(tmp_path / "v.pth", "wb") as file:
        pickle.dump(Evil(), file, protocol=2)
    np.save(tmp_path / "w.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    torch.save(torch.ones(2, 3), tmp_path / "x.pth")
    files = FeatureFiles([tmp_path], FrameSampling(2))
    for id in "vw":
        with pytest.raises(MediaError, match=f"{id}: in .* the features cannot be read"):
            read(files, id)
    assert not (tmp_path / "executed").exists() and read(files, "x").mask.all()


def test_paths_without_features_are_refused(tmp_path: Path):
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    hdf5(tmp_path / "empty.h5")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("gone.h5", r"features: '.*gone\.h5' does not exist; expected a feature store, an HDF5 file"),
        ("broken.h5", r"broken\.h5 is not an HDF5 file, or is damaged"),
        ("empty.h5", r"features: '.*empty\.h5' holds no features; expected"),
        ("folder", r"features: '.*folder' holds no features; expected"),
    ):
        with pytest.raises(ValueError, match=message):
            FeatureFiles([tmp_path / name], FrameSampling(4))
    np.save(tmp_path / "folder" / "v.npy", rows(2))
    np.savez(tmp_path / "folder" / "v.npz", rows(2))
    with pytest.raises(ValueError, match=r"two files for the id v: .*v\.npy"):
        FeatureSource(tmp_path / "folder")


def _width_in_child(source: FeatureSource, queue) -> None:
    shape = source.cells("v").grid.shape
    assert source._handle is not None
    queue.put((shape, source._handle[0] == os.getpid()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_opens_the_file_for_itself(tmp_path: Path, method: str):
    source = FeatureSource(hdf5(tmp_path / "a.h5", v=rows(4)))
    assert source.cells("v").grid.shape == (4, 1, 1, 3)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_width_in_child, args=(source, queue))
    child.start()
    assert queue.get(timeout=60) == ((4, 1, 1, 3), True)
    child.join()


def test_a_grid_of_an_image_keeps_its_rows_and_columns(tmp_path: Path):
    """(h, w, D) as prepro_feats.py and grid extractors write it; `frames` drops no cell."""
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", feat=grid)
    np.savez(tmp_path / "b.npz", feat=grid[:, :1])
    files = FeatureFiles([tmp_path], FrameSampling(1))
    alone = read(files, "a")
    assert alone.layout == Layout(1, 2, 3) and alone.regions is None and files.dim == 4
    np.testing.assert_array_equal(alone.grid[0].numpy(), grid.reshape(6, 4))
    both = read(files, "a", "b")  # 6 and 2 cells: one row, each cell with the box of its own grid
    assert both.layout == Layout(1, 1, 6) and both.mask.sum(1).tolist() == [6, 2]
    assert both.regions is not None
    np.testing.assert_allclose(both.regions[0, 0], [0, 0, 1 / 3, 1 / 2], atol=1e-6)
    np.testing.assert_allclose(both.regions[1, 1], [0, 1 / 2, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(both.grid[1, 1].numpy(), grid[1, 0])


def test_a_grid_with_channels_first_is_refused(tmp_path: Path):
    path = hdf5(tmp_path / "a.h5", v=np.zeros((64, 7, 7), np.float32))
    with pytest.raises(MediaError, match=r"v: in .*, the array \(64, 7, 7\) has its channels first; expected"):
        FeatureFiles([path])


def boxed(path: Path, count: int, **more: object) -> Path:
    """`count` regions of 2 channels as bottom-up extractors write them: `x`, `bbox`, sizes, and a pickled `info`."""
    boxes = np.array([[0, 0, 50, 100], [50, 50, 100, 200], [0, 0, 0, 0]], np.float32)[:count]
    arrays = {"x": rows(count, 2), "bbox": boxes, "image_w": 100, "image_h": 200, **more}
    np.savez(path, info=np.array({"objects": []}, dtype=object), **arrays)
    return path


def test_regions_of_an_npz_file_keep_their_boxes(tmp_path: Path):
    boxed(tmp_path / "a.npz", 2)
    boxed(tmp_path / "b.npz", 1)
    boxed(tmp_path / "c.npz", 3, num_bbox=2)  # the third row is padding
    features = read(FeatureFiles([tmp_path], FrameSampling(1)), "a", "b", "c")
    assert features.layout == Layout(1, 1, 2) and features.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert features.regions is not None and features.grid[0].tolist() == [[0, 0], [1, 1]]
    assert features.regions[0].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.25, 1, 1]]
    assert features.regions[2].tolist() == features.regions[0].tolist()


def test_a_group_per_id_is_read_as_an_npz_file_is(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v/features"], file["v/boxes"] = rows(2), np.array([[0, 0, 1, 0.5], [0, 0.5, 1, 1]], np.float32)
    features = read(FeatureFiles([tmp_path / "a.h5"]), "v")
    assert features.regions is not None and features.regions[0].tolist() == [[0, 0, 1, 0.5], [0, 0.5, 1, 1]]


def test_boxes_in_pixels_need_the_size_of_the_image(tmp_path: Path):
    np.savez(tmp_path / "a.npz", features=rows(1), boxes=np.array([[0, 0, 9, 9]], np.float32))
    with pytest.raises(MediaError, match=r"a: in .*: boxes up to 9 are in pixels, and the size of a is not known;"):
        FeatureFiles([tmp_path])
    np.savez(tmp_path / "a.npz", p=rows(1), q=rows(1))
    with pytest.raises(MediaError, match="expected one array, or one of feat, features, x, arr_0; found p, q"):
        FeatureFiles([tmp_path])
