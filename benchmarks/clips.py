"""How well a captioner of images captions clips: by consensus of the frames, as a mosaic of them, by the middle frame.

    OMP_NUM_THREADS=1 python benchmarks/clips.py [--model RUN] [--pictures 300] [--seed 0]

The real clips are those of $LIMNER_DATA (default ../shared/data): msvd/clips and msrvtt/clips, with the people's
captions of the annotations beside them.  Ten clips are few.  Clips whose right captions are known are therefore made of
Flickr8k's test pictures: a pan (a window of .7 of the sides moves from left to right), a zoom (to the inner half of the
sides), and a cut (three pictures, one after another).  A caption of a cut is scored against the five captions of each
of its pictures, and the best counts.  CIDEr has the document frequencies of the whole test split, or of all clips of a
data set.  METEOR is the mean over clips; it needs its tables (pip install 'limner[meteor]').
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import limner
from limner.data.datasets import DataConfig, read_dataset
from limner.data.media import read_image
from limner.decode.clip_options import CLIP_METHODS
from limner.explanations.video import write_mp4
from limner.metrics.cider import cider
from limner.metrics.references import References
from limner.metrics.report import METRICS

DATA = Path(os.environ.get("LIMNER_DATA", "../shared/data"))
FPS, FRAMES = 12, 48  # a clip of four seconds
SIDE = 224


class Clip(NamedTuple):
    """A clip and what it shows: for each picture (one, or three of a cut) the id of its references."""

    kind: str
    path: str
    shows: tuple[str, ...]


def pan(picture: np.ndarray) -> Iterator[np.ndarray]:
    height, width = picture.shape[:2]
    h, w = int(0.7 * height), int(0.7 * width)
    for left in np.linspace(0, width - w, FRAMES).astype(int).tolist():
        yield frame(picture[(height - h) // 2 :][:h, left : left + w])


def zoom(picture: np.ndarray) -> Iterator[np.ndarray]:
    height, width = picture.shape[:2]
    for part in np.linspace(1, 0.5, FRAMES).tolist():
        h, w = int(part * height), int(part * width)
        yield frame(picture[(height - h) // 2 :, (width - w) // 2 :][:h, :w])


def cut(pictures: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for picture in pictures:
        yield from [frame(picture)] * (FRAMES // len(pictures))


def frame(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def made_clips(folder: Path, pictures: Mapping[str, str], count: int, seed: int) -> list[Clip]:
    """Write `count` clips of each kind from pictures (id -> path)."""
    order = np.random.default_rng(seed).permutation([*pictures]).tolist()
    clips = []
    for k in range(count):
        shown = [order[(3 * k + j) % len(order)] for j in range(3)]
        pixels = [read_image(pictures[id])[0] for id in shown]
        makers = {
            "pan": (pan(pixels[0]), shown[:1]),
            "zoom": (zoom(pixels[1]), shown[1:2]),
            "cut": (cut(pixels), shown),
        }
        for kind, (frames, ids) in makers.items():
            path = write_mp4(folder / f"{kind}{k:04}.mp4", frames, FPS)
            clips.append(Clip(kind, str(path), tuple(ids)))
    return clips


def real_clips() -> tuple[list[Clip], dict[str, References]]:
    """The real clips, and for each its data set's references (those of all its clips)."""
    clips, references = [], {}
    for name in ("msvd", "msrvtt"):
        media = read_dataset(DataConfig(name, str(DATA / name / "clips"), str(DATA / name))).media
        known = References({medium.id: medium.references for medium in media if medium.references})
        for medium in media:
            if Path(medium.path).is_file():
                clips.append(Clip("real", medium.path, (medium.id,)))
                references[medium.id] = known
    return clips, references


