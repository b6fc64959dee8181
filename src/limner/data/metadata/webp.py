"""The EXIF and XMP chunks of a WebP file (WebP container specification, RFC 9649).

A file without the chunk VP8X gets one, with the size of the picture.
"""

from limner.data.metadata.blocks import Blocks, MetadataError

Chunk = tuple[bytes, bytes]  # kind, content without padding
EXIF_FLAG, XMP_FLAG, ALPHA_FLAG = 0x08, 0x04, 0x10  # of VP8X
PREFIX = b"Exif\0\0"  # of JPEG; some programs write it here too


def split(data: bytes) -> tuple[list[Chunk], bytes]:
    """-> (chunks, bytes behind the last).  Raises MetadataError for a damaged file."""
    chunks: list[Chunk] = []
    place = 12
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise MetadataError("it is cut off")
    while place + 8 <= end:
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + size > end:
            raise MetadataError(f"it is damaged (the chunk at byte {place})")
        chunks.append((kind, data[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    if not chunks or chunks[0][0] not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise MetadataError("it is damaged (no picture)")
    return chunks, data[max(end, place) :]


def read(data: bytes) -> Blocks:
    """The EXIF and XMP chunks."""
    found = dict(reversed(split(data)[0]))
    exif = found.get(b"EXIF")
    return Blocks(exif.removeprefix(PREFIX) if exif is not None else None, found.get(b"XMP "))


def write(data: bytes, blocks: Blocks) -> bytes:
    """The file with other blocks."""
    before, (chunks, rest) = read(data), split(data)
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended_header(*chunks[0])))
    for kind, flag, old, block in (
        (b"EXIF", EXIF_FLAG, before.exif, blocks.exif),
        (b"XMP ", XMP_FLAG, before.xmp, blocks.xmp),
    ):
        if block is None or block == old:
            continue
        index = next((index for index, chunk in enumerate(chunks) if chunk[0] == kind), None)
        if index is None:
            chunks.append((kind, block))
        else:
            prefix = PREFIX if chunks[index][1].startswith(PREFIX) else b""
            chunks[index] = (kind, prefix + block)
        header = chunks[0][1]
        chunks[0] = (b"VP8X", bytes([header[0] | flag]) + header[1:])
    body = b"WEBP" + b"".join(map(_padded, chunks))
    return b"RIFF" + len(body).to_bytes(4, "little") + body + rest


def picture(data: bytes) -> list[bytes]:
    """All chunks but EXIF, XMP and the header that announces them."""
    chunks, rest = split(data)
    return [content for kind, content in chunks if kind not in (b"EXIF", b"XMP ", b"VP8X")] + [rest]


def _padded(chunk: Chunk) -> bytes:
    kind, content = chunk
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def _extended_header(kind: bytes, content: bytes) -> bytes:
    """The content of VP8X for a picture: flags, three reserved bytes, width - 1 and height - 1 in three bytes each."""
    alpha = 0
    if kind == b"VP8L" and content[:1] == b"\x2f":
        bits = int.from_bytes(content[1:5], "little")  # 14 bits width - 1, 14 bits height - 1, one bit alpha
        width, height, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
    elif kind == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":
        width = (int.from_bytes(content[6:8], "little") & 0x3FFF) - 1
        height = (int.from_bytes(content[8:10], "little") & 0x3FFF) - 1
    else:
        raise MetadataError("it is damaged (the header of its picture)")
    return bytes([ALPHA_FLAG * alpha, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
