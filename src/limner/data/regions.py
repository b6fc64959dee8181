"""Import of regions that other tools detected into a feature store: features, and boxes relative to the image.

Two layouts are read: the TSV files of bottom-up attention (Anderson et al. 2018, arXiv:1707.07998), also inside a ZIP
file, and folders with one array per image.  An error in one image is reported and does not stop the others.
"""

import binascii
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from limner.core.files import read_json
from limner.core.locks import lock_folder
from limner.core.torch_files import is_zip
from limner.core.types import Layout
from limner.core.untrusted import ZIP_ERRORS
from limner.data.media_folder import visible_files
from limner.data.store import ChannelCountError, StoreWriter

REGIONS_PROVENANCE = {"name": "regions"}  # of the stores made here; the detector is not known
COLUMNS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")  # the last two are base64 of float32
ZIP_MAGIC = b"PK\x03\x04"  # `zipfile.is_zipfile` does not recognise a ZIP file whose end was cut off
LONGEST_LINE = 1 << 28  # bytes; 300 regions of 2,048 channels take 3 MB
RELATIVE_LIMIT = 1.001  # coordinates up to this are relative; rounding may move a relative one slightly beyond 1
FEATURE_ARRAYS, BOX_ARRAYS = ("feat", "features", "x", "arr_0"), ("boxes", "bbox", "box")  # names in .npz files
SIZE_ARRAYS = (("image_w", "image_h"), ("width", "height"), ("img_w", "img_h"))
COUNT_ARRAYS = ("num_bbox", "num_boxes")  # how many rows are regions; the rows after them are padding
KNOWN_ARRAYS = (*FEATURE_ARRAYS, *BOX_ARRAYS, *COUNT_ARRAYS, *(name for pair in SIZE_ARRAYS for name in pair))
CHANNELS_FIRST = 64  # an array (64 or more, n, n) has its channels first; no grid has so many rows of cells


class Regions(NamedTuple):
    """Features and boxes of one image."""

    features: Float[np.ndarray, "N D"]
    layout: Layout  # (1, 1, N) for regions, (1, H, W) for a grid
    boxes: Float[np.ndarray, "N 4"] | None  # relative xyxy in [0, 1]; None: those of the grid
    clipped: int = 0  # boxes that reached beyond the image and were clipped at its border
    zero_area: int = 0  # boxes without area


class RegionEntry(NamedTuple):
    """One image of an import; `load` returns its regions, or raises ValueError with the reason why it cannot."""

    id: str
    load: Callable[[], Regions]


@dataclass(frozen=True)
class ImportReport:
    """What an import stored, in images and in boxes."""

    stored: int
    present: int  # images that the store had already
    regions: int
    clipped: int
    zero_area: int
    failures: tuple[tuple[str, str], ...]  # (id, reason)
    repeated: int = 0  # images whose id occurred before; only the first one is stored
    first_repeated: str = ""  # the first such id

    def __str__(self) -> str:
        repeated = f"; {self.repeated} images with a repeated id are left out, the first is {self.first_repeated!r}"
        return (
            f"{self.stored} images stored with {self.regions} regions, {self.present} already there, "
            f"{len(self.failures)} failed; {self.clipped} boxes clipped at the image border, "
            f"{self.zero_area} without area{repeated if self.repeated else ''}"
        )


def store_regions(
    entries: Iterable[RegionEntry], out: Path, progress: Callable[[int], None] | None = None
) -> ImportReport:
    """Add images to the feature store at `out`; images that it has already are skipped.

    `progress` is called with the number of images so far.  Memory holds one shard at a time.  Raises ValueError when
    nothing could be stored, or the store at `out` was made by an encoder or has another number of channels;
    LockedError when another process is writing it.
    """
    with lock_folder(out):
        return _store_regions(entries, StoreWriter(out, REGIONS_PROVENANCE), progress)


