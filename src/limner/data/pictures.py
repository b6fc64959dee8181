"""Decode a picture: anything in, upright uint8 RGB (1,H,W,3) in [0, 255] out."""

import io
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

MAX_SIDE = 2048  # pixels; no encoder looks closer, and it bounds the memory of everything after decoding

_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray


class MediaError(ValueError):
    """A picture or clip that cannot be read: says which, what is wrong with it and what to do."""


def read_image(source: Picture, max_side: int = MAX_SIDE) -> UInt8[np.ndarray, "1 H W 3"]:
    """RGB [0, 255] pixels of a path, encoded bytes, a PIL picture or an array ((H,W) or (H,W,1|3|4); uint8, uint16).

    Upright by EXIF, alpha over white, the first frame of an animation, 16-bit grey scaled by its range (65535 -> 255);
    sides longer than `max_side` pixels are scaled down to it.  Raises MediaError that names the picture.
    """
    name = str(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"
    try:
        with _open(source) as image:
            # JPEG is decoded at 1/2, 1/4 or 1/8 already; the factor 2 leaves the thumbnail something to average
            image.draft(None, (2 * max_side, 2 * max_side))
            image.load()
            # read before and applied after scaling, which saves a full-size copy; TIFF has turned itself by now
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            rgb = _to_rgb(image, max_side)
            rgb = rgb if turn is None else rgb.transpose(turn)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise MediaError(f"{name}: there is no such file; check the path or the image folder") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{name}: too many pixels to decode safely ({error}); scale it down first") from error
    except MemoryError as error:
        raise MediaError(f"{name}: not enough memory to decode it; scale it down first") from error
    except Image.UnidentifiedImageError as error:
        raise MediaError(f"{name}: {_what_is_it(source)}; replace or remove it") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError, EOFError, ...
        raise MediaError(f"{name}: the picture is damaged ({error}); replace or remove it") from error
    return np.array(rgb)[None]  # a copy, because PIL's own memory is read-only


def _open(source: Picture) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()  # the caller's picture stays open and undrafted
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | PathLike):
        return Image.open(source)
    raise MediaError("a picture is a path, bytes, a PIL image or an array")


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
    """16-bit grey (modes I;16*, and I for PGM) by 65535 -> 255; floats by the range they show, [0, 1] or [0, 255]."""
    values = np.asarray(image)
    scaled = np.nan_to_num(values) * (255 if np.nanmax(values) <= 1 else 1) if image.mode == "F" else values // 257
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _what_is_it(source: Picture) -> str:
    size = len(source) if isinstance(source, bytes) else Path(str(source)).stat().st_size
    return "the file is empty (0 bytes)" if size == 0 else "not a picture in a format that Pillow reads"