def cider_of(clips: Sequence[Clip], captions: Sequence[str], references: Mapping[str, References]) -> np.ndarray:
    """CIDEr of every clip's caption; the best over the pictures that a clip shows."""
    values = np.zeros(len(clips))
    for known in {id(each): each for each in references.values()}.values():
        place = {name: k for k, name in enumerate(known.ids)}
        waiting = [(k, name) for k, clip in enumerate(clips) for name in clip.shows if references[name] is known]
        while waiting:  # a medium has one caption at a time, and may be in several clips
            now = {name: k for k, name in waiting}
            texts = dict.fromkeys(known.ids, "") | {name: captions[k] for name, k in now.items()}
            segments = cider(known.candidates(texts), known).segments
            for name, k in now.items():
                values[k] = max(values[k], segments[place[name]])
            done = {(k, name) for name, k in now.items()}
            waiting = [each for each in waiting if each not in done]
    return values


def meteor_of(
    clips: Sequence[Clip], captions: Sequence[str], references: Mapping[str, References]
) -> np.ndarray | None:
    """METEOR of every clip's caption, the best over the pictures that a clip shows; None without its tables."""
    texts = {f"{k} {name}": captions[k] for k, clip in enumerate(clips) for name in clip.shows}
    known = {key: references[key.partition(" ")[2]] for key in texts}
    people = {key: each.texts[each.ids.index(key.partition(" ")[2])] for key, each in known.items()}
    subset = References(people)
    try:
        segments = METRICS["METEOR"](subset.candidates(texts), subset).segments
    except (ImportError, OSError) as error:
        print(f"METEOR is left out: {error}")
        return None
    values = np.zeros(len(clips))
    for key, value in zip(subset.ids, segments, strict=True):
        values[int(key.partition(" ")[0])] = max(values[int(key.partition(" ")[0])], value)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="run, packed or exported model (default: the one that is shipped)")
    parser.add_argument("--pictures", type=int, default=300, help="clips of each made kind (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips, references = real_clips()
    flickr = DataConfig("flickr8k", str(DATA / "flickr8k/images"), str(DATA / "flickr8k/dataset_flickr8k.json"))
    test = [medium for medium in read_dataset(flickr).media if medium.split == "test"]
    references |= dict.fromkeys(
        (medium.id for medium in test), References({medium.id: medium.references for medium in test})
    )
    with tempfile.TemporaryDirectory() as folder:
        pictures = {medium.id: medium.path for medium in test}
        clips += made_clips(Path(folder), pictures, options.pictures, options.seed)
        captions: dict[str, list[str]] = {}
        for method in CLIP_METHODS:
            captioner = limner.load(options.model, clip=method)
            found = [caption for _, caption in captioner.captions([clip.path for clip in clips])]
            captions[method] = [caption.text for caption in found if isinstance(caption, limner.Caption)]
    scores = {name: {m: of(clips, captions[m], references) for m in CLIP_METHODS} for name, of in SCORES.items()}
    show(clips, captions, scores)


SCORES = {"CIDEr": cider_of, "METEOR": meteor_of}


def show(clips: Sequence[Clip], captions: Mapping[str, list[str]], scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the sentences of the real clips, and a table of means, with differences from the mosaic.

    Differences are paired, with their standard errors.
    """
    for k, clip in enumerate(clips):
        if clip.kind == "real":
            print(Path(clip.path).name)
            for method, texts in captions.items():
                print(f"    {method:10} {scores['CIDEr'][method][k]:.3f}  {texts[k]}")
    kinds = {kind: np.array([clip.kind == kind for clip in clips]) for kind in ("real", "pan", "zoom", "cut")}
    kinds["all made"] = ~kinds["real"]
    for name, by_method in scores.items():
        print(f"\n{name:10} " + " ".join(f"{f'{kind} ({rows.sum()})':>22}" for kind, rows in kinds.items()))
        for method, values in by_method.items():
            if values is None:
                continue
            cells = []
            for rows in kinds.values():
                difference = (values - by_method["mosaic"])[rows]
                error = difference.std(ddof=1) / len(difference) ** 0.5
                cells.append(f"{values[rows].mean():.3f} ({difference.mean():+.3f} +- {error:.3f})")
            print(f"{method:10} " + " ".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
