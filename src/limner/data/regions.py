"""Regions that others' detectors found -> a feature store: features, and boxes relative to the picture, for each.

Read are the TSV files of bottom-up attention (Anderson et al. 2018, arXiv:1707.07998), also inside their ZIP, a line at
a time, and folders with an array per picture.  What is wrong with a picture is told and does not stop the others.
"""

import binascii
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from limner.core.files import read_json
from limner.core.types import Layout
from limner.data.store import StoreWriter, WidthError

PROVENANCE = {"name": "regions"}  # the detector is not known
COLUMNS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")  # the last two base64 of float32
ZIP = b"PK\x03\x04"  # how one begins, also when its end, with the list of its files, was cut off
LONGEST_LINE = 1 << 28  # bytes; 300 regions of 2,048 channels take 3 MB
RELATIVE = 1.001  # no box in pixels ends before it; relative ones may, by rounding, end behind 1
FEATURES, BOXES = ("feat", "features", "x", "arr_0"), ("boxes", "bbox", "box")  # names of arrays in .npz files
SIZES = (("image_w", "image_h"), ("width", "height"), ("img_w", "img_h"))


class Found(NamedTuple):
    """One picture: `read` gives its regions, or raises ValueError with the reason why there are none."""

    id: str
    read: Callable[[], "Regions"]


class Regions(NamedTuple):
    features: Float[np.ndarray, "N D"]
    layout: Layout  # (1, 1, N) of regions, (1, H, W) of a grid
    boxes: Float[np.ndarray, "N 4"] | None  # relative xyxy in [0, 1]; None: those of the grid
    cut: int = 0  # boxes that reached beyond the picture and were cut at its border
    flat: int = 0  # boxes without area


@dataclass(frozen=True)
class Imported:
    """What was stored, in pictures and in boxes."""

    stored: int
    present: int  # in the store already, and kept
    regions: int
    cut: int
    flat: int
    failures: tuple[tuple[str, str], ...]  # (id, reason)
    repeated: int = 0  # pictures whose id came before; the first one counts
    twice: str = ""  # the first such id

    def __str__(self) -> str:
        again = f"; {self.repeated} repeat an id that came before, such as {self.twice!r}, and are left out"
        return (
            f"{self.stored} pictures stored with {self.regions} regions, {self.present} already there, "
            f"{len(self.failures)} failed; {self.cut} boxes cut at the picture's border, {self.flat} without area"
            f"{again if self.repeated else ''}"
        )


def store_regions(pictures: Iterable[Found], out: Path, progress: Callable[[int], None] | None = None) -> Imported:
    """Add every picture to the store at `out`; a rerun keeps what is whole and goes on.  Needs the memory of a shard.

    `progress` is told how many pictures were seen.  Raises ValueError when nothing could be stored, or when `out` is a
    store of something else, or of features of another width.
    """
    writer = StoreWriter(out, PROVENANCE)
    stored = present = regions = cut = flat = 0
    failures: dict[str, str] = {}
    met: set[str] = set()
    repeated: list[str] = []
    for seen, (id, read) in enumerate(pictures, 1):
        if id in met:
            repeated.append(id)
        elif id in writer:
            present += 1
            met.add(id)
        else:
            try:
                found = read()
                boxes = None if found.boxes is None else torch.from_numpy(found.boxes)
                writer.add(id, "full", torch.from_numpy(found.features), found.layout, boxes)
                stored, regions = stored + 1, regions + len(found.features)
                cut, flat = cut + found.cut, flat + found.flat
                met.add(id)
                failures.pop(id, None)  # an earlier row of it was damaged
            except WidthError as error:
                if not stored and not present:  # it is not this picture: these are other features than the store's
                    raise ValueError(f"{error}; nothing was written: import them into another folder") from error
                failures[id] = str(error)
            except ValueError as error:
                failures[id] = str(error)
        if progress:
            progress(seen)
    for id, reason in failures.items():
        writer.fail(id, reason)
    writer.finish()
    counts = (stored, present, regions, cut, flat)
    return Imported(*counts, tuple(failures.items()), len(repeated), repeated[0] if repeated else "")


