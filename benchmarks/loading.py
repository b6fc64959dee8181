"""Reading JPEG batches for training: worker processes against one thread; wall time, because processes share the work.

    OMP_NUM_THREADS=1 python benchmarks/loading.py --rounds 5

192 synthetic photographs of 640 x 480 pixels are read in batches of 32, decoded and resized to 224 x 224 pixels, as the
pretrained encoders do.  First the batches alone are timed.  Then every batch is followed by the time that a GPU would
need for it, in which this process sleeps, and the share of the time that it waits for batches is printed.  The batches
of all variants are compared bit by bit before anything is timed.  The projection to other machines uses the rates that
were measured here; nothing of it is measured there.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from limner.core.types import Batch, Medium, Pixels
from limner.data.batches import TrainingBatches, from_files
from limner.data.loader import Loading
from limner.text.vocabulary import Vocabulary
from paired import arguments, report, take_turns

IMAGES, BATCH, SIDE = 192, 32, 224
WORKERS = 2
BAR = 1.7  # times that one thread takes longer than two workers, on two idle cores
CORES = 16  # of the machine of the projection
GPU_SECONDS = 0.1  # of a step for BATCH images; a stand-in


def photographs(folder: Path) -> list[Medium]:
    media = []
    for k in range(IMAGES):
        random = np.random.default_rng(k)
        total = np.full((480, 640, 3), 128, np.float32)
        for step in range(9):  # noise of every size, the coarse stronger than the fine
            noise = random.normal(0, 4 + 2.0**step / 8, (480 // 2**step + 2, 640 // 2**step + 2, 3))
            layer = (128 + noise).clip(0, 255)
            resized = Image.fromarray(layer.astype(np.uint8)).resize((640, 480), Image.Resampling.BILINEAR)
            total += np.asarray(resized, np.float32) - 128
        path = folder / f"{k}.jpg"
        Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        media.append(Medium(f"{k}", str(path), "train", ("a photograph",)))
    return media


def preprocess(frames: np.ndarray) -> torch.Tensor:
    resized = [np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for frame in frames]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def batches_of(media: list[Medium], workers: int) -> TrainingBatches:
    words = Vocabulary.build(["a photograph"], 1)
    reader = from_files(preprocess, side=SIDE)
    return TrainingBatches(media, words, reader, BATCH, augmentations=("full", "flip"), loading=Loading(workers))


def read(batches: TrainingBatches) -> list[Batch]:
    return list(batches.epoch(0))


def train(batches: TrainingBatches, seconds: float, waits: list[float]) -> None:
    """An epoch whose steps take `seconds` each; the share of its time that waits for batches is added to `waits`."""
    begin, waited = time.perf_counter(), 0.0
    iterator = batches.epoch(0)
    while True:
        before = time.perf_counter()
        batch = next(iterator, None)
        waited += time.perf_counter() - before
        if batch is None:
            break
        time.sleep(seconds)
    waits.append(waited / (time.perf_counter() - begin))


def cpu_seconds(batches: TrainingBatches, epochs: int = 3) -> float:
    """CPU seconds of an epoch, in this process and its children; the start of workers is among them."""
    before = sum(os.times()[:4])
    for _ in range(epochs):
        read(batches)
    batches.close()  # children count when they have ended
    return (sum(os.times()[:4]) - before) / epochs


def check(thread: TrainingBatches, workers: TrainingBatches) -> None:
    for ours, theirs in zip(read(thread), read(workers), strict=True):
        assert isinstance(ours.inputs, Pixels) and isinstance(theirs.inputs, Pixels)
        assert ours.ids == theirs.ids and torch.equal(ours.inputs.frames, theirs.inputs.frames)


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, cores of this process {len(os.sched_getaffinity(0))}")
    with tempfile.TemporaryDirectory() as folder:
        media = photographs(Path(folder))
        thread, workers = batches_of(media, 0), batches_of(media, WORKERS)
        check(thread, workers)
        variants: dict[str, Callable[[], object]] = {
            f"{WORKERS} workers": partial(read, workers),
            "one thread": partial(read, thread),
        }
        seconds = take_turns(variants, rounds, time.perf_counter)
        report(seconds, {"one thread": BAR}, "wall time")
        ratio = median(b / a for a, b in zip(*seconds.values(), strict=True))
        waits: dict[str, list[float]] = {name: [] for name in variants}
        for name, batches in ((f"{WORKERS} workers", workers), ("one thread", thread)):
            train(batches, GPU_SECONDS, waits[name])
        for _ in range(rounds):
            train(thread, GPU_SECONDS, waits["one thread"])
            train(workers, GPU_SECONDS, waits[f"{WORKERS} workers"])
        for name, shares in waits.items():
            print(f"{name}: {median(shares):.0%} of a step of {GPU_SECONDS:g} s and its batch waits for the batch")
        workers.close()
        thread_cpu, workers_cpu = (cpu_seconds(batches_of(media, count)) for count in (0, WORKERS))
    print(
        f"CPU time of an epoch: one thread {thread_cpu:.2f} s, {WORKERS} workers and this process {workers_cpu:.2f} s: "
        f"on idle cores at most {WORKERS * thread_cpu / workers_cpu:.2f}x"
    )
    rate = IMAGES / thread_cpu
    print(
        f"projection, not measured: {rate:.0f} images per second of CPU time; {CORES - 1} workers on {CORES} cores "
        f"read at most {rate * (CORES - 1):.0f} images/s, 8 workers {rate * 8:.0f} images/s"
    )
    return int(ratio < BAR)


if __name__ == "__main__":
    sys.exit(main())
