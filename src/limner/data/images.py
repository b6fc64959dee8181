"""Decoding of images: a path, bytes, PIL image or array in, upright uint8 RGB (1, H, W, 3) in [0, 255] out."""

import io
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

MAX_SIDE = 2048  # pixels; no encoder uses more, and it bounds the memory of everything after decoding

_TRANSPOSE = {  # EXIF orientation -> the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

ImageSource = str | PathLike[str] | bytes | Image.Image | np.ndarray


class MediaError(ValueError):
    """Raised when an image or clip cannot be read; the message names it, the reason and what to do."""


def read_image(source: ImageSource, max_side: int = MAX_SIDE) -> UInt8[np.ndarray, "1 H W 3"]:
    """Read an image as RGB in [0, 255].

    source    path, encoded bytes, PIL image, or array (H,W) or (H,W,1|3|4) of uint8, uint16 or bool
    max_side  a larger image is scaled down to this longer side, in pixels
    The image is rotated by its EXIF orientation; transparent pixels are blended with white; of an animation the first
    frame is read; 16-bit grey is divided by 257 (65535 -> 255).  Raises MediaError, which names the image, when it
    cannot be read.
    """
    name = str(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"
    try:
        with _open(source) as image:
            # libjpeg decodes at 1/2, 1/4 or 1/8 of the size; with the factor 2 the thumbnail still averages pixels
            image.draft(None, (2 * max_side, 2 * max_side))
            image.load()
            # the rotation is applied after scaling, which saves a full-size copy; Pillow has rotated TIFF by now
            transpose = _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            rgb = _to_rgb(image, max_side)
            rgb = rgb if transpose is None else rgb.transpose(transpose)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise MediaError(f"{name}: there is no such file; check the path or the image folder") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{name}: too many pixels to decode safely ({error}); scale it down first") from error
    except MemoryError as error:
        raise MediaError(f"{name}: not enough memory to decode it; scale it down first") from error
    except Image.UnidentifiedImageError as error:
        raise MediaError(f"{name}: {_why_unidentified(source)}; replace or remove it") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError, EOFError, ...
        raise MediaError(f"{name}: the image is damaged ({error}); replace or remove it") from error
    return np.array(rgb)[None]  # a copy, because the memory of PIL is read-only


def _open(source: ImageSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()  # `draft` and `close` must not change the caller's image
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | PathLike):
        return Image.open(source)
    raise MediaError(f"an image is a path, bytes, a PIL image or an array, not {type(source).__name__}")


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


def _to_rgb(image: Image.Image, max_side: int) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits -> 8 bits.

    16-bit grey (modes I;16*, and I for PGM) is divided by 257; floats are taken as [0, 1] when none is larger than 1,
    else as [0, 255].
    """
    values = np.asarray(image)
    scaled = np.nan_to_num(values) * (255 if np.nanmax(values) <= 1 else 1) if image.mode == "F" else values // 257
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _why_unidentified(source: ImageSource) -> str:
    size = len(source) if isinstance(source, bytes) else Path(str(source)).stat().st_size
    return "the file is empty (0 bytes)" if size == 0 else "not an image in a format that Pillow reads"
