"""Squash an image to the encoder's square, crop its centre, or fill it up with grey?  CIDEr on the same images.

    python benchmarks/aspect.py --model limner-small --split val

COCO-5000's images are stored squashed to squares, and its caption file has the sizes of the originals.  Every image is
stretched to its original proportions (at about as many pixels) before the three ways of making a square are tried.
limner's encoders squash, so the first way is the one that training used: this says what the others would cost.
"""

import argparse
import json
import os
from pathlib import Path

from PIL import Image, ImageOps

import limner

GREY = (127, 127, 127)


def original_proportions(image: Image.Image, width: int, height: int) -> Image.Image:
    """Stretch a squashed image to width : height, keeping its number of pixels."""
    scale = (image.width * image.height / (width * height)) ** 0.5
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)


def squash(image: Image.Image) -> Image.Image:
    return image


def crop(image: Image.Image) -> Image.Image:
    return ImageOps.fit(image, (min(image.size),) * 2)


def pad(image: Image.Image) -> Image.Image:
    return ImageOps.pad(image, (max(image.size),) * 2, color=GREY)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="run or packed model (default: the one inside limner)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIMNER_DATA", "../shared/data")) / "coco5000")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    entries = json.loads((options.data / "dataset_coco5000.json").read_text(encoding="utf-8"))["images"]
    entries = [entry for entry in entries if entry["split"] == options.split]
    references = {str(entry["cocoid"]): [sentence["raw"] for sentence in entry["sentences"]] for entry in entries}
    images = []
    for entry in entries:
        stored = Image.open(options.data / "images" / entry["filename"]).convert("RGB")
        images.append(original_proportions(stored, entry["width"], entry["height"]))
    model = limner.load(options.model)
    for way in (squash, crop, pad):
        captions = {}
        for id, (_, caption) in zip(references, model.captions([way(image) for image in images]), strict=True):
            captions[id] = [caption.text]
        report = limner.score(captions, references, metrics=["CIDEr", "BLEU-4"])
        scores = "  ".join(f"{name} {value:.3f}" for name, value in report.scores.items())
        print(f"{way.__name__:8} {scores}  ({len(images)} images)")


if __name__ == "__main__":
    main()
