"""Photographs that installed packages contain, and a video of them: something to caption without files of one's own.

limner itself contains no photograph, because of the packages' licences.
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from limner.data.media import MediaError, read_image

PHOTOGRAPHS = {  # name -> package and file in it
    "officer.jpg": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut.png": ("skimage", "data/astronaut.png"),
    "cat.png": ("skimage", "data/chelsea.png"),
    "coffee.png": ("skimage", "data/coffee.png"),
    "motorcycle.png": ("skimage", "data/motorcycle_left.png"),
    "photographer.png": ("skimage", "data/camera.png"),
    "rocket.jpg": ("skimage", "data/rocket.jpg"),
    "palace.jpg": ("sklearn", "datasets/images/china.jpg"),
    "flower.jpg": ("sklearn", "datasets/images/flower.jpg"),
    "clock.png": ("skimage", "data/clock_motion.png"),
    "coins.png": ("skimage", "data/coins.png"),
    "lawn.png": ("skimage", "data/grass.png"),
}
DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}  # package -> what pip calls it
SIZE = (320, 240)  # of the video: width and height in pixels
FPS, SECONDS = 12, 2  # frames per second; seconds per image


def find_photographs() -> tuple[dict[str, Path], list[str]]:
    """-> (name -> file of every photograph that is installed, what pip calls the packages that are missing)."""
    found, missing = {}, set()
    for name, (package, file) in PHOTOGRAPHS.items():
        spec = find_spec(package)
        source = Path(spec.origin).parent / file if spec and spec.origin else None
        if source is None or not source.is_file():
            missing.add(DISTRIBUTIONS.get(package, package))
        else:
            found[name] = source
    return found, sorted(missing)


def slide_show(images: Sequence[str | Path]) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Frames of every image for `SECONDS`, zooming in; images that cannot be read are left out."""
    frames: list[np.ndarray] = []
    for file in images:
        try:
            frames += zoom(read_image(str(file))[0])
        except MediaError:
            continue  # the caption command reports it
    return frames


def zoom(pixels: UInt8[np.ndarray, "H W 3"]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Frames of an image's centre, from the largest part that fits to four fifths of it."""
    image = Image.fromarray(pixels)
    for border in np.linspace(0, 0.1, FPS * SECONDS).tolist():  # on each side
        yield np.asarray(ImageOps.fit(image, SIZE, Image.Resampling.BILINEAR, border))
