"""How many changed copies of pictures the near-duplicate test of `limner check` finds.

python benchmarks/picture_hash.py FOLDER --pictures 300
"""

import argparse
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from limner.data.picture_hash import hash_picture, near_pairs


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture after it was encoded as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """The picture with sides of so many times their length."""
    return image.resize((round(image.width * factor), round(image.height * factor)))


def cropped(image: Image.Image, share: float) -> Image.Image:
    """The picture without this share of its sides at each edge."""
    x, y = share * image.width, share * image.height
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 75": lambda image: as_jpeg(image, 75),
    "JPEG, quality 30": lambda image: as_jpeg(image, 30),
    "half the size": lambda image: scaled(image, 1 / 2),
    "a third of the size, JPEG 60": lambda image: as_jpeg(scaled(image, 1 / 3), 60),
    "brightness x 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast x .8": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cropped by 2 % at each edge": lambda image: cropped(image, 0.02),
    "cropped by 5 % at each edge": lambda image: cropped(image, 0.05),
    "mirrored": ImageOps.mirror,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=300)
    options = parser.parse_args()
    paths = random.Random(1).sample(sorted(options.folder.iterdir()), options.pictures)
    found = dict.fromkeys(CHANGES, 0)
    for path in paths:
        image = Image.open(path).convert("RGB")
        for name, change in CHANGES.items():
            copies = [hash_picture(np.asarray(copy)) for copy in (image, change(image))]
            found[name] += len(list(near_pairs(copies)))
    for name, count in found.items():
        print(f"{name:32} {count} of {len(paths)}")


if __name__ == "__main__":
    main()
