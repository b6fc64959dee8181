"""Tags of a TIFF structure, which is a TIFF file or a block of EXIF (TIFF 6.0, CIPA DC-008).

A tag is changed by a new first directory (IFD) at the end; the header then points to it.  Nothing that exists is
moved, so offsets stay right that others do not know, as in the notes of camera makers.
"""

import struct
from typing import NamedTuple

from limner.data.metadata.blocks import MetadataError

IMAGE_DESCRIPTION, XMP = 270, 700
STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES = 273, 279, 324, 325
BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}  # bytes of a value
EMPTY = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"  # no tags


class Directory(NamedTuple):
    """The first directory of a structure.

    order    "<" or ">", the byte order as struct writes it
    entries  (tag, the twelve bytes of its entry), in the order of the file
    after    the four bytes that point to the next directory
    """

    order: str
    entries: list[tuple[int, bytes]]
    after: bytes


def read_directory(data: bytes) -> Directory:
    """Raises MetadataError for a damaged structure."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        raise MetadataError("its EXIF is damaged (no TIFF header)")
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start < 8 or start + 2 > len(data):
        raise MetadataError(f"its EXIF is damaged (a directory at byte {start} of {len(data)})")
    (count,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + 12 * count
    if end > len(data):
        raise MetadataError(f"its EXIF is damaged ({count} tags end behind its last byte)")
    rows = [data[place : place + 12] for place in range(start + 2, end, 12)]
    entries = [(struct.unpack_from(order + "H", row)[0], row) for row in rows]
    return Directory(order, entries, data[end : end + 4].ljust(4, b"\0"))


def read_value(data: bytes, tag: int) -> bytes | None:
    """The bytes of a tag; None without it.  Raises MetadataError for a damaged structure."""
    order, entries, _ = read_directory(data)
    row = next((row for found, row in entries if found == tag), None)
    if row is None:
        return None
    kind, count = struct.unpack_from(order + "HI", row, 2)
    size = SIZES.get(kind, 1) * count
    if size <= 4:
        return row[8 : 8 + size]
    (place,) = struct.unpack_from(order + "I", row, 8)
    if place + size > len(data):
        raise MetadataError(f"its EXIF is damaged (tag {tag} ends at byte {place + size} of {len(data)})")
    return data[place : place + size]


def read_text(data: bytes, tag: int) -> str:
    """The text of a tag; "" without it.  Texts are UTF-8, or else Latin-1.

    >>> read_text(with_text(EMPTY, IMAGE_DESCRIPTION, "Müller am See"), IMAGE_DESCRIPTION)
    'Müller am See'
    """
    value = (read_value(data, tag) or b"").rstrip(b"\0 ")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def with_text(data: bytes, tag: int, text: str) -> bytes:
    """The structure with a text, as UTF-8 that ends with a zero."""
    return with_value(data, tag, ASCII, text.encode("utf-8") + b"\0")


def with_value(data: bytes, tag: int, kind: int, value: bytes) -> bytes:
    """The structure with the value of a tag of one-byte values; unchanged when it has that value."""
    if read_value(data, tag) == value:
        return data
    order, entries, after = read_directory(data)
    body = bytearray(data + b"\0" * (len(data) % 2))  # directories and values begin at even bytes
    place = struct.pack(order + "I", len(body)) if len(value) > 4 else value.ljust(4, b"\0")
    if len(value) > 4:
        body += value + b"\0" * (len(value) % 2)
    new = (tag, struct.pack(order + "HHI", tag, kind, len(value)) + place)
    before = [entry for entry in entries if entry[0] < tag]
    behind = [entry for entry in entries if entry[0] > tag]
    rows = [row for _, row in (*before, new, *behind)]
    if len(body) + 2 + 12 * len(rows) + 4 >= 1 << 32:
        raise MetadataError("it is too large for a TIFF structure (4 GiB)")
    body[4:8] = struct.pack(order + "I", len(body))
    return bytes(body) + struct.pack(order + "H", len(rows)) + b"".join(rows) + after


def picture(data: bytes) -> list[bytes]:
    """The compressed strips or tiles of the first picture of a TIFF file.  Raises MetadataError."""
    parts: list[bytes] = []
    order, entries, _ = read_directory(data)
    kinds = {tag: struct.unpack_from(order + "H", row, 2)[0] for tag, row in entries}
    for offsets, sizes in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
        numbers = []
        for tag in (offsets, sizes):
            value, letter = read_value(data, tag) or b"", "H" if kinds.get(tag) == SHORT else "I"
            if len(value) % struct.calcsize(order + letter):
                raise MetadataError(f"it is damaged (tag {tag})")
            numbers.append([number for (number,) in struct.iter_unpack(order + letter, value)])
        places = list(zip(*numbers, strict=False))
        if any(start + size > len(data) for start, size in places):
            raise MetadataError("it is cut off (its picture ends behind its last byte)")
        parts += [data[start : start + size] for start, size in places]
    return parts
