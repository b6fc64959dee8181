"""Recognition of media by their content: is a file an image, an animation or a video?

The suffix of a file does not count where its first bytes tell: a JPEG without a suffix is an image, a GIF that is
called clip.mp4 an animation, and a web page that is called photo.jpg neither.  The first bytes are compared with the
signatures that Pillow's readers know and with those of the usual video files; only what is left is opened.
"""

import os
import struct
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal

from PIL import Image

from limner.data.animations import is_animation
from limner.data.containers import UNSURE_FORMATS, is_video
from limner.data.image_files import (
    AVIF_BRANDS,
    FORMATS,
    EncodedImage,
    file_problem,
    first_bytes,
    ftyp_brands,
    is_heic,
    open_image,
    what_it_is,
)

Kind = Literal["image", "animation", "video", ""]

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif", ".hif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".tga", ".ico", ".cur", ".icns", ".pcx", ".sgi", ".qoi", ".dds", ".psd", ".xpm"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".wmv", ".asf", ".flv"),
    *(".f4v", ".ts", ".mts", ".m2ts", ".vob", ".3gp", ".3g2", ".mxf", ".dv", ".qt", ".ogv", ".rm", ".rmvb", ".divx"),
    *(".y4m", ".ivf", ".nut", ".m2p", ".mpv", ".tod", ".h264", ".264", ".h265", ".265", ".hevc"),
)
MEDIA_SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES
# Images that nothing here reads; they are named, not left out.
OTHER_IMAGE_SUFFIXES = (".jxl", ".svg", ".eps", ".exr", ".hdr", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf")

HEAD = 4096  # bytes at the beginning of a file by which it is recognised
# Formats whose signature is so long that no other file begins with it; of the others the header is read too.
SURE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PSD", "QOI", "ICNS", "DDS")
VIDEO_SIGNATURES = (  # (offset, bytes)
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF, WMV
    (0, b"FLV\x01"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01"),  # MXF
    (0, b"\0\0\x01\xb3"),  # MPEG-1 and MPEG-2 video
    *((0, magic) for magic, _ in UNSURE_FORMATS),
    (0, b"OggS"),
    (0, b".RMF"),
    (0, b"YUV4MPEG2 "),
    (0, b"DKIF"),
    (0, b"nut/multimedia container"),
)
QUICKTIME_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"pnot", b"skip", b"free")  # at offset 4
SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ")


def recognise(path: str | PathLike[str]) -> Kind:
    """What a file is by its content; "" for a file that is no medium.

    A path that is not there is judged by its suffix, because a feature store may outlive its media.  FIFOs, devices
    and folders are no media; nothing waits for them.
    """
    try:
        status = os.stat(path)
        return "" if file_problem(path) else _recognise_file(os.fspath(path), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):  # also a file that may not be read, or a NUL in its name
        return kind_by_suffix(path)


def recognise_bytes(content: bytes, name: str = "") -> Kind:
    """What encoded bytes are, or the beginning of them, as `recognise` for a file called `name`.

    >>> recognise_bytes(b"RIFF....AVI LIST"), recognise_bytes(b"a dog runs")
    ('video', '')
    """
    head = content[:HEAD]
    kind = _kind_of_image(content, head, name)
    return kind or ("video" if _begins_as_video(head) else "")


def kind_by_suffix(path: str | PathLike[str]) -> Kind:
    """What the suffix of a path promises.

    >>> kind_by_suffix("IMG_0001.JPG"), kind_by_suffix("a.mts"), kind_by_suffix("a.txt")
    ('image', 'video', '')
    """
    suffix = Path(path).suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else ""


def promises_medium(path: str | PathLike[str]) -> bool:
    """Whether people expect an image or a video behind this file name."""
    return Path(path).suffix.lower() in MEDIA_SUFFIXES + OTHER_IMAGE_SUFFIXES


@lru_cache(maxsize=1 << 16)
def _recognise_file(path: str, size: int, modified: int) -> Kind:
    """What a regular file is; `size` and `modified` (ns) tell whether it has changed since the last call."""
    head = first_bytes(path, HEAD)
    if kind := _kind_of_image(path, head, path):
        return kind
    if _begins_as_video(head) or (_may_be_video(path, head) and is_video(path)):
        return "video"
    return ""


def _kind_of_image(source: EncodedImage, head: bytes, name: str) -> Kind:
    """ "image" or "animation"; "" for what is neither."""
    if image_format(source, head, name):
        return "animation" if is_animation(source) else "image"
    return "image" if is_heic(head) else ""


def image_format(source: EncodedImage, head: bytes, name: str) -> str:
    """Pillow's name of the format of an image that begins with `head`; "" when it is none."""
    for load_readers in (Image.preinit, Image.init):  # the second takes .1 s, which JPEG, PNG and GIF need not spend
        load_readers()
        for format in FORMATS:
            if _has_signature(format, head) and (format in SURE_FORMATS or _opens_as_image(source)):
                return format
    # TGA has no signature
    return "TGA" if Path(name).suffix.lower() in (".tga", ".icb", ".vda", ".vst") and _opens_as_image(source) else ""


def _has_signature(format: str, head: bytes) -> bool:
    """Whether Pillow's reader of a format accepts the first bytes of a file."""
    accept = Image.OPEN[format][1] if format in Image.OPEN else None
    try:
        return accept is not None and accept(head[:16]) is True and not is_heic(head)
    except (struct.error, IndexError):  # the file is too short for this format
        return False


def _opens_as_image(source: EncodedImage) -> bool:
    try:
        open_image(source).close()
    except Exception:  # the readers raise errors of many kinds
        return False
    return True


def _begins_as_video(head: bytes) -> bool:
    """Whether a file begins as one of the usual kinds of video files."""
    brands = ftyp_brands(head)
    if brands:
        return brands[0] not in (*SOUND_BRANDS, *AVIF_BRANDS, b"crx ")
    if any(head[place:].startswith(signature) for place, signature in VIDEO_SIGNATURES):
        return True
    if head[4:8] in QUICKTIME_BOXES:
        return True
    # MPEG transport streams have packets of 188 bytes that begin with G; cameras put a time of 4 bytes before each
    return any(
        len(head) > start + 2 * step and all(head[start + k * step] == 0x47 for k in range(3))
        for start, step in ((0, 188), (4, 192), (0, 204))
    )


def _may_be_video(path: str, head: bytes) -> bool:
    """Whether it is worth opening the file: its name promises a video, or it is neither text nor of a known kind."""
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        return bool(head)
    return b"\0" in head and not what_it_is(head) and Path(path).suffix.lower() in ("", ".dat", ".bin", ".tmp")
