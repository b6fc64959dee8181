"""Decoding of animations with Pillow: GIF, WebP, APNG and AVIF files of several frames, which are clips."""

import io
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from limner.data.image_files import PNG_SIGNATURE, EncodedImage, bare_png, content_of, first_bytes
from limner.data.images import MediaError

FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
MOST_FRAMES, MOST_DECODED = 20_000, 10_000_000_000  # frames, and pixels of all frames together: a minute of work
SHORTEST_FRAME, USUAL_FRAME = 10, 100  # milliseconds; browsers show a frame of at most 10 ms for 100 ms
MOST_PIXELS = 25_000_000  # of a frame; decoding one takes about 30 bytes for each, and a small file can claim many
LONGEST_FRAME = 3_600_000  # milliseconds; a frame that claims to be shown for longer counts as a usual one


def is_animation(source: EncodedImage) -> bool:
    """Whether a file, or encoded bytes, are a GIF, WebP, PNG or AVIF of several frames, by their content.

    False for other files and for those that cannot be read.  Only the first bytes of most files are read.
    """
    try:
        if not isinstance(source, bytes) and not Path(source).is_file():  # a pipe would wait for a writer
            return False
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            if not _may_have_frames(file):
                return False
        with _open_frames(source) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow's plugins raise nearly anything; whoever reads the file reports what is wrong with it
        return False


def _may_have_frames(file: io.BufferedIOBase) -> bool:
    """Whether the header of a file allows several frames."""
    head = file.read(64)
    if head[:4] == b"GIF8":
        return True
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2)
    if head[4:8] == b"ftyp":
        return b"avis" in head
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    file.seek(8)
    while len(header := file.read(8)) == 8:  # a chunk of a PNG file: its length and type, then data and a checksum
        if header[4:] in (b"acTL", b"IDAT"):
            return header[4:] == b"acTL"
        file.seek(int.from_bytes(header[:4], "big") + 4, 1)
    return False


def frame_times(path: str | PathLike[str]) -> tuple[array, int, str]:
    """When each frame begins, when the last one ends, both in milliseconds, and a note about damage.

    Raises MediaError when no frame can be decoded.
    """
    starts, end, absurd, note = array("q"), 0.0, 0.0, ""
    with _open(path) as image:
        # Pillow counts the frames of a GIF by reading them, which fails when the file is cut
        count = None if image.format == "GIF" else getattr(image, "n_frames", 1)
        while count is None or len(starts) < count:
            try:
                _seek(image, path, len(starts))
                image.load()  # WebP and AVIF tell the duration of a frame when it is decoded
            except MediaError:
                raise
            except Exception as error:
                if not starts:
                    raise
                if count is not None or not isinstance(error, EOFError):
                    whole = "" if count is None else f" of {count}"
                    note = f"truncated: {len(starts)}{whole} frames can be read ({error})"
                break
            starts.append(round(end))
            duration = float(image.info.get("duration") or 0)
            end += duration if SHORTEST_FRAME < duration <= LONGEST_FRAME else USUAL_FRAME
            absurd = max(absurd, duration)
    if absurd > LONGEST_FRAME:
        note += f"{'; ' if note else ''}a frame claims {absurd / 1000:.0f} s; it counts as {USUAL_FRAME / 1000} s"
    return starts, round(end), note


def decode(path: str | PathLike[str], count: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The first `count` frames as players show them: whole, upright, and transparent pixels blended with white."""
    with _open(path) as image:
        for number in range(count):
            _seek(image, path, number)
            frame = ImageOps.exif_transpose(image).convert("RGBA")
            white = Image.new("RGBA", frame.size, "white")
            yield np.asarray(Image.alpha_composite(white, frame).convert("RGB"))


def _seek(image: Image.Image, path: str | PathLike[str], number: int) -> None:
    """Go to a frame, without decoding it.  Raises MediaError when it is too large, or too many came before."""
    image.seek(number)
    if (pixels := image.width * image.height) > MOST_PIXELS:
        raise MediaError(
            f"{path}: frame {number + 1} has {image.width} x {image.height} pixels, {pixels:,} in all, and at most "
            f"{MOST_PIXELS:,} are decoded; scale it down first"
        )
    if number >= MOST_FRAMES or number * pixels > MOST_DECODED:
        raise MediaError(
            f"{path}: it has more than {number:,} frames of {image.width} x {image.height} pixels, which would take "
            "minutes to decode; make a video of it (ffmpeg -i IN OUT.mp4)"
        )


def _open_frames(source: EncodedImage) -> Image.Image:
    """Open an animation; a PNG without its texts, which Pillow refuses when they are long."""
    if first_bytes(source, len(PNG_SIGNATURE)) == PNG_SIGNATURE:
        source = bare_png(content_of(source))
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


@contextmanager
def _open(path: str | PathLike[str]) -> Iterator[Image.Image]:
    try:
        with _open_frames(path) as image:
            yield image
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{path}: too many pixels to decode safely ({error}); scale it down first") from error
    except FileNotFoundError as error:
        raise MediaError(f"{path}: there is no such file; check the path or the clip folder") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, IndexError, EOFError, ...
        raise MediaError(f"{path}: the animation is damaged ({error}); replace or remove it") from error