def read_tsv(paths: Sequence[Path]) -> Iterator[Found]:
    """The pictures of TSV files, or of ZIP files with such, in their order; a line is decoded when it is asked for.

    Raises ValueError when a file is no such TSV, or a ZIP file that is damaged, FileNotFoundError when it is not there.
    """
    for path in paths:
        with open(path, "rb") as file:
            if file.read(len(ZIP)) != ZIP and not zipfile.is_zipfile(file):
                file.seek(0)
                yield from _lines(file.readline, str(path))
                continue
        try:
            yield from _unzipped(path)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # encrypted is the last
            raise ValueError(
                f"{path} is a ZIP file that cannot be read to its end ({error}): when it was cut or damaged, fetch it "
                "again; else unpack it, and give the .tsv"
            ) from error


def _unzipped(path: Path) -> Iterator[Found]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".tsv")]
        if not names:
            raise ValueError(f"{path} has no .tsv in it, but {', '.join(archive.namelist()[:3])}")
        for name in names:
            with archive.open(name) as member:
                yield from _lines(member.readline, f"{path}/{name}")


def _lines(read_line: Callable[[int], bytes], where: str) -> Iterator[Found]:
    number = 0
    while line := read_line(LONGEST_LINE):
        number += 1
        whole = line.endswith(b"\n")
        fields = line.rstrip(b"\r\n").split(b"\t")
        if number == 1 and len(fields) < 3:
            raise ValueError(
                f"{where} is no TSV of regions: its first line has {len(fields)} columns; expected {', '.join(COLUMNS)}"
            )
        if fields == [b""]:
            continue
        known = len(fields) > 1  # a line that was cut within its id has no id
        id = fields[0].decode("utf-8", "replace") if known else f"line {number}"
        yield Found(
            id, lambda fields=fields, whole=whole, number=number: _row(fields, whole, f"{where}, line {number}")
        )
    if not number:
        raise ValueError(f"{where} is empty")


def _row(fields: Sequence[bytes], whole: bool, where: str) -> Regions:
    """Raises ValueError that says what is wrong with the line."""
    hint = "" if whole else "; the file ends in this line, so it may have been cut: fetch it again"
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{where} has {len(fields)} columns; expected {', '.join(COLUMNS)}{hint}")
    try:
        width, height, count = float(fields[1]), float(fields[2]), int(fields[3])
        boxes, features = (np.frombuffer(binascii.a2b_base64(field), "<f4") for field in fields[4:])
    except ValueError as error:  # binascii.Error is one
        raise ValueError(f"{where} cannot be decoded ({error}){hint}") from error
    if count < 1:
        raise ValueError(f"{where}: the detector found {count} regions")
    if len(boxes) != 4 * count or len(features) % count or not len(features):
        raise ValueError(
            f"{where}: {count} regions have {len(boxes)} coordinates and {len(features)} features; "
            f"expected {4 * count} and a multiple of {count}{hint}"
        )
    return _regions(features.reshape(count, -1), boxes.reshape(count, 4), (width, height), where)


def _regions(features: NDArray[Any], boxes: NDArray[Any], size: tuple[float, float], where: str) -> Regions:
    """Boxes in pixels of a picture of `size` (width, height) -> checked regions.  Raises ValueError."""
    if not (size[0] > 0 and size[1] > 0):  # nan is not, either
        raise ValueError(f"{where}: a picture of {size[0]:g} x {size[1]:g} pixels cannot be")
    for name, array in (("features", features), ("boxes", boxes)):
        if bad := int(array.size - np.isfinite(array).sum()):
            raise ValueError(
                f"{where}: {bad} of {array.size} numbers of the {name} are NaN or infinite; extract it again"
            )
    relative = boxes.astype(np.float32) / np.array([*size, *size], np.float32)
    inside = relative.clip(0, 1)
    pixel = np.array(
        [1 / size[0], 1 / size[1]] * 2, np.float32
    )  # detectors count up to w or to w - 1; a pixel is no news
    cut = int((np.abs(relative - inside) > pixel * 1.01).any(1).sum())
    flat = int(((inside[:, 2:] - inside[:, :2]) <= 0).any(1).sum())
    return Regions(features.astype(np.float32), Layout(1, 1, len(boxes)), inside, cut, flat)


