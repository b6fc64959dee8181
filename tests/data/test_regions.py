"""Regions of others' detectors, written as they publish them, and everything that can be wrong with them."""

import base64
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limner.core.types import Layout, Medium
from limner.data.batches import from_store
from limner.data.regions import ImportReport, read_image_sizes, read_region_folder, read_region_tsv, store_regions
from limner.data.store import FeatureStore

D = 8


def draw(count: int, seed: int, size: tuple[int, int] = (640, 480), dim: int = D) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, dim), and boxes in pixels."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.uniform(0, 1, (count, 2, 2)), 1).reshape(count, 4)
    return random.normal(size=(count, dim)).astype(np.float32), (corners * [*size, *size]).astype(np.float32)


def row(
    id: str, features: np.ndarray, boxes: np.ndarray, size: tuple[Any, Any] = (640, 480), count: Any = None
) -> bytes:
    encoded = [base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()) for array in (boxes, features)]
    told = [id, *map(str, size), str(len(boxes) if count is None else count)]
    return b"\t".join([*(text.encode() for text in told), *encoded]) + b"\n"


def imported(path: Path, out: Path) -> ImportReport:
    return store_regions(read_region_tsv([path]), out)


def test_a_tsv_row_written_by_hand_is_read(tmp_path: Path) -> None:
    """Boxes in a picture of 200 x 100; the second reaches beyond it on all sides, the third has no area."""
    boxes = np.array([[20, 10, 100, 50], [-10, -5, 300, 120], [50, 50, 50, 80]], np.float32)
    features = np.arange(3 * D, dtype=np.float32).reshape(3, D)
    (tmp_path / "val.tsv").write_bytes(row("42", features, boxes, (200, 100)))
    report = imported(tmp_path / "val.tsv", tmp_path / "store")
    assert report == ImportReport(1, 0, 3, 1, 1, ())
    assert str(report).endswith("0 failed; 1 boxes clipped at the image border, 1 without area")
    grid, layout, relative = FeatureStore(tmp_path / "store").get("42")
    assert torch.equal(grid, torch.from_numpy(features).half()) and layout == Layout(1, 1, 3)
    expected = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1], [0.25, 0.5, 0.25, 0.8]])
    torch.testing.assert_close(relative, expected)


def test_pictures_of_different_numbers_of_regions_share_a_batch(tmp_path: Path) -> None:
    counts = [10, 36, 100]
    (tmp_path / "a.tsv").write_bytes(b"".join(row(f"m{n}", *draw(n, n)) for n in counts))
    assert imported(tmp_path / "a.tsv", tmp_path / "store").regions == 146
    read = from_store(FeatureStore(tmp_path / "store"))
    features = read([(Medium(f"m{n}", ""), "full") for n in counts])
    assert features.mask.sum(1).tolist() == counts and features.regions is not None
    boxes = draw(36, 36)[1] / [640, 480, 640, 480]
    torch.testing.assert_close(features.boxes[1, :36], torch.from_numpy(boxes.astype(np.float32)))
    assert (features.boxes[1, 36:] == 0).all() and (features.grid[1, 36:] == 0).all()


def test_boxes_one_pixel_beyond_the_border_are_clipped_silently(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 641, 480], [0, 0, 640, 482]], np.float32)
    (tmp_path / "a.tsv").write_bytes(row("1", draw(2, 0)[0], boxes))
    report = imported(tmp_path / "a.tsv", tmp_path / "store")
    assert report.clipped == 1
    assert FeatureStore(tmp_path / "store").get("1")[2].tolist() == [[0, 0, 1, 1]] * 2


def test_fields_longer_than_the_limit_of_the_csv_module_are_read(tmp_path: Path) -> None:
    """A published field of 100 regions is 1.1 MB; Python's csv stops at 131,072 characters."""
    features, boxes = draw(100, 1, dim=2048)
    line = row("1", features, boxes)
    assert len(line.split(b"\t")[5]) > 131_072 * 8
    (tmp_path / "a.tsv").write_bytes(line)
    assert imported(tmp_path / "a.tsv", tmp_path / "store").regions == 100
    assert torch.equal(FeatureStore(tmp_path / "store").get("1")[0], torch.from_numpy(features).half())


@pytest.mark.parametrize("lost", [5, 5000, 19_900])
def test_a_truncated_file_keeps_its_complete_rows(lost: int, tmp_path: Path) -> None:
    """In the last field, in the one before, or within the last id: what is whole is stored, and the rest is told."""
    data = b"".join(row(f"m{n}", *draw(50, n, dim=96)) for n in range(3))
    last = len(data) // 3
    lost = lost if lost < 10_000 else last - 1
    (tmp_path / "a.tsv").write_bytes(data[:-lost])
    report = imported(tmp_path / "a.tsv", tmp_path / "store")
    ((id, reason),) = report.failures
    assert report.stored == 2 and id == ("line 3" if lost == last - 1 else "m2")
    assert "line 3" in reason and "may be truncated: download it again" in reason
    assert FeatureStore(tmp_path / "store").failures == {id: reason}
    (tmp_path / "a.tsv").write_bytes(data)
    again = imported(tmp_path / "a.tsv", tmp_path / "store")
    assert (again.stored, again.present) == (1, 2) and "m2" in FeatureStore(tmp_path / "store")


