"""Decoding of images: a path, bytes, PIL image or array in, upright uint8 RGB (1, H, W, 3) in [0, 255] out."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from limner.data.greys import to_8_bit
from limner.data.image_files import (
    PNG_SIGNATURE,
    EncodedImage,
    NotAFileError,
    bare_png,
    content_of,
    first_bytes,
    open_image,
    read_deep,
    what_it_is,
)
from limner.data.pyav import MissingPyAvError

MAX_SIDE = 2048  # pixels; no encoder uses more, and it bounds the memory of everything after decoding
LARGE = 2_000_000  # pixels; an image with fewer is never reduced, so the usual data sets keep their exact pixels
MISSING = 0.5  # a truncated image with a smaller share of its rows is refused
JPEG_END = b"\xff\xd9"

_TRANSPOSE = {  # EXIF orientation -> the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

ImageSource = EncodedImage | Image.Image | np.ndarray


class MediaError(ValueError):
    """Raised when an image or clip cannot be read; the message names it, the reason and what to do."""


def read_image(
    source: ImageSource, max_side: int = MAX_SIDE, notes: list[str] | None = None, side: int = 0
) -> UInt8[np.ndarray, "1 H W 3"]:
    """Read an image as RGB in [0, 255].

    source    path, encoded bytes, PIL image, or array (H,W) or (H,W,1|3|4) of uint8, uint16 or bool
    max_side  a larger image is scaled down to this longer side, in pixels
    notes     a list to which a line is added when the file is cut off, or its scale of grey had to be guessed
    side      what the image will be resized to: its shorter side in pixels, 0 if that is not known.  An image of more
              than `LARGE` pixels is then read at a whole fraction of its size, whose shorter side is at least twice
              this; libjpeg decodes a twelfth of the time at 1/8
    The image is rotated by its EXIF orientation; transparent pixels are blended with white; of an animation the first
    frame is read; values of more than 8 bits are scaled as `limner.data.greys` says.  Raises MediaError, which names
    the image, when it cannot be read.
    """
    name = str(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"
    found: list[str] = []
    try:
        with quiet_pillow(), _open(source, found) as opened:
            target = 2 * side if _reduction(opened, side) > 1 else 2 * max_side
            # libjpeg decodes at 1/2, 1/4 or 1/8 of the size; with the factor 2 resizing still averages pixels
            opened.draft(None, (target, target))
            image = _load(opened, source, found)
            # the rotation is applied after scaling, which saves a full-size copy; Pillow has rotated TIFF by now
            transpose = _transpose(image)
            rgb = _to_rgb(image, max_side, side, found)
            rgb = rgb if transpose is None else rgb.transpose(transpose)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    except MissingPyAvError as error:
        raise MediaError(f"{name}: {error}") from error
    except NotAFileError as error:
        raise MediaError(f"{name}: {error}; give an image or a video file, or remove it") from error
    except FileNotFoundError as error:
        raise MediaError(f"{name}: there is no such file; check the path or the image folder") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{name}: too many pixels to decode safely ({error}); scale it down first") from error
    except MemoryError as error:
        raise MediaError(f"{name}: not enough memory to decode it; scale it down first") from error
    except Image.UnidentifiedImageError as error:
        raise MediaError(f"{name}: {_why_unidentified(source)}") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError, EOFError, ...
        raise MediaError(f"{name}: the image is damaged ({error}); replace or remove it") from error
    if notes is not None:
        notes += [f"{name}: {line}" for line in found]
    return np.array(rgb)[None]  # a copy, because the memory of PIL is read-only


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """No Python warnings about damaged EXIF data, and about images that are large but not too large."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield


def _open(source: ImageSource, notes: list[str]) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()  # `draft` and `close` must not change the caller's image
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | PathLike | bytes):
        return open_image(source, notes)
    raise MediaError(f"an image is a path, bytes, a PIL image or an array, not {type(source).__name__}")


def _load(image: Image.Image, source: ImageSource, notes: list[str]) -> Image.Image:
    """Decode the pixels; of a file that breaks off, those that are there, with a note.

    Raises what Pillow raises when the file is damaged otherwise, or too many rows are missing.
    """
    tiles = getattr(image, "tile", [])
    # Pillow drops the lower 8 bits of these
    deep = bool(tiles) and any(mode in str(tiles[0]) for mode in ("RGB;16", "RGBA;16", "LA;16"))
    try:
        image.load()
    except Exception as error:  # the readers raise errors of many kinds
        if not isinstance(source, str | PathLike | bytes):
            raise
        if image.format == "PNG" and "truncated" not in str(error):  # a damaged or long text after the pixels
            bare = Image.open(io.BytesIO(bare_png(content_of(source))), formats=("PNG",))
            bare.load()
            return bare
        if "truncated" not in str(error):
            raise
        return _load_truncated(image, source, error, notes)
    if deep and isinstance(source, str | PathLike | bytes):
        return _lighter_rgb(image, source, notes)
    return image