def _store_regions(
    entries: Iterable[RegionEntry], writer: StoreWriter, progress: Callable[[int], None] | None
) -> ImportReport:
    """`store_regions`, while the lock of the store is held."""
    stored = present = total_regions = clipped = zero_area = 0
    failures: dict[str, str] = {}
    done: set[str] = set()
    repeated: list[str] = []
    for count, (id, load) in enumerate(entries, 1):
        if id in done:
            repeated.append(id)
        elif id in writer:
            present += 1
            done.add(id)
        else:
            try:
                regions = load()
                boxes = None if regions.boxes is None else torch.from_numpy(regions.boxes)
                writer.add(id, "full", torch.from_numpy(regions.features), regions.layout, boxes)
                stored, total_regions = stored + 1, total_regions + len(regions.features)
                clipped, zero_area = clipped + regions.clipped, zero_area + regions.zero_area
                done.add(id)
                failures.pop(id, None)  # an earlier row with this id was damaged
            except ChannelCountError as error:
                if not stored and not present:  # the first image: the store holds features of another detector
                    raise ValueError(f"{error}; nothing was written: import them into another folder") from error
                failures[id] = str(error)
            except ValueError as error:
                failures[id] = str(error)
        if progress:
            progress(count)
    for id, reason in failures.items():
        writer.fail(id, reason)
    writer.finish()
    counts = (stored, present, total_regions, clipped, zero_area)
    return ImportReport(*counts, tuple(failures.items()), len(repeated), repeated[0] if repeated else "")


# --- TSV files --------------------------------------------------------------------------------------------------------


def read_region_tsv(paths: Sequence[Path]) -> Iterator[RegionEntry]:
    """The images of TSV files, or of ZIP files with TSV files, in order; a line is decoded when its entry is loaded.

    Raises FileNotFoundError when a file does not exist, ValueError when it is not such a TSV or a damaged ZIP file.
    """
    for path in paths:
        with open(path, "rb") as file:
            if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC and not is_zip(path):
                file.seek(0)
                yield from _tsv_entries(file.readline, str(path))
                continue
        try:
            yield from _zip_entries(path)
        except (*ZIP_ERRORS, OSError) as error:
            raise ValueError(
                f"{path} is a ZIP file that cannot be read to its end ({error}): if it is truncated or damaged, "
                "download it again; else unpack it, and give the .tsv file"
            ) from error


def _zip_entries(path: Path) -> Iterator[RegionEntry]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".tsv")]
        if not names:
            raise ValueError(f"{path} has no .tsv in it, but {', '.join(archive.namelist()[:3])}")
        for name in names:
            with archive.open(name) as member:
                yield from _tsv_entries(member.readline, f"{path}/{name}")


def _tsv_entries(read_line: Callable[[int], bytes], where: str) -> Iterator[RegionEntry]:
    number = 0
    while line := read_line(LONGEST_LINE):
        number += 1
        complete = line.endswith(b"\n")
        fields = line.rstrip(b"\r\n").split(b"\t")
        if number == 1 and len(fields) < 3:
            raise ValueError(
                f"{where} is not a TSV file of regions: its first line has {len(fields)} columns; expected "
                f"{', '.join(COLUMNS)}"
            )
        if fields == [b""]:
            continue
        has_id = len(fields) > 1  # a last line may be cut off inside its id
        id = fields[0].decode("utf-8", "replace") if has_id else f"line {number}"
        yield RegionEntry(
            id,
            lambda fields=fields, complete=complete, number=number: _row(fields, complete, f"{where}, line {number}"),
        )
    if not number:
        raise ValueError(f"{where} is empty")


def _row(fields: Sequence[bytes], complete: bool, where: str) -> Regions:
    """The regions in the fields of a line; `complete` is False when the line has no end.  Raises ValueError."""
    hint = "" if complete else "; the file ends in this line, so it may be truncated: download it again"
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{where} has {len(fields)} columns; expected {', '.join(COLUMNS)}{hint}")
    try:
        width, height, count = float(fields[1]), float(fields[2]), int(fields[3])
        boxes, features = (np.frombuffer(binascii.a2b_base64(field), "<f4") for field in fields[4:])
    except ValueError as error:  # binascii.Error is a ValueError
        raise ValueError(f"{where} cannot be decoded ({error}){hint}") from error
    if count < 1:
        raise ValueError(f"{where}: the detector found {count} regions")
    if len(boxes) != 4 * count or len(features) % count or not len(features):
        raise ValueError(
            f"{where}: {count} regions have {len(boxes)} coordinates and {len(features)} features; "
            f"expected {4 * count} and a multiple of {count}{hint}"
        )
    return _checked_regions(features.reshape(count, -1), boxes.reshape(count, 4), (width, height), where)