GOOD = draw(4, 7)
NAN = GOOD[0].copy()
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row("x", NAN, GOOD[1]), "1 of 32 numbers of the features are NaN"),
        (row("x", GOOD[0], np.full((4, 4), np.inf)), "16 of 16 numbers of the boxes are NaN or infinite"),
        (row("x", GOOD[0] * 1e6, GOOD[1]), "inf or nan in float16"),
        (row("x", GOOD[0][:0], GOOD[1][:0]), "found 0 regions"),
        (row("x", *GOOD, count=3), "3 regions have 16 coordinates and 32 features; expected 12"),
        (row("x", *GOOD, count="four"), "cannot be decoded"),
        (row("x", *GOOD, size=(0, 480)), "0 x 480 pixels is not a possible image size"),
        (row("x", *GOOD, size=("nan", 480)), "nan x 480"),
        (row("x", *draw(4, 0, dim=9)), "x: 9 channels; the cells in "),
        (b"x\t640\t480\n", "has 3 columns; expected image_id, image_w"),
        (b"x\t640\t480\t4\t!\t!!\n", "4 regions have 0 coordinates"),
    ],
)
def test_a_bad_row_does_not_stop_the_others(bad: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(row("first", *GOOD) + bad + b"\n" + row("last", *GOOD))
    report = imported(tmp_path / "a.tsv", tmp_path / "store")
    ((id, reason),) = report.failures
    assert (report.stored, id) == (2, "x") and said in reason and "truncated" not in reason
    assert FeatureStore(tmp_path / "store").ids == ["first", "last"]


def test_300_regions_of_a_picture_are_stored(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(row("1", *draw(300, 1)))
    assert imported(tmp_path / "a.tsv", tmp_path / "store").regions == 300


def test_files_that_are_no_region_tsv_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("hello\nworld\n")
    with pytest.raises(ValueError, match="first line has 1 columns"):
        imported(tmp_path / "a.tsv", tmp_path / "store")
    (tmp_path / "a.tsv").write_bytes(row("x", NAN, GOOD[1]))
    with pytest.raises(ValueError, match=r"no features to store, 1 media failed: x: .*NaN"):
        imported(tmp_path / "a.tsv", tmp_path / "store2")
    assert not (tmp_path / "store2").exists()  # nor is an empty folder left
    (tmp_path / "a.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.tsv is empty"):
        imported(tmp_path / "a.tsv", tmp_path / "store3")


def test_the_distributed_zip_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "trainval_36.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trainval_36/README.md", "no regions")
        archive.writestr("trainval_36/a.tsv", row("1", *draw(36, 1)))
        archive.writestr("trainval_36/b.tsv", row("2", *draw(36, 2)))
    assert imported(tmp_path / "trainval_36.zip", tmp_path / "store").stored == 2
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.csv", "")
    with pytest.raises(ValueError, match=r"no \.tsv in it, but a\.csv"):
        imported(tmp_path / "other.zip", tmp_path / "store")


def zipped(path: Path, pictures: int = 6) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trainval/a.tsv", b"".join(row(f"m{n}", *draw(36, n)) for n in range(pictures)))
    return path.read_bytes()


@pytest.mark.parametrize("harm", ["cut", "flipped", "cut in front", "encrypted"])
def test_a_damaged_zip_is_reported(harm: str, tmp_path: Path) -> None:
    """Cut, its list of files is gone; with a byte flipped, its checksum fails; without its front, offsets are wrong."""
    path = tmp_path / "trainval.zip"
    data = bytearray(zipped(path))
    if harm == "flipped":
        data[len(data) // 2] ^= 255
    if harm == "encrypted":  # bit 0 of the flags, in the entry itself and in the list of files
        data[6] |= 1
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes({"cut": data[:-100], "cut in front": data[1000:]}.get(harm, data))
    with pytest.raises(ValueError, match=r"trainval\.zip is a ZIP file that cannot be read to its end") as raised:
        imported(path, tmp_path / "store")
    said = str(raised.value)
    assert "download it again; else unpack it" in said and said.isprintable()
    zipped(path)
    assert imported(path, tmp_path / "store").stored == 6  # nothing is in the way of a whole one


def test_features_of_another_width_than_the_stores_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(row("1", *draw(3, 1)))
    imported(tmp_path / "a.tsv", tmp_path / "store")
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    (tmp_path / "b.tsv").write_bytes(b"".join(row(f"{n}", *draw(3, n, dim=D + 2)) for n in range(2, 5)))
    with pytest.raises(ValueError, match=r"2: 10 channels; the cells in \S+ have 8; nothing was written: import"):
        imported(tmp_path / "b.tsv", tmp_path / "store")
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before
    (tmp_path / "c.tsv").write_bytes(row("5", *draw(3, 5)) + row("6", *draw(3, 6, dim=D + 2)))
    report = imported(tmp_path / "c.tsv", tmp_path / "store")  # one of another width does not stop the others
    assert report.stored == 1 and [id for id, _ in report.failures] == ["6"]
    again = imported(tmp_path / "c.tsv", tmp_path / "store")
    assert (again.stored, again.present, len(again.failures)) == (0, 1, 1)
    assert FeatureStore(tmp_path / "store").ids == ["1", "5"]


def test_repeated_ids_are_counted_and_named(tmp_path: Path) -> None:
    """The first row counts; a whole row makes good for a damaged one before it."""
    rows = [row("a", *draw(3, 1)), row("b", *draw(3, 2)), row("b", *draw(4, 3)), row("a", *draw(5, 4))]
    rows += [row("c", NAN, GOOD[1]), row("c", *draw(3, 5))]
    (tmp_path / "a.tsv").write_bytes(b"".join(rows))
    report = imported(tmp_path / "a.tsv", tmp_path / "store")
    assert report == ImportReport(3, 0, 9, 0, 0, (), 2, "b")
    assert str(report).endswith("; 2 images with a repeated id are left out, the first is 'b'")
    store = FeatureStore(tmp_path / "store")
    assert store.failures == {} and len(store.get("b")[0]) == 3
    again = imported(tmp_path / "a.tsv", tmp_path / "store")
    assert (again.present, again.repeated) == (3, 3) and again.first_repeated == "b"  # of c, too, the store has one


def test_reading_needs_the_memory_of_one_shard_whatever_the_size_of_the_file(tmp_path: Path) -> None:
    """Twice the pictures need the same memory to be read: 100 and 200 of 25 kB each.  (What is stored is torch's, which
    is not traced; it is a shard at most.)"""
    peaks = []
    for count in (100, 200):
        line = row("ID", *draw(36, 1, dim=128))
        with open(tmp_path / "a.tsv", "wb") as file:
            for number in range(count):
                file.write(line.replace(b"ID", f"m{number}".encode(), 1))
        tracemalloc.start()
        imported(tmp_path / "a.tsv", tmp_path / f"store{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    added = (tmp_path / "a.tsv").stat().st_size / 2
    assert peaks[1] - peaks[0] < 0.1 * added


def test_stored_pictures_are_not_decoded_again(tmp_path: Path) -> None:
    def unread() -> Any:
        raise AssertionError("it is in the store")

    (tmp_path / "a.tsv").write_bytes(row("1", *draw(3, 1)))
    imported(tmp_path / "a.tsv", tmp_path / "store")
    found = [entry._replace(load=unread) for entry in read_region_tsv([tmp_path / "a.tsv"])]
    assert store_regions(found, tmp_path / "store").present == 1


def folders(tmp_path: Path) -> tuple[Path, Path]:
    """As make_bu_data.py leaves them: cocobu_att/ID.npz['feat'] and cocobu_box/ID.npy in pixels."""
    for name in ("att", "box"):
        (tmp_path / name).mkdir()
    for number in (1, 2):
        features, boxes = draw(4 + number, number)
        np.savez_compressed(tmp_path / "att" / f"{number}.npz", feat=features)
        np.save(tmp_path / "box" / f"{number}.npy", boxes)
    return tmp_path / "att", tmp_path / "box"


@pytest.mark.parametrize("kind", ["plain", "coco"])
def test_folders_with_boxes_in_pixels_are_read(kind: str, tmp_path: Path) -> None:
    att, box = folders(tmp_path)
    sizes: Any = {"1": [640, 480], "2": [640, 480]}
    if kind == "coco":
        sizes = {"images": [{"id": int(id), "width": 640, "height": 480} for id in sizes]}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    report = store_regions(read_region_folder(att, box, tmp_path / "sizes.json"), tmp_path / "store")
    assert (report.stored, report.regions, report.failures) == (2, 11, ())
    features, boxes = draw(6, 2)
    grid, layout, relative = FeatureStore(tmp_path / "store").get("2")
    assert torch.equal(grid, torch.from_numpy(features).half()) and layout == Layout(1, 1, 6)
    torch.testing.assert_close(relative, torch.from_numpy((boxes / [640, 480, 640, 480]).astype(np.float32)))


def test_relative_boxes_need_no_sizes_and_pixels_do(tmp_path: Path) -> None:
    att, box = folders(tmp_path)
    np.save(box / "1.npy", (draw(5, 1)[1] / [640, 480, 640, 480]).astype(np.float32))
    report = store_regions(read_region_folder(att, box), tmp_path / "store")
    assert report.stored == 1
    ((id, reason),) = report.failures
    assert id == "2" and "are in pixels, and the size of 2 is not known" in reason


def test_relative_boxes_do_not_depend_on_the_size(tmp_path: Path) -> None:
    """The largest picture of all is no reason to divide by it again."""
    att, box = folders(tmp_path)
    relative = np.array([[0, 0, 1, 1], [0.5, 0.25, 1.0000001, 0.5]], np.float32)
    for name, boxes in (("1", relative), ("2", relative * [640, 480, 640, 480])):
        np.savez(att / f"{name}.npz", feat=np.ones((2, D), np.float32))
        np.save(box / f"{name}.npy", boxes)
    (tmp_path / "sizes.json").write_text('{"1": [640, 480], "2": [640, 480]}')
    report = store_regions(read_region_folder(att, box, tmp_path / "sizes.json"), tmp_path / "store")
    assert (report.stored, report.clipped, report.zero_area) == (2, 0, 0)
    store = FeatureStore(tmp_path / "store")
    for name in "12":
        torch.testing.assert_close(store.get(name)[2], torch.from_numpy(relative.clip(0, 1)))
    with pytest.raises(ValueError, match="there is no folder of boxes"):
        list(read_region_folder(att, tmp_path / "nowhere"))


def test_an_npz_file_with_boxes_and_sizes_is_read(tmp_path: Path) -> None:
    features, boxes = draw(3, 1)
    (tmp_path / "att").mkdir()
    np.savez(tmp_path / "att" / "7.npz", x=features, bbox=boxes, image_w=640, image_h=480, num_bbox=3)
    assert store_regions(read_region_folder(tmp_path / "att"), tmp_path / "store").stored == 1
    relative = FeatureStore(tmp_path / "store").get("7")[2]
    torch.testing.assert_close(relative, torch.from_numpy((boxes / [640, 480, 640, 480]).astype(np.float32)))


def test_grids_get_their_boxes_from_the_layout(tmp_path: Path) -> None:
    (tmp_path / "att").mkdir()
    grid = np.random.default_rng(0).normal(size=(2, 3, D)).astype(np.float32)
    np.savez(tmp_path / "att" / "7.npz", feat=grid)
    store_regions(read_region_folder(tmp_path / "att"), tmp_path / "store")
    features = from_store(FeatureStore(tmp_path / "store"))([(Medium("7", ""), "full")])
    assert features.layout == Layout(1, 2, 3) and torch.equal(features.boxes[0], Layout(1, 2, 3).boxes())
    assert torch.equal(features.grid[0, 4], torch.from_numpy(grid[1, 1]).half().float())


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("1.npz", {"odd": GOOD[0]}, "holds odd float32 .4, 8.; expected feat"),
        ("1.npz", {"feat": GOOD[0][0]}, "expected feat or features"),
        ("1.npz", {"feat": NAN, "boxes": GOOD[1] / 700}, "1 of 32 numbers of the features are NaN"),
        ("1.npz", {"feat": NAN[None]}, "1 of 32 numbers are NaN"),
        ("1.npz", {"feat": GOOD[0], "boxes": GOOD[1][:3]}, "boxes .3, 4. do not fit"),
        ("1.npz", {"feat": GOOD[0]}, "no boxes"),
        ("1.npz", {"feat": np.array([{}], object)}, "cannot be read"),
        ("1.npy", GOOD[0][:0], "expected feat"),
    ],
)
def test_invalid_region_files_are_refused(name: str, arrays: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "att").mkdir()
    path = tmp_path / "att" / name
    np.savez(path, **arrays) if isinstance(arrays, dict) else np.save(path, arrays)
    (entry,) = read_region_folder(tmp_path / "att")
    with pytest.raises(ValueError, match=said):
        entry.load()


def test_missing_and_damaged_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.npz or \.npy"):
        list(read_region_folder(tmp_path))
    att, box = folders(tmp_path)
    (box / "2.npy").unlink()
    (att / "1.npz").write_bytes((att / "1.npz").read_bytes()[:50])
    for entry, said in zip(read_region_folder(att, box), ("cannot be read", r"has no 2\.npy"), strict=True):
        with pytest.raises(ValueError, match=said):
            entry.load()
    (tmp_path / "sizes.json").write_text('{"images": [{"id": 1}]}')
    with pytest.raises(ValueError, match="holds no image sizes"):
        read_image_sizes(tmp_path / "sizes.json")
