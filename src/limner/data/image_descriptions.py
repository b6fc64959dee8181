"""The description inside an image file: EXIF's ImageDescription and comments, XMP's `dc:description`."""

import re
from pathlib import Path
from xml.etree import ElementTree

from PIL import ExifTags, Image

EXIF_IFD = 0x8769
XP_TAGS = (0x9C9B, 0x9C9C, 0x9C9F)  # Windows' title, comment and subject: UTF-16
CHARSETS = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "shift_jis"}  # of UserComment
MAX_XMP = 2_000_000  # bytes
# what cameras write into ImageDescription without being asked
CAMERA_TEXT = re.compile(
    r"^(?:OLYMPUS DIGITAL CAMERA|SONY DSC|DCIM.*|MINOLTA DIGITAL CAMERA|KONICA MINOLTA.*|dav|hdr\w*)?$"
)
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
LIST_ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def read_description(path: str | Path) -> str:
    """The description that an image file holds, in one line: of XMP, or else of EXIF; "" without one.

    Files that are no images, and damaged metadata, have none.
    """
    try:
        with Image.open(path) as image:
            xmp, exif = image.info.get("xmp", b""), image.getexif()
    except Exception:  # whatever Pillow makes of a damaged file; reading the picture itself reports it
        return ""
    found = xmp_description(xmp if isinstance(xmp, bytes) else str(xmp).encode()) or exif_description(exif)
    return "" if CAMERA_TEXT.match(found) else found


def exif_description(exif: Image.Exif) -> str:
    """The first of EXIF's texts that says something: ImageDescription, UserComment, Windows' title and comments."""
    main = exif.get(ExifTags.Base.ImageDescription, "")
    user = exif.get_ifd(EXIF_IFD).get(ExifTags.Base.UserComment, b"")
    texts = [_decoded(main), _user_comment(user)]
    texts += [bytes(exif.get(tag, b"")).decode("utf-16-le", "ignore") for tag in XP_TAGS]
    lines = (" ".join(text.replace("\0", " ").split()) for text in texts)
    return next((line for line in lines if line), "")


def xmp_description(packet: bytes) -> str:
    """`dc:description` of an XMP packet, in English or else in the default language, in one line; "" without one."""
    if not packet or len(packet) > MAX_XMP:
        return ""
    try:
        root = ElementTree.fromstring(packet.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError):
        return ""
    items = [item for found in root.iter(DESCRIPTION) for item in found.iter(LIST_ITEM)]
    texts = {item.get(LANGUAGE, "x-default"): " ".join((item.text or "").split()) for item in items}
    english = next((text for language, text in texts.items() if language.lower().startswith("en") and text), "")
    return english or texts.get("x-default", "") or next(iter(texts.values()), "")


def _decoded(value: object) -> str:
    """A text of EXIF.  Pillow decodes bytes as Latin-1; most are UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = str(value)
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _user_comment(value: object) -> str:
    """UserComment: eight bytes that name the encoding, then the text."""
    if not isinstance(value, bytes):
        return _decoded(value)
    return value[8:].decode(CHARSETS.get(value[:8], "utf-8"), "ignore")
