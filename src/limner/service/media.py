"""Images and clips in requests: base64, data URLs and addresses in, bytes out; bounds on pixels and duration."""

import base64
import binascii
import re
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from PIL import Image

from limner.data.clips import index_clip
from limner.data.containers import as_media_error, open_video
from limner.data.image_files import open_image
from limner.data.images import quiet_pillow
from limner.data.recognition import MEDIA_SUFFIXES, recognise_bytes
from limner.service.errors import RequestError
from limner.service.limits import MAX_NAME, Limits

DATA_URL = re.compile(r"\s*data:([^,]{0,200}),", re.IGNORECASE)
FETCH_SECONDS = 10.0  # for an image at an allowed address


@dataclass(frozen=True)
class Upload:
    """The bytes of an image or clip, and the name that the client gave it, which is never used as a path."""

    content: bytes
    name: str = ""

    @property
    def label(self) -> str:
        """The name in answers."""
        return self.name[:MAX_NAME]

    @property
    def local_name(self) -> str:
        """A name for a temporary file: only a known ending is kept of the client's."""
        suffix = PurePosixPath(self.name).suffix.lower()
        return "upload" + (suffix if suffix in MEDIA_SUFFIXES else "")

    @property
    def is_clip(self) -> bool:
        """Whether it is a video or an animation, by its content."""
        return recognise_bytes(self.content, self.local_name) in ("video", "animation")

    def reason(self, error: Exception) -> str:
        """The message of an error, with the name that the client knows in front of it."""
        text = str(error)
        for internal in ("<bytes>", self.local_name):
            text = text.removeprefix(f"{internal}: ")
        return f"{self.label}: {text}" if self.label else text


def decode_base64(text: str, field: str) -> bytes:
    """The bytes that base64 text stands for; blanks, missing `=` and the alphabet of URLs are accepted.

    Raises RequestError, which names the `field`, for anything else.

    >>> decode_base64("aGk=", "image"), decode_base64("aG k", "image")
    (b'hi', b'hi')
    """
    # split and join, and replace, take a thirtieth of the time of `re.sub` and `translate`
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"{field} is not base64 ({error})", "invalid_base64") from error


def decode_inline(text: str, field: str) -> bytes:
    """The bytes of a data URL or of base64 text.

    Raises RequestError for addresses of any other kind: files of the server are never read.
    """
    if match := DATA_URL.match(text):
        data = text[match.end() :]
        if match[1].lower().rstrip().endswith(";base64"):
            return decode_base64(data, field)
        return unquote_to_bytes("".join(data.split()))
    if ":" in text[:30]:
        raise RequestError(400, f"{field}: expected base64 or a data URL, got {text[:30]!r}", "invalid_base64")
    return decode_base64(text, field)


def is_web_address(text: str) -> bool:
    """Whether a text is an address with http or https.

    >>> is_web_address(" HTTPS://example.com/dog.jpg"), is_web_address("data:image/png;base64,")
    (True, False)
    """
    return text.strip()[:10].partition(":")[0].lower() in ("http", "https")


def fetch(address: str, field: str, hosts: Collection[str], limits: Limits) -> bytes:
    """The bytes at an address, if its host is one of `hosts`; redirections are not followed.

    Raises RequestError when it is not, or when the answer is too large or fails.
    """
    try:
        host = (urlsplit(address).hostname or "").lower()
    except ValueError:
        host = ""
    if host not in hosts:
        raise RequestError(
            400,
            f"{field}: this service fetches nothing from {host or 'this address'!r}; send the image itself, as a data "
            "URL (data:image/jpeg;base64,...), or have the host allowed with --allow-host",
            "host_not_allowed",
        )
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=FETCH_SECONDS) as answer:
            content = answer.read(limits.body_bytes + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise RequestError(400, f"{field}: {host} did not give the image ({error})", "fetch_failed") from error
    if len(content) > limits.body_bytes:
        raise RequestError(413, f"{field}: the image has more than {limits.body_bytes} bytes", "too_large")
    return content


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def check_image(upload: Upload, limits: Limits) -> None:
    """Raise RequestError for an image or animation of too many pixels, which its header tells before it is decoded."""
    try:
        with quiet_pillow(), open_image(upload.content) as image:
            width, height = image.size
            frames = getattr(image, "n_frames", 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))  # Pillow tells it so
        raise _too_many_pixels(upload, f"{int(found[1]):,}" if found else "these", limits) from error
    except Exception:  # Pillow's readers raise nearly anything; reading it tells what is wrong
        return
    if width * height > limits.pixels:
        raise _too_many_pixels(upload, f"{width} x {height}", limits)
    if width * height * frames > limits.animation_pixels:
        raise _too_many_pixels(upload, f"{frames} frames of {width} x {height}", limits)


def check_clip(path: str, upload: Upload, limits: Limits) -> None:
    """Raise RequestError for a clip that is too long or has too large frames, MediaError for one that has no frame."""
    if recognise_bytes(upload.content, upload.local_name) == "video":
        with as_media_error(path), open_video(path) as (_, stream):
            width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > limits.pixels:
            raise _too_many_pixels(upload, f"frames of {width} x {height}", limits)
    clip = index_clip(path)
    if clip.duration > limits.clip_seconds:
        message = f"the clip lasts {clip.duration:.0f} s; at most {limits.clip_seconds:.0f} s are allowed"
        raise RequestError(413, upload.reason(ValueError(message)), "too_long")
    if len(clip.timestamps) > limits.clip_frames:
        message = f"the clip has {len(clip.timestamps)} frames; at most {limits.clip_frames} are allowed"
        raise RequestError(413, upload.reason(ValueError(message)), "too_long")


def _too_many_pixels(upload: Upload, size: str, limits: Limits) -> RequestError:
    message = f"{size} pixels are too many to decode; at most {limits.pixels:,} are allowed: scale it down first"
    return RequestError(413, upload.reason(ValueError(message)), "too_many_pixels")
