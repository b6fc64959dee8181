"""Descriptions inside image files: EXIF's ImageDescription and XMP's `dc:description`, read and written.

Only the container is edited (segments of JPEG, chunks of PNG and WebP, tags of TIFF): the compressed picture and all
other metadata keep their bytes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from limner.data.metadata import jpeg, png, tiff, webp, xmp
from limner.data.metadata.blocks import Blocks, MetadataError

__all__ = ["MetadataError", "Place", "description", "picture_data", "with_description"]

Place = Literal["exif", "xmp"]


class Container(NamedTuple):
    """A format of image files.

    read     bytes of a file -> its metadata blocks
    write    bytes of a file, blocks -> bytes of the file with these blocks
    picture  bytes of a file -> everything that is neither block, in order
    """

    read: Callable[[bytes], Blocks]
    write: Callable[[bytes, Blocks], bytes]
    picture: Callable[[bytes], list[bytes]]


CONTAINERS: dict[str, Container] = {
    "JPEG": Container(jpeg.read, jpeg.write, jpeg.picture),
    "PNG": Container(png.read, png.write, png.picture),
    "WebP": Container(webp.read, webp.write, webp.picture),
}
SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}


def container_name(data: bytes) -> str:
    """JPEG, PNG, WebP or TIFF, by the first bytes.  Raises MetadataError for other files."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    for signature, name in SIGNATURES.items():
        if data.startswith(signature):
            return name
    raise MetadataError("only JPEG, PNG, WebP and TIFF can hold it; --sidecar xmp or txt writes beside the file")


def description(data: bytes, place: Place) -> str:
    """The description in a file's EXIF or XMP, as it is written there; "" without one.

    Raises MetadataError for other formats and for damaged metadata.
    """
    name = container_name(data)
    if name == "TIFF":
        found = tiff.read_text(data, tiff.IMAGE_DESCRIPTION) if place == "exif" else _xmp_of_tiff(data)
        return found if isinstance(found, str) else xmp.description(found) if found else ""
    blocks = CONTAINERS[name].read(data)
    if place == "exif":
        return tiff.read_text(blocks.exif, tiff.IMAGE_DESCRIPTION) if blocks.exif else ""
    return xmp.description(blocks.xmp) if blocks.xmp else ""


def with_description(data: bytes, place: Place, text: str) -> bytes:
    """The bytes of the file with another description; the picture and other metadata keep their bytes.

    Raises MetadataError as `description`, and for a text that does not fit.
    """
    name, text = container_name(data), clean_text(text)
    if name == "TIFF":
        if place == "exif":
            new = tiff.with_text(data, tiff.IMAGE_DESCRIPTION, text)
        else:
            new = tiff.with_value(data, tiff.XMP, tiff.BYTE, xmp.with_description(_xmp_of_tiff(data), text))
    else:
        blocks = CONTAINERS[name].read(data)
        if place == "exif":
            blocks = replace(blocks, exif=tiff.with_text(blocks.exif or tiff.EMPTY, tiff.IMAGE_DESCRIPTION, text))
        else:
            blocks = replace(blocks, xmp=xmp.with_description(blocks.xmp, text))
        new = CONTAINERS[name].write(data, blocks)
    if description(new, place) != text or picture_data(new) != picture_data(data):
        raise MetadataError("it is damaged (what was written would not be read again)")
    return new


def clean_text(text: str) -> str:
    """A text without what EXIF and XMP cannot hold: zeros, other control characters, blanks at the ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ")
    return "".join(char for char in text if char >= " " or char in "\t\n").strip()


def picture_data(data: bytes) -> list[bytes]:
    """All parts of a file but the EXIF and XMP blocks, in order; they never change."""
    name = container_name(data)
    return [b"".join(tiff.picture(data))] if name == "TIFF" else CONTAINERS[name].picture(data)


def _xmp_of_tiff(data: bytes) -> bytes | None:
    return tiff.read_value(data, tiff.XMP)
