"""Opening of image files: which formats are read, by which reader, and what to do about the others.

Pillow's readers are limited to formats that it decodes by itself, without another program: a PostScript file that is
called photo.jpg must not start Ghostscript.  HEIC needs a plug-in, and TIFF files that Pillow does not know are read
by FFmpeg.
"""

import io
import os
import stat
import struct
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from limner.data.greys import to_8_bit
from limner.data.pyav import require_pyav

# Pillow's names; the first six are loaded by `Image.preinit`, the others need the slower `init`.  Left out are formats
# for which Pillow starts or loads other programs (EPS, WMF, FPX), and formats without a signature (SPIDER, IM, PCD).
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "CUR", "ICNS", "PCX"),
    *("SGI", "SUN", "QOI", "DDS", "PSD", "XBM", "XPM", "MSP", "TGA"),
)
EncodedImage = str | PathLike[str] | bytes
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# chunks that decide about pixels; IDAT is the image, fdAT a frame of an animation, eXIf holds the orientation
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT", b"eXIf", b"IEND")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
AVIF_BRANDS = (b"avif", b"avis")

# How files begin that people take for images or videos -> what they are, and what to do.
OTHERS = (
    (b"%!PS", "PostScript; save it as PNG"),
    (b"\xc5\xd0\xd3\xc6", "PostScript; save it as PNG"),
    (b"%PDF", "a PDF document; save its pages as PNG"),
    (b"<svg", "an SVG drawing; save it as PNG"),
    (b"<!doctype html", "a web page, not what it shows; download the file itself"),
    (b"<html", "a web page, not what it shows; download the file itself"),
    (b"\xff\x0a", "JPEG XL; save it as JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL; save it as JPEG or PNG"),
    (b"v/1\x01", "OpenEXR; save it as PNG"),
    (b"#?RADIANCE", "Radiance HDR; save it as PNG"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file; save it as JPEG"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"ID3", "sound without a video; remove it"),
    (b"fLaC", "sound without a video; remove it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull"),
)


def file_problem(path: str | PathLike[str]) -> str:
    """Why a path cannot be opened as a file, "" if it can.  A FIFO or a device would block whoever opens it.

    >>> file_problem("/dev/null")
    'a device, not a file'
    """
    mode = os.stat(path).st_mode
    kinds = {stat.S_ISFIFO: "a FIFO (named pipe)", stat.S_ISSOCK: "a socket", stat.S_ISDIR: "a folder"}
    kinds |= {stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    return next((f"{what}, not a file" for test, what in kinds.items() if test(mode)), "")


def is_heic(head: bytes) -> bool:
    """Whether the first bytes are those of a HEIF image with HEVC, as iPhones write it.

    >>> is_heic(b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic"), is_heic(b"\\0\\0\\0\\x1cftypmif1\\0\\0\\0\\0mif1avif")
    (True, False)
    """
    brands = ftyp_brands(head)
    return brands[:1] != [] and brands[0] in HEIC_BRANDS and not any(brand in AVIF_BRANDS for brand in brands)


def ftyp_brands(head: bytes) -> list[bytes]:
    """The brands of a file of the ISO base media format (MP4, QuickTime, HEIF, AVIF), the major one first."""
    if head[4:8] != b"ftyp":
        return []
    end = min(len(head), struct.unpack(">I", head[:4])[0])
    return [head[8:12], *(head[place : place + 4] for place in range(16, end - 3, 4))]


def what_it_is(head: bytes) -> str:
    """What a file is that is no image and no video, by its first bytes, and what to do; "" if that is not known."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if is_heic(head):
        return "HEIC, which needs a plug-in: pip install 'limner[heif]' (or save it as JPEG)"
    if b"<svg" in start[:2000] and start.startswith(b"<?xml"):
        return "an SVG drawing; save it as PNG"
    if ftyp_brands(head)[:1] == [b"crx "]:
        return "a camera's raw file; save it as JPEG"
    return next((what for magic, what in OTHERS if start.startswith(magic.lower()) or head.startswith(magic)), "")


def open_image(source: EncodedImage, notes: list[str] | None = None) -> Image.Image:
    """Open a path or encoded bytes; pixels are decoded later, except those of TIFF files that only FFmpeg reads.

    A line is added to `notes` when the scale of such a file was guessed.  Raises NotAFileError for a path that is no
    file, UnidentifiedImageError when no reader knows the format, and whatever Pillow's readers raise.
    """
    if not isinstance(source, bytes) and (problem := file_problem(source)):
        raise NotAFileError(problem)
    Image.preinit()  # else Pillow loads only the reader that the suffix names, and then all of them
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError:
        raise
    except Exception as error:  # the readers raise errors of many kinds
        head = first_bytes(source)
        if is_heic(head) and has_heif():
            return Image.open(io.BytesIO(content_of(source)), formats=("HEIF",))
        if head.startswith(PNG_SIGNATURE):
            return Image.open(io.BytesIO(bare_png(content_of(source))), formats=("PNG",))
        if head.startswith(TIFF_SIGNATURES) and isinstance(error, Image.UnidentifiedImageError):
            return _open_tiff(content_of(source), error, notes)
        raise


class NotAFileError(ValueError):
    """Raised for a FIFO, a device, a socket or a folder."""


def content_of(source: EncodedImage) -> bytes:
    """The encoded bytes of a source."""
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def first_bytes(source: EncodedImage, count: int = 4096) -> bytes:
    """The first bytes of a source."""
    if isinstance(source, bytes):
        return source[:count]
    with open(source, "rb", buffering=0) as file:
        return file.read(count)


def has_heif() -> bool:
    """Whether the plug-in for HEIC is installed (the extra `heif`); Pillow then knows the format HEIF."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def bare_png(content: bytes) -> bytes:
    """A PNG without the chunks that no pixel depends on: texts and colour profiles of any size, damaged ones too.

    Pillow refuses files with long texts, because they could fill the memory when it unpacks them.
    """
    kept, place = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while place + 8 <= len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        if name in PNG_CHUNKS:
            kept.append(content[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _open_tiff(content: bytes, error: Exception, notes: list[str] | None) -> Image.Image:
    """Read a TIFF file that Pillow does not know, for example of RGB floats.  Raises `error` if FFmpeg fails too."""
    values = read_deep(content)
    if values is None:
        raise error
    pixels, note = to_8_bit(values)
    if notes is not None and note:
        notes.append(note)
    return Image.fromarray(pixels)


def read_deep(content: bytes, alpha: bool = False) -> Shaped[np.ndarray, "H W c"] | None:
    """The RGB values of a PNG or TIFF file as FFmpeg reads them: float32 of floats, else uint16; None if it cannot.

    With `alpha` they are RGBA, of uint16.  Raises MissingPyAvError.
    """
    require_pyav()
    import av

    try:
        reader = "png_pipe" if content.startswith(PNG_SIGNATURE) else "tiff_pipe"
        with av.open(io.BytesIO(content), "r", format=reader) as container:
            context = container.streams.video[0].codec_context
            if context.width * context.height > 2 * (Image.MAX_IMAGE_PIXELS or 0):
                raise Image.DecompressionBombError(f"{context.width} x {context.height} pixels")
            frame = next(container.decode(video=0))
            if alpha:
                return frame.to_ndarray(format="rgba64le")
            return frame.to_ndarray(format="rgbf32le" if "f32" in frame.format.name else "rgb48le")
    except (av.error.FFmpegError, ValueError, IndexError, StopIteration):
        return None
