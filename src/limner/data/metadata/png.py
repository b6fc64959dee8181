"""The EXIF and XMP chunks of a PNG file: `eXIf`, and `iTXt` with the keyword XML:com.adobe.xmp (PNG, third edition)."""

import zlib
from typing import NamedTuple

from limner.data.metadata.blocks import Blocks, MetadataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP = b"XML:com.adobe.xmp\0"
OLD_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")  # of ImageMagick: EXIF as a text
MAX_XMP = 16_000_000  # bytes of a packet that was compressed


class Chunk(NamedTuple):
    """A chunk: `data` are all its bytes, that is the length, the kind, the content and a checksum (CRC)."""

    kind: bytes
    content: bytes
    data: bytes


def split(data: bytes) -> tuple[list[Chunk], bytes]:
    """-> (the chunks before the picture, everything from the first IDAT on).

    Raises MetadataError for a damaged file, and for EXIF or XMP behind the picture.
    """
    chunks: list[Chunk] = []
    place = len(SIGNATURE)
    while True:
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"IDAT" and chunks:
            _refuse_metadata_behind(data, place)
            return chunks, data[place:]
        end = place + 12 + size
        if end > len(data):
            raise MetadataError("it is cut off before its picture begins")
        chunk = Chunk(kind, data[place + 8 : end - 4], data[place:end])
        if zlib.crc32(kind + chunk.content) != int.from_bytes(data[end - 4 : end], "big") or kind == b"IEND":
            raise MetadataError(f"it is damaged (the chunk at byte {place})")
        chunks.append(chunk)
        place = end


def read(data: bytes) -> Blocks:
    """The EXIF and XMP chunks."""
    chunks = split(data)[0]
    if any(chunk.content.startswith(OLD_EXIF) for chunk in chunks):
        raise MetadataError("its EXIF is a text of ImageMagick, which is not changed; --sidecar xmp writes beside it")
    exif, xmp = (next((chunk for chunk in chunks if kind(chunk)), None) for kind in (_is_exif, _is_xmp))
    return Blocks(exif.content if exif else None, _packet(xmp.content) if xmp else None)


def write(data: bytes, blocks: Blocks) -> bytes:
    """The file with other blocks; new ones are put before the picture."""
    before, (chunks, rest) = read(data), split(data)
    for old, block, kind, is_kind, head in (
        (before.exif, blocks.exif, b"eXIf", _is_exif, b""),
        (before.xmp, blocks.xmp, b"iTXt", _is_xmp, XMP + bytes(4)),  # not compressed, no language, no translation
    ):
        if block is None or block == old:
            continue
        new = _chunk(kind, head + block)
        index = next((index for index, chunk in enumerate(chunks) if is_kind(chunk)), None)
        if index is None:
            chunks.append(new)
        else:
            chunks[index] = new
    return SIGNATURE + b"".join(chunk.data for chunk in chunks) + rest


def picture(data: bytes) -> list[bytes]:
    """All chunks but EXIF and XMP, and the compressed picture."""
    chunks, rest = split(data)
    return [chunk.data for chunk in chunks if not (_is_exif(chunk) or _is_xmp(chunk))] + [rest]


def _refuse_metadata_behind(data: bytes, place: int) -> None:
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"eXIf" or (kind == b"iTXt" and data.startswith(XMP, place + 8)):
            raise MetadataError("its metadata follow the picture, where they are not changed")
        place += 12 + size


def _is_exif(chunk: Chunk) -> bool:
    return chunk.kind == b"eXIf"


def _is_xmp(chunk: Chunk) -> bool:
    return chunk.kind == b"iTXt" and chunk.content.startswith(XMP)


def _packet(content: bytes) -> bytes:
    """The packet in the content of an iTXt chunk: keyword, compression, language, translated keyword, text."""
    compressed, rest = content[len(XMP) : len(XMP) + 1], content[len(XMP) + 2 :]
    text = rest.split(b"\0", 2)[-1]
    if compressed != b"\1":
        return text
    try:
        return zlib.decompressobj().decompress(text, MAX_XMP)
    except zlib.error as error:
        raise MetadataError("its XMP is damaged (it cannot be decompressed)") from error


def _chunk(kind: bytes, content: bytes) -> Chunk:
    crc = zlib.crc32(kind + content).to_bytes(4, "big")
    return Chunk(kind, content, len(content).to_bytes(4, "big") + kind + content + crc)
