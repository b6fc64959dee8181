"""What one client may ask for, and what the service keeps in memory at a time."""

from dataclasses import dataclass

MAX_BEAM = 20  # hypotheses or samples per medium
MAX_LENGTH = 100  # tokens of a caption
MAX_MUST = 3  # words that must appear: n of them need 2^n beams
MAX_NAME = 200  # characters of a file name that are repeated in an answer


@dataclass(frozen=True)
class Limits:
    """Bounds on requests.  Raises ValueError when one of them is not above 0."""

    body_bytes: int = 32 << 20  # of one request
    buffered_bytes: int = 512 << 20  # of all requests that are being received or answered
    pixels: int = 64_000_000  # width x height of an image or of a frame
    animation_pixels: int = 2_000_000_000  # width x height x frames of a GIF, WebP, APNG or AVIF
    clip_seconds: float = 600.0  # duration of a clip
    clip_frames: int = 60_000
    media: int = 64  # files of one request
    waiting: int = 256  # media that are read, waiting or captioned at a time
    upload_seconds: float = 30.0  # from the first to the last byte of a request
    seconds: float = 120.0  # from the last byte of a request to its answer

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"the limit {name} is {value}; give a number above 0")
