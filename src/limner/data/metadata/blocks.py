"""What containers of images share: their two blocks of metadata, and the error of a file that cannot take words."""

from dataclasses import dataclass


class MetadataError(ValueError):
    """Metadata that cannot be read or written; the message says why, without the name of the file."""


@dataclass(frozen=True)
class Blocks:
    """The metadata blocks of an image file.

    exif  a TIFF structure (begins with II or MM); None without one
    xmp   a packet of XML, UTF-8; None without one
    """

    exif: bytes | None = None
    xmp: bytes | None = None
