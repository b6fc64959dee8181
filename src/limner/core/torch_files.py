"""Checks of a torch checkpoint's bytes before it is read: is it whole, undamaged, and a checkpoint at all?

torch does not compare the checksums of its zip archives: a flipped byte would become a wrong weight.
"""

import zipfile
from pathlib import Path

ZIP = b"PK\x03\x04"
OTHER_KINDS = {  # first bytes -> what the file is, and what to do
    b"<!doctype": "is a web page, not a checkpoint: download the file itself",
    b"<html": "is a web page, not a checkpoint: download the file itself",
    b"version https://git-lfs": "is a pointer of Git LFS, not the checkpoint itself: fetch it with `git lfs pull`",
    b"\x1f\x8b": "is a gzip file: unpack it first",
    b"Rar!": "is a RAR file: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7-Zip file: unpack it first",
    b"\x89HDF": "is an HDF5 file, not a torch checkpoint",
}
MOST_GROWTH = 200  # torch stores without compression; an archive that grows more than this when unpacked is refused


def check_torch_file(path: str | Path) -> None:
    """Check that a file can be a whole torch checkpoint; a zip archive is compared with its checksums.

    Raises ValueError that names the file, what is wrong with it and what to do.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty, so it is not a torch checkpoint: copy or download it again")
    for beginning, kind in OTHER_KINDS.items():
        if head.lstrip().lower().startswith(beginning.lower()):
            raise ValueError(f"{path} {kind}")
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < size:
        raise ValueError(f"{path} is a safetensors file: save its tensors with torch.save first")
    if is_zip(path):
        _check_sums(path, size)
    elif head.startswith(ZIP):
        raise ValueError(
            f"{path} is cut, so it is not a torch checkpoint any more: it is a zip archive, and its end is missing "
            f"(it has {size:,} bytes); copy or download it again"
        )


def is_zip(path: str | Path) -> bool:
    """Whether a file is a ZIP archive, also a damaged one, for which `zipfile.is_zipfile` may raise."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def _check_sums(path: Path, size: int) -> None:
    """Raise ValueError when a zip archive is damaged, or grows too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED)
            if unpacked > MOST_GROWTH * size:
                raise ValueError(
                    f"{path} would grow from {size:,} to {unpacked:,} bytes, which no torch checkpoint does"
                )
            damaged = archive.testzip()
    except ValueError:
        raise
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise ValueError(
            f"{path} is damaged, so it is not a torch checkpoint any more ({error}); copy or download it again"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: the checksum of {damaged} in it is another one; copy or download it again"
        )