def _checked_regions(features: NDArray[Any], boxes: NDArray[Any], size: tuple[float, float], where: str) -> Regions:
    """Regions with relative, clipped boxes, from boxes in pixels of an image of `size` (width, height).

    Raises ValueError when the size is not positive or a number is not finite.
    """
    if not (size[0] > 0 and size[1] > 0):  # false for NaN too
        raise ValueError(f"{where}: {size[0]:g} x {size[1]:g} pixels is not a possible image size")
    for name, array in (("features", features), ("boxes", boxes)):
        if bad := int(array.size - np.isfinite(array).sum()):
            raise ValueError(
                f"{where}: {bad} of {array.size} numbers of the {name} are NaN or infinite; extract them again"
            )
    relative = boxes.astype(np.float32) / np.array([*size, *size], np.float32)
    inside = relative.clip(0, 1)
    # some detectors count coordinates up to w, others up to w - 1, so up to one pixel beyond the border is not reported
    pixel = np.array([1 / size[0], 1 / size[1]] * 2, np.float32)
    clipped = int((np.abs(relative - inside) > pixel * 1.01).any(1).sum())
    zero_area = int(((inside[:, 2:] - inside[:, :2]) <= 0).any(1).sum())
    return Regions(features.astype(np.float32), Layout(1, 1, len(boxes)), inside, clipped, zero_area)


# --- folders of arrays ------------------------------------------------------------------------------------------------


def read_region_folder(features: Path, boxes: Path | None = None, sizes: Path | None = None) -> Iterator[RegionEntry]:
    """The images of a folder with files `ID.npz` or `ID.npy`.

    features  folder of features: (N, D) for regions, or (H, W, D) for a grid, which needs no boxes
    boxes     folder of boxes (N, 4) as x0, y0, x1, y1; None: they are in the .npz files of the features.  Boxes are
              relative when no coordinate is larger than 1, else in pixels
    sizes     JSON file with image sizes, which boxes in pixels need unless the .npz files have them: {id: [w, h]}, or
              images[{id, width, height}] as COCO and prepro_labels write it
    Raises ValueError when there are no such files.
    """
    files = {path.stem: path for path in visible_files(features, (".npz", ".npy"))}
    if not files:
        raise ValueError(f"{features} has no .npz or .npy files")
    if boxes is not None and not boxes.is_dir():
        raise ValueError(f"there is no folder of boxes {boxes}")
    known_sizes = {} if sizes is None else read_image_sizes(sizes)
    for id, path in files.items():
        yield RegionEntry(id, lambda id=id, path=path: _load_file(path, id, boxes, known_sizes.get(id)))


def read_image_sizes(path: Path) -> dict[str, tuple[float, float]]:
    """(width, height) in pixels by image id, from a JSON file.  Raises ValueError when it has another layout."""
    saved = read_json(path)
    images = saved.get("images") if isinstance(saved, Mapping) else None
    try:
        if isinstance(images, list):
            return {str(it.get("cocoid", it["id"])): (float(it["width"]), float(it["height"])) for it in images}
        return {str(id): (float(width), float(height)) for id, (width, height) in saved.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no image sizes: expected {{id: [width, height]}} or images[{{id, width, height}}] "
            f"({error!r})"
        ) from error


def _load_file(path: Path, id: str, boxes_folder: Path | None, size: tuple[float, float] | None) -> Regions:
    """The regions or grid of one image.  Raises ValueError when an array is missing or does not fit."""
    arrays = read_arrays(path)
    if boxes_folder is not None and _first_array(arrays, BOX_ARRAYS) is None:
        arrays |= _boxes_in(boxes_folder, path, id)
    return regions_of(arrays, str(path), size, id)