def _load_truncated(image: Image.Image, source: EncodedImage, error: Exception, notes: list[str]) -> Image.Image:
    """The image of a file that breaks off, after Pillow's `error`; missing rows are black, or grey in a JPEG."""
    image.tile = []  # type: ignore[attr-defined]  # what was decoded before the error counts as the image
    pixels = np.asarray(image)
    rows = _rows_without(pixels, pixels[-1, -1] if image.format == "GIF" else 0)
    if image.format in ("JPEG", "MPO"):  # libjpeg fills the rest of a file that ends properly, as browsers do
        image = _with_end(source, image)
        pixels = np.asarray(image)
        rows = max(rows, _rows_without(pixels, pixels[-1, -1]))
    share = rows / len(pixels)
    if share < MISSING:
        raise error
    part = f"the file breaks off, about {share:.0%} of it can be read"
    what = "its last bytes are missing" if share > 0.98 else part
    notes.append(f"truncated: {what}")
    return image


def _with_end(source: EncodedImage, cut: Image.Image) -> Image.Image:
    """The JPEG with the end marker that it lacks, decoded at the size of `cut`."""
    image = Image.open(io.BytesIO(content_of(source) + JPEG_END), formats=("JPEG",))
    image.draft(None, cut.size)
    image.load()
    return image


def _rows_without(pixels: UInt8[np.ndarray, "H W ..."], fill: UInt8[np.ndarray, "..."] | int) -> int:
    """The number of rows from the first to the last that is not all `fill`."""
    rows = np.flatnonzero((pixels != fill).reshape(len(pixels), -1).any(axis=1))
    return int(rows[-1] - rows[0]) + 1 if len(rows) else 0


def _lighter_rgb(image: Image.Image, source: EncodedImage, notes: list[str]) -> Image.Image:
    """16-bit colours as FFmpeg reads them when Pillow's 8 bits are dark: the values may use 8 to 14 bits only."""
    colours = np.asarray(image)
    has_alpha = image.mode in ("RGBA", "LA")
    if (colours[..., :-1] if has_alpha else colours).max() >= 64:  # at least 15 of the 16 bits are used
        return image
    values = read_deep(content_of(source), has_alpha)
    if values is None:
        return image
    pixels, note = to_8_bit(values[..., :3])
    notes += [note] if note else []
    if not has_alpha:
        return Image.fromarray(pixels)
    # an alpha that uses 16 bits is whole; one of fewer bits uses those of the colours
    alpha = to_8_bit(values[..., 3])[0]
    return Image.fromarray(np.dstack([pixels, alpha]))


def _transpose(image: Image.Image) -> Image.Transpose | None:
    """The operation that makes an image upright; None when its EXIF data do not say, or are damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # struct.error, SyntaxError, OverflowError, ...: viewers ignore such data
        return None
    return next((operation for value, operation in _TRANSPOSE.items() if value == orientation), None)


def _from_array(array: np.ndarray) -> Image.Image:
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    shape_fits = squeezed.ndim == 2 or (squeezed.ndim == 3 and squeezed.shape[-1] in (3, 4))
    if not shape_fits or 0 in squeezed.shape:
        raise MediaError(f"an array must be (H,W), (H,W,3) or (H,W,4), not {array.shape}")
    if squeezed.dtype == np.uint16:
        squeezed = (squeezed // 257).astype(np.uint8)
    elif squeezed.dtype == np.bool_:
        squeezed = squeezed.astype(np.uint8) * 255
    elif squeezed.dtype != np.uint8:
        raise MediaError(
            f"an array must be uint8 in [0, 255], uint16 or bool, not {array.dtype}; scale and cast it first"
        )
    return Image.fromarray(np.ascontiguousarray(squeezed))


def _reduction(image: Image.Image, side: int) -> int:
    """The whole number by which both sides of a large image can be divided and stay at least twice `side`."""
    return max(1, min(image.size) // (2 * side)) if side and image.width * image.height > LARGE else 1


def _to_rgb(image: Image.Image, max_side: int, side: int, notes: list[str]) -> Image.Image:
    """RGB of any mode, reduced to a whole fraction where `side` allows it, and at most `max_side` pixels long."""
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow scales PGM to 16 bits by the largest value that the file names
        pixels, note = to_8_bit(np.asarray(image), full_range=image.format == "PPM")
        notes += [note] if note else []
        image = Image.fromarray(pixels)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if (factor := _reduction(image, side)) > 1:
        image = image.reduce(factor)
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _why_unidentified(source: ImageSource) -> str:
    assert isinstance(source, str | PathLike | bytes)
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if size == 0:
        return "the file is empty (0 bytes); replace or remove it"
    head = first_bytes(source)
    if what := what_it_is(head):
        return f"it is {what}"
    if head.startswith(PNG_SIGNATURE):
        return "the image is damaged (the header of the PNG cannot be read); replace or remove it"
    return "not an image in a format that is read; replace or remove it"
