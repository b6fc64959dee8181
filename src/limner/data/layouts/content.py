"""The text of a caption file: of a plain, gzip or ZIP file; any other content is named for what it is."""

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from limner.core.untrusted import ZIP_ERRORS

ZIP_MAGIC, GZIP_MAGIC = b"PK\x03\x04", b"\x1f\x8b"
CAPTION_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".token")
MAX_UNPACKED = 2 << 30  # bytes; captions of 100 million words fit, and what holds more is no caption file
MAX_LINE = 128 << 20  # bytes of a line of a table
MAX_GROWTH = 100  # times the packed size, beyond `ANY_GROWTH` bytes; captions grow 3 to 10 times
ANY_GROWTH = 16 << 20
SAVE_AS_CSV = "save it as CSV in UTF-8"

# (offset, the bytes there, what the file is, what to do)
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PAR1", "a Parquet file", "convert it to JSONL or CSV, for example with pandas"),
    (0, b"ARROW1", "an Arrow file", "convert it to JSONL or CSV, for example with pandas"),
    (0, b"\xff\xff\xff\xff", "an Arrow stream", "convert it to JSONL or CSV, for example with pandas"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file (.xls, .doc)", SAVE_AS_CSV),
    (0, b"%PDF", "a PDF file", "it holds no captions that can be read"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "if it holds features, name it as `features`, not as captions"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "if it holds features, name it as `features`, not as captions"),
    (0, b"SQLite format 3\x00", "an SQLite database", "export its table as CSV"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (0, b"BZh", "a bzip2 file", "unpack it with bunzip2"),
    (0, b"\xfd7zXZ\x00", "an xz file", "unpack it with unxz"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it with unzstd"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", "name the file with its captions"),
    (0, b"\xff\xd8\xff", "a JPEG image", "name the file with its captions"),
    (0, b"GIF8", "a GIF image", "name the file with its captions"),
    (8, b"WEBP", "a WebP image", "name the file with its captions"),
    (4, b"ftyp", "a video or image file (MP4, MOV, HEIC ...)", "name the file with its captions"),
    (0, b"\x1aE\xdf\xa3", "a video file (Matroska, WebM)", "name the file with its captions"),
    (8, b"AVI ", "a video file (AVI)", "name the file with its captions"),
)
_PICKLE = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_TEXTS = (  # first characters of a text, in small letters
    ("version https://git-lfs", "a pointer of Git LFS and not the file itself", "run `git lfs pull` in its repository"),
    ("<!doctype html", "a web page", "the download gave a page instead of the file; download it again"),
    ("<html", "a web page", "the download gave a page instead of the file; download it again"),
    ("<?xml", "an XML file", "convert it to JSON, JSONL or CSV"),
    ("%yaml", "a YAML file", "convert it to JSON, JSONL or CSV"),
)


_MARKS = {  # encoding -> byte order marks; UTF-32 first, because a mark of UTF-16 begins one of its marks
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def read_text(path: str | Path) -> str:
    """The text of a caption file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    A gzip file is unpacked, and of a ZIP file the one caption file in it is read.  Raises ValueError, which names the
    kind of the file and what to do, for any other content, and OSError when the path cannot be read.
    """
    if (size := Path(path).stat().st_size) > MAX_UNPACKED:
        raise ValueError(f"it has {size >> 20:,} MiB, more than {MAX_UNPACKED >> 30} GiB; is it a caption file?")
    data = Path(path).read_bytes()
    if data.startswith(GZIP_MAGIC):
        data = _gunzip(data)
    if data.startswith(ZIP_MAGIC):
        data = _read_member(data)
    if data.startswith(GZIP_MAGIC):  # refs.json.gz in a ZIP
        data = _gunzip(data)
    _refuse_endless_lines(data)
    return _decode(data)


def _refuse_endless_lines(data: bytes) -> None:
    """Raise ValueError when a table has a line longer than any; a JSON file may be a single line."""
    if data[:64].lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] in (b"{", b"["):
        return
    for start in range(0, len(data) - MAX_LINE, MAX_LINE):
        if data.find(b"\n", start, start + MAX_LINE) < 0:
            raise ValueError(f"a line of it has more than {MAX_LINE:,} bytes; is it a caption file?")


def kind_of(data: bytes) -> tuple[str, str] | None:
    """(what the file is, what to do) for bytes that are no caption file; None when they may be one.

    >>> kind_of(b"PAR1....")
    ('a Parquet file', 'convert it to JSONL or CSV, for example with pandas')
    """
    for offset, magic, name, remedy in _MAGIC:
        if data.startswith(magic, offset):
            return name, remedy
    if data.startswith(_PICKLE):
        return "a Python pickle", "a pickle can execute code, so it is not opened; save the captions as JSON"
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").decode("latin-1").lower()
    return next(((name, remedy) for first, name, remedy in _TEXTS if start.startswith(first)), None)


def _decode(data: bytes) -> str:
    if known := kind_of(data):
        raise ValueError(f"this is {known[0]}, not a caption file: {known[1]}")
    if not data.strip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"):  # not even a letter in any encoding
        raise ValueError("the file is empty")
    for name, marks in _MARKS.items():
        if data.startswith(marks):
            try:
                return data.decode(name)
            except UnicodeDecodeError as error:
                raise ValueError(f"its byte order mark says {name}, but it is not ({error.reason})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:1024].count(0) > 0.05 * len(data[:1024]):
            raise ValueError("it is neither text nor a known kind of file; is it a caption file?") from error
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"not UTF-8 text ({error.reason} at byte {error.start}, line {line}); save it as UTF-8 (in a spreadsheet: "
            "'CSV UTF-8')"
        ) from error
    if "\0" in text[:1024] and text[:1024].count("\0") > 0.3 * len(text[:1024]):
        raise ValueError("it looks like UTF-16 without a byte order mark; save it as UTF-8")
    return text


def most_unpacked(packed: int) -> int:
    """The most bytes that so many packed bytes may become; what grows more is no caption file, but a bomb."""
    return min(MAX_UNPACKED, max(ANY_GROWTH, packed * MAX_GROWTH))


def read_bounded(read: Callable[[int], bytes], packed: int, what: str) -> bytes:
    """All bytes of a file that is being unpacked from `packed` bytes, by its method `read`.

    Raises ValueError when it grows beyond `most_unpacked`, before it is in memory.
    """
    most = most_unpacked(packed)
    unpacked = read(most + 1)
    if len(unpacked) > most:
        raise ValueError(
            f"{what} grows from {packed:,} to more than {most:,} bytes when it is unpacked, which no caption file "
            "does; unpack it yourself if you trust it"
        )
    return unpacked


def _gunzip(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return read_bounded(file.read, len(data), "the gzip file")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"the gzip file is damaged ({error}); download it again") from error


def _read_member(data: bytes) -> bytes:
    """The one caption file of a ZIP file.  Raises ValueError when there is none, or several."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if known := _kind_of_zip(names):
                raise ValueError(f"this is {known[0]}, not a caption file: {known[1]}")
            visible = [
                name for name in names if not name.startswith("__MACOSX") and not Path(name).name.startswith(".")
            ]
            members = [name for name in visible if name.lower().removesuffix(".gz").endswith(CAPTION_SUFFIXES)]
            members = members or [name for name in visible if name.lower().endswith(".txt")]
            if len(members) != 1:
                raise ValueError(
                    f"the ZIP holds {len(members)} caption files {members[:8]}; unpack the one you mean"
                    if members
                    else f"the ZIP holds no caption file ({', '.join(CAPTION_SUFFIXES)}), but {names[:4]}"
                )
            with archive.open(members[0]) as file:
                return read_bounded(
                    file.read, archive.getinfo(members[0]).compress_size, f"{members[0]} in the ZIP file"
                )
    except ZIP_ERRORS as error:
        raise ValueError(f"the ZIP file is damaged or encrypted ({error}); download it again") from error


def _kind_of_zip(names: list[str]) -> tuple[str, str] | None:
    """(what the ZIP file is, what to do) when it is a document or an array of another program."""
    if any(name.startswith("xl/") for name in names):
        return "an Excel sheet (.xlsx)", SAVE_AS_CSV
    if any(name.startswith("word/") for name in names):
        return "a Word document (.docx)", "save its captions as text"
    if "mimetype" in names and "content.xml" in names:
        return "an OpenDocument file (.ods, .odt)", SAVE_AS_CSV
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", "if it holds features, name it as `features`, not as captions"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint", "name the file with the captions"
    return None
