"""How soon `limner watch --camera` has a caption after the scene changes.

    python benchmarks/live_camera.py FOLDER_OF_IMAGES --scenes 40

A film is made of the images, a cut between two of them, and played in real time.  The time of a caption is that from
the moment at which the first frame after the cut was to be shown, to the caption.  A change counts as one after .2 s
(it may be a camera flash), and this is a part of the time.
"""

import argparse
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median, quantiles

import av
import numpy as np
from PIL import Image

import limner
from limner.data.media_folder import media_below
from limner.inference.load import CaptionPipeline
from limner.watching.camera import Film, Frame
from limner.watching.preview import FilmPreview
from limner.watching.scenes import SIDE, LiveScenes


def make_film(out: Path, images: Iterable[Path], seconds: float, rate: int, size: tuple[int, int]) -> None:
    """Write a film in which every image is shown for some seconds; a little noise stands for that of a camera."""
    rng = np.random.default_rng(0)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for path in images:
            with Image.open(path) as image:
                still = np.asarray(image.convert("RGB").resize(size)).astype(np.int16)
            for _ in range(round(seconds * rate)):
                noise = rng.integers(-3, 4, (size[1] // 4, size[0] // 4, 1), dtype=np.int16).repeat(4, 0).repeat(4, 1)
                picture = np.clip(still + noise, 0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def play(film: Path, captioner: CaptionPipeline, preview: Path | None) -> None:
    """Play the film, and print the times of its captions."""
    looked, source, stop = 0, Film(str(film)), threading.Event()
    shown = FilmPreview(preview, wait=False) if preview else None

    def watched() -> Iterator[Frame]:
        nonlocal looked
        for frame in source.frames(stop):
            looked += 1
            if shown:
                shown.show(frame, "a caption")
            yield frame

    live = LiveScenes(watched(), captioner.caption, stop)
    seen = list(live)
    if shown:
        shown.close()
    times = sorted(1000 * each.latency for each in seen[1:])  # the first scene is no change
    percentiles = quantiles(times, n=20)
    print(
        f"{'with a preview' if preview else 'no preview':15} {len(seen)} captions, {live.dropped} dropped; ms after "
        f"a change: p50 {median(times):.0f}, p95 {percentiles[18]:.0f}, longest {times[-1]:.0f}; "
        f"{looked / (source.clip.duration):.1f} frames/s looked at",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each scene")
    parser.add_argument("--rate", type=int, default=25, help="frames a second of the film")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720))
    parser.add_argument("--threads", type=int, default=None, help="of PyTorch")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    captioner = limner.load(options.model)
    captioner.caption(np.full((SIDE // 2, SIDE, 3), 127, np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "film.mp4")
        images = media_below(options.folder).media[: options.scenes]
        make_film(film, images, options.seconds, options.rate, tuple(options.size))
        print(f"{len(images)} scenes of {options.seconds:g} s, {options.size[0]}x{options.size[1]}, {options.rate}/s")
        play(film, captioner, None)
        play(film, captioner, Path(folder, "preview.mp4"))


if __name__ == "__main__":
    main()