def regions_of(
    arrays: Mapping[str, NDArray[Any]], where: str, size: tuple[float, float] | None = None, id: str = ""
) -> Regions:
    """The regions or the grid in named arrays: features (N, D) with boxes (N, 4), or (H, W, D).

    `size` is (width, height) in pixels, for boxes in pixels whose arrays do not name it.  Raises ValueError when an
    array is missing or does not fit.
    """
    features = _first_array(arrays, FEATURE_ARRAYS)
    if features is None or features.ndim not in (2, 3) or 0 in features.shape or features.dtype.kind not in "fiu":
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"{where} holds {held}; expected {' or '.join(FEATURE_ARRAYS)} of numbers, (N, D) or (H, W, D)"
        )
    if features.ndim == 3:
        if bad := int(features.size - np.isfinite(features).sum()):
            raise ValueError(f"{where}: {bad} of {features.size} numbers are NaN or infinite; extract them again")
        if features.shape[0] >= CHANNELS_FIRST and features.shape[1] == features.shape[2] < features.shape[0]:
            raise ValueError(
                f"{where}: the array {features.shape} has its channels first; expected (H, W, D): transpose it"
            )
        grid = features.reshape(-1, features.shape[-1]).astype(np.float32)
        return Regions(grid, Layout(1, *features.shape[:2]), None)
    boxes = _first_array(arrays, BOX_ARRAYS)
    if boxes is None:
        raise ValueError(f"{where} has no boxes ({', '.join(BOX_ARRAYS)}) and no folder of boxes was given")
    if boxes.shape != (len(features), 4):
        raise ValueError(
            f"{where}: boxes {boxes.shape} do not fit features {features.shape}; expected ({len(features)}, 4)"
        )
    count = _first_array(arrays, COUNT_ARRAYS)
    if count is not None and 0 < int(count.item()) < len(features):
        features, boxes = features[: int(count.item())], boxes[: int(count.item())]
    for names in SIZE_ARRAYS:
        if all(name in arrays for name in names):
            size = (float(arrays[names[0]].item()), float(arrays[names[1]].item()))
    if not (boxes > RELATIVE_LIMIT).any():
        size = (1.0, 1.0)  # the boxes are relative already
    elif size is None:
        raise ValueError(
            f"{where}: boxes up to {boxes.max():g} are in pixels, and the size of {id or 'the image'} is not known; "
            "give --sizes to limner convert --from regions"
        )
    return _checked_regions(features, boxes, size, where)


def _boxes_in(folder: Path, path: Path, id: str) -> dict[str, NDArray[Any]]:
    """The boxes of an image from a folder of boxes.  Raises ValueError when there are none."""
    files = [file for ending in (".npy", ".npz") if (file := folder / f"{id}{ending}").is_file()]
    if not files:
        raise ValueError(f"{path}: its boxes are not in {folder}, which has no {id}.npy")
    boxes = _first_array(read_arrays(files[0]), (*BOX_ARRAYS, "arr_0"))
    return {} if boxes is None else {BOX_ARRAYS[0]: boxes}


def _first_array(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npy or .npz file by name: those of KNOWN_ARRAYS, or else the only one.

    Raises ValueError when the file is damaged, an array that is needed holds pickled objects, or several unknown
    arrays are in it.
    """
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):
            return {"arr_0": saved}
        with saved:
            names = [name for name in saved.files if name in KNOWN_ARRAYS] or saved.files
            known = any(name in FEATURE_ARRAYS or name in BOX_ARRAYS for name in names)
            if not known and len(names) != 1:
                found = ", ".join(saved.files) or "none"
                raise ValueError(f"expected one array, or one of {', '.join(FEATURE_ARRAYS)}; found {found}")
            arrays = {name: saved[name] for name in names}
            if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{other[0]} in it is no array")
            return arrays
    except (*ZIP_ERRORS, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
