"""Reading a 12-megapixel photograph for an encoder: at a fraction of its size, and in full; CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/image_reading.py --rounds 5

A synthetic photograph of 4000 x 3000 pixels is read from memory and resized to 160 x 160 and to 224 x 224 pixels, as
the encoders do.  It has noise of every size, the coarse stronger than the fine, and grain, as photographs have.  The
differences of the resized images are printed before anything is timed; the mean must be below 1 of 255.
"""

import io
import sys
from functools import partial

import numpy as np
from PIL import Image

from limner.data.images import read_image
from paired import arguments, report, take_turns

WIDTH, HEIGHT = 4000, 3000
SIDES = (160, 224)
BAR = 5.0  # times that reading a JPEG in full takes longer
MOST = 1.0  # of 255: mean difference


def photograph() -> Image.Image:
    random = np.random.default_rng(0)
    total = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    for step in range(12):
        size = (HEIGHT // 2**step + 2, WIDTH // 2**step + 2, 3)
        layer = (128 + random.normal(0, max(4, 2.0**step / 32), size).clip(-60, 60)).clip(0, 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(layer).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32) - 128
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def resized(content: bytes, size: int, side: int) -> np.ndarray:
    frame = read_image(content, side=side)[0]
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR))


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    image = photograph()
    worst = 0.0
    for format, options in (("JPEG", {"quality": 90}), ("PNG", {"compress_level": 1})):
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        content = buffer.getvalue()
        for size in SIDES:
            reduced, full = (resized(content, size, side).astype(int) for side in (size, 0))
            difference = np.abs(reduced - full)
            worst = max(worst, float(difference.mean()))
            print(
                f"{format} of {len(content) / 1e6:.1f} MB to {size}: mean difference {difference.mean():.2f} of 255, "
                f"largest {difference.max()}"
            )
            reduced_name, full_name = f"{format} to {size}, reduced", f"{format} to {size}, in full"
            variants = {
                reduced_name: partial(resized, content, size, size),
                full_name: partial(resized, content, size, 0),
            }
            bars = {full_name: BAR} if format == "JPEG" else {}
            report(take_turns(variants, rounds), bars, paired_with="reading the image in full, as others do")
    return int(worst >= MOST)


if __name__ == "__main__":
    sys.exit(main())