def read_folder(features: Path, boxes: Path | None = None, sizes: Path | None = None) -> Iterator[Found]:
    """Folders of `ID.npz` or `ID.npy`: features (N, D) and, beside them or in `boxes`, boxes (N, 4) as x0, y0, x1, y1.

    Boxes of which none reaches beyond 1 are relative.
    `sizes`: JSON with the pictures' widths and heights, as boxes in pixels need them where an .npz does not tell:
    {id: [w, h]}, or COCO's or prepro_labels' images[{id, width, height}].  Features (H, W, D) are a grid, and need no
    boxes.  Raises ValueError when there is nothing to read.
    """
    files = {path.stem: path for path in sorted(features.iterdir()) if path.suffix.lower() in (".npz", ".npy")}
    if not files:
        raise ValueError(f"{features} has no .npz or .npy files")
    if boxes is not None and not boxes.is_dir():
        raise ValueError(f"there is no folder of boxes {boxes}")
    known = {} if sizes is None else read_sizes(sizes)
    for id, path in files.items():
        yield Found(id, lambda id=id, path=path: _files(path, id, boxes, known.get(id)))


def read_sizes(path: Path) -> dict[str, tuple[float, float]]:
    """-> (width, height) by id.  Raises ValueError."""
    saved = read_json(path)
    images = saved.get("images") if isinstance(saved, Mapping) else None
    try:
        if isinstance(images, list):
            return {str(it.get("cocoid", it["id"])): (float(it["width"]), float(it["height"])) for it in images}
        return {str(id): (float(width), float(height)) for id, (width, height) in saved.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not tell sizes: expected {{id: [width, height]}} or images[{{id, width, height}}] ({error!r})"
        ) from error


def _files(path: Path, id: str, boxes: Path | None, size: tuple[float, float] | None) -> Regions:
    arrays = _arrays(path)
    features = _first(arrays, FEATURES)
    if features is None or features.ndim not in (2, 3) or 0 in features.shape or features.dtype.kind not in "fiu":
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{path} holds {held}; expected {' or '.join(FEATURES)} of numbers, (N, D) or (H, W, D)")
    if features.ndim == 3:
        bad = int(features.size - np.isfinite(features).sum())
        if bad:
            raise ValueError(f"{path}: {bad} of {features.size} numbers are NaN or infinite; extract it again")
        grid = features.reshape(-1, features.shape[-1]).astype(np.float32)
        return Regions(grid, Layout(1, *features.shape[:2]), None)
    found = _first(arrays, BOXES)
    if found is None and boxes is not None:
        stored = [file for ending in (".npy", ".npz") if (file := boxes / f"{id}{ending}").is_file()]
        if not stored:
            raise ValueError(f"{path}: its boxes are not in {boxes}, which has no {id}.npy")
        found = _first(_arrays(stored[0]), (*BOXES, "arr_0"))
    if found is None:
        raise ValueError(f"{path} has no boxes ({', '.join(BOXES)}) and no folder of boxes was given")
    if found.shape != (len(features), 4):
        raise ValueError(
            f"{path}: boxes {found.shape} do not fit features {features.shape}; expected ({len(features)}, 4)"
        )
    for names in SIZES:
        if all(name in arrays for name in names):
            size = (float(arrays[names[0]].item()), float(arrays[names[1]].item()))
    if not (found > RELATIVE).any():
        size = (1.0, 1.0)  # as they are
    elif size is None:
        raise ValueError(f"{path}: boxes up to {found.max():g} are in pixels, and the size of {id} is not told")
    return _regions(features, found, size, str(path))


def _first(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Raises ValueError when it is damaged, or holds what only running it could tell."""
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):
            return {"arr_0": saved}
        with saved:
            names = [*FEATURES, *BOXES, *(name for pair in SIZES for name in pair)]
            return {name: saved[name] for name in saved.files if name in names} or {
                name: saved[name] for name in saved.files[:1]
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
