"""The EXIF and XMP segments of a JPEG file (ITU-T T.81, annex B; EXIF's and XMP's APP1)."""

from typing import NamedTuple

from limner.data.metadata.blocks import Blocks, MetadataError

EXIF, XMP, MPF = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"MPF\0"
APP0, APP1, APP2, SOS, EOI, FILL = 0xE0, 0xE1, 0xE2, 0xDA, 0xD9, 0xFF
MAX_SEGMENT = 65533  # bytes after the two of the length
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


class Segment(NamedTuple):
    """A segment in front of the compressed picture: `data` are all its bytes, `content` those after the length."""

    marker: int
    data: bytes
    content: bytes


def split(data: bytes) -> tuple[list[Segment], bytes]:
    """-> (the segments after SOI, everything from the first scan on).  Raises MetadataError for a damaged file."""
    segments: list[Segment] = []
    place = 2
    while True:
        if data[place : place + 1] != b"\xff":
            raise MetadataError(f"it is damaged (no segment of JPEG at byte {place})")
        start = place
        while data[place : place + 1] == b"\xff":
            place += 1
        if place >= len(data):
            raise MetadataError("it is cut off before its picture begins")
        marker = data[place]
        if marker in (SOS, EOI):
            return segments, data[start:]
        size = 0 if marker in STANDALONE else int.from_bytes(data[place + 1 : place + 3], "big")
        end = place + 1 + size
        if end > len(data) or (marker not in STANDALONE and size < 2):
            raise MetadataError("it is cut off before its picture begins")
        segments.append(Segment(marker, data[start:end], data[place + 3 : end]))
        place = end


def read(data: bytes) -> Blocks:
    """The first EXIF and XMP segments."""
    segments = split(data)[0]
    exif, xmp = (_index(segments, name) for name in (EXIF, XMP))
    return Blocks(
        None if exif is None else segments[exif].content[len(EXIF) :],
        None if xmp is None else segments[xmp].content[len(XMP) :],
    )


def write(data: bytes, blocks: Blocks) -> bytes:
    """The file with other blocks; a new one follows JFIF's segment, XMP follows EXIF."""
    segments, rest = split(data)
    for name, block in ((EXIF, blocks.exif), (XMP, blocks.xmp)):
        index = _index(segments, name)
        if block is None or (index is not None and segments[index].content == name + block):
            continue
        if len(name + block) > MAX_SEGMENT:
            raise MetadataError(f"its metadata would have {len(name + block):,} bytes; a JPEG holds {MAX_SEGMENT:,}")
        new = Segment(APP1, _segment(name + block), name + block)
        if index is None:
            index = sum(1 for segment in segments if segment.marker == APP0)
            index += name == XMP and _index(segments, EXIF) == index
            segments.insert(index, new)
        else:
            segments[index] = new
        if any(segment.marker == APP2 and segment.content.startswith(MPF) for segment in segments[:index]):
            raise MetadataError("it holds several pictures, whose places would move")
    return data[:2] + b"".join(segment.data for segment in segments) + rest


def picture(data: bytes) -> list[bytes]:
    """All segments but the first EXIF and XMP, and the compressed picture."""
    segments, rest = split(data)
    left_out = {_index(segments, name) for name in (EXIF, XMP)}
    return [segment.data for index, segment in enumerate(segments) if index not in left_out] + [rest]


def _segment(content: bytes) -> bytes:
    return bytes([FILL, APP1]) + (len(content) + 2).to_bytes(2, "big") + content


def _index(segments: list[Segment], name: bytes) -> int | None:
    """The number of the first APP1 segment of a kind."""
    of_kind = (i for i, it in enumerate(segments) if it.marker == APP1 and it.content.startswith(name))
    return next(of_kind, None)
